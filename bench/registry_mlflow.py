"""MLflow in a virtual environment of its own: a peer to measure, never a dependency."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PINNED = ("mlflow==3.17.2", "psycopg2-binary==2.9.11")
# What `mlflow server` starts where it is not told otherwise.
WORKERS = 4
HOME = Path(os.environ.get("PERFUSE_BENCH_MLFLOW") or Path(__file__).parents[1] / ".bench-mlflow")
_TOLD = ("mlflow", "uvicorn", "fastapi", "flask", "sqlalchemy", "psycopg2-binary")


def environment() -> Path:
    """The interpreter of the environment at `HOME`, made at first use (about 900 MB)."""
    python = HOME / "bin" / "python"
    ready = HOME / "ready"
    if ready.exists() or "PERFUSE_BENCH_MLFLOW" in os.environ:
        return python
    print(f"installing {', '.join(PINNED)} into {HOME}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PINNED], check=True)
    ready.touch()
    return python


def versions(python: Path) -> dict[str, str]:
    """Of what its speed depends on."""
    command = [str(python), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    listed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return {
        each["name"].lower(): each["version"] for each in listed if each["name"].lower() in _TOLD
    }
