"""`python -m fuzz [TARGET ...] --minutes N`: search, then keep the smallest corpus found."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz import CORPUS, TARGETS, target

ROOT = Path(__file__).parent.parent
# Of one input; the services' own limits lie above, but small inputs reach the same branches.
_MOST_BYTES = 4096
_SECONDS_PER_INPUT = 30
_MEGABYTES = 3072


def main() -> None:
    """Search each target in turn; ends with status 1 where a crash was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=1.0, help="for each target")
    parser.add_argument("--crashes", type=Path, default=ROOT / ".fuzz", help="where crashes go")
    arguments = parser.parse_args()
    for name in arguments.targets:
        if name not in TARGETS:
            parser.error(f"{name!r} is no target; these are: {', '.join(TARGETS)}")
    crashed = [
        name
        for name in arguments.targets or TARGETS
        if not _searched(name, arguments.minutes, arguments.crashes)
    ]
    sys.exit(f"crashes, under {arguments.crashes}: {', '.join(crashed)}" if crashed else 0)


def _searched(name: str, minutes: float, crashes: Path) -> bool:
    """Search one target and keep what was found; False where something crashed."""
    crashes.mkdir(exist_ok=True)
    kept = CORPUS / name
    with tempfile.TemporaryDirectory() as temporary:
        program = _program(name, Path(temporary))
        found, merged = Path(temporary, "found"), Path(temporary, "merged")
        for folder in (found, merged):
            folder.mkdir()
        sources = [*target(name).seeds().values(), *(x.read_bytes() for x in kept.glob("*"))]
        for index, data in enumerate(sources):
            (found / f"seed-{index}").write_bytes(data)
        done = _run(
            program,
            f"-max_total_time={round(minutes * 60)}",
            f"-max_len={_MOST_BYTES}",
            f"-timeout={_SECONDS_PER_INPUT}",
            f"-rss_limit_mb={_MEGABYTES}",
            f"-artifact_prefix={crashes}/{name}-",
            "-print_final_stats=1",
            str(found),
        )
        figures = dict(re.findall(r"stat::(\w+):\s+(\d+)", done.stderr))
        executed = figures.get("number_of_executed_units", "an unknown number of")
        print(f"{name}: {executed} executions in {minutes:g} minutes, ", end="")
        if done.returncode != 0:
            print(f"CRASHED\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}", flush=True)
            return False
        print("0 crashes", flush=True)
        merging = _run(program, "-merge=1", f"-max_len={_MOST_BYTES}", str(merged), str(found))
        merging.check_returncode()
        _keep(merged, kept)
    return True


def _run(program: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *flags],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def _program(name: str, folder: Path) -> Path:
    """A program that searches a target, for us and for libFuzzer to start."""
    path = folder / "search"
    command = [sys.executable, "-m", "fuzz.search", name, str(path)]
    path.write_text(
        f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.join(command)} "$@"\n'
    )
    path.chmod(0o700)
    return path


def _keep(found: Path, kept: Path) -> None:
    """Let a folder hold these inputs and no other, each named by its content."""
    kept.mkdir(parents=True, exist_ok=True)
    wanted = {hashlib.sha1(data).hexdigest()[:16]: data for data in _contents(found)}
    for path in kept.glob("*"):
        if path.name not in wanted:
            path.unlink()
    for name, data in wanted.items():
        (kept / name).write_bytes(data)


def _contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.glob("*")]


if __name__ == "__main__":
    main()
