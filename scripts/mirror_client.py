"""Write `perfuse.client._sync` from `perfuse.client._async`, or say that it is stale.

    python scripts/mirror_client.py [--check]

The client is written once, for coroutines. What differs for threads is a matter of names, so the
other half is made by replacing them; it is committed, and a test compares it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import unasync

ROOT = Path(__file__).parents[1]
CLIENT = ROOT / "src/perfuse/client"
NAMES = {
    "_async": "_sync",
    "AsyncClient": "Client",
    "aclosing": "closing",
    "aio_channel": "sync_channel",
    "aio_pause": "sync_pause",
}
WORDS = {
    "The client for coroutines. `perfuse.client._sync` is written from it by `make client`.": (
        "The client for threads. Written from `perfuse.client._async` by `make client`; edit that."
    ),
}


def mirror(into: Path) -> None:
    """Write the synchronous half into a folder."""
    rule = unasync.Rule(f"{CLIENT}/_async/", f"{into}/", additional_replacements=NAMES)
    into.mkdir(parents=True, exist_ok=True)
    unasync.unasync_files([str(path) for path in (CLIENT / "_async").glob("*.py")], [rule])
    for path in into.glob("*.py"):
        text = path.read_text()
        for word, other in WORDS.items():
            text = text.replace(word, other)
        path.write_text(text)
    settings = ["--config", str(ROOT / "pyproject.toml"), "--quiet"]
    ruff = [sys.executable, "-m", "ruff"]
    subprocess.run([*ruff, "check", *settings, "--select", "I", "--fix", str(into)], check=True)
    subprocess.run([*ruff, "format", *settings, str(into)], check=True)


def main() -> int:
    """Write it, or with `--check` compare; 1 where it differs."""
    if "--check" not in sys.argv[1:]:
        mirror(CLIENT / "_sync")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "perfuse/client/_sync"
        mirror(made)
        names = {path.name for home in (made, CLIENT / "_sync") for path in home.glob("*.py")}
        stale = [
            name
            for name in sorted(names)
            if not (made / name).exists()
            or not (CLIENT / "_sync" / name).exists()
            or (made / name).read_text() != (CLIENT / "_sync" / name).read_text()
        ]
    if stale:
        print(f"src/perfuse/client/_sync is stale ({', '.join(stale)}): make client")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
