"""The results' file: for each form, what was measured so far."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.fidelity.claims import CLAIMS
from bench.fidelity.form import Form
from bench.renderer_figures import surroundings
from perfuse.adapter.file import write_atomically
from perfuse.attach import BaseModel

ORDER = ("full", "quick")
"""A claim is told from the first of these forms in which it was measured."""


def read(path: Path) -> dict[str, Any]:
    """Form's name → its record; empty where there is no file."""
    return json.loads(path.read_text()) if path.exists() else {}


def add(
    path: Path,
    form: Form,
    base: BaseModel,
    claim: str,
    record: dict[str, Any],
    *,
    threads: int,
) -> dict[str, Any]:
    """Add one claim's record and return everything measured so far.

    Other base models' and other settings' results of the same form make way.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.parent):
        everything = read(path)
        _enter(everything, form, base, claim, record, threads)
        write_atomically(path, (json.dumps(everything, indent=1) + "\n").encode())
    return everything


def _enter(
    everything: dict[str, Any],
    form: Form,
    base: BaseModel,
    claim: str,
    record: dict[str, Any],
    threads: int,
) -> None:
    # JSON knows no tuples.
    about = json.loads(json.dumps({"form": asdict(form), "base": base.fingerprint}))
    kept = everything.get(form.name, {})
    if {name: kept.get(name) for name in about} != about:
        kept = {"claims": {}}
    kept |= about
    kept["claims"][claim] = {
        **record,
        "measured": {**surroundings(), "threads": threads, "revision": revision()},
    }
    kept["complete"] = all(one.NAME in kept["claims"] for one in CLAIMS)
    everything[form.name] = kept


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process is at the folder's results; several may measure claims side by side."""
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def told(everything: dict[str, Any], claim: str) -> tuple[str, dict[str, Any]] | None:
    """The form from which a claim is told, and its record; None where it was not measured."""
    names = [*ORDER, *(name for name in everything if name not in ORDER)]
    for name in names:
        record = everything.get(name, {}).get("claims", {}).get(claim)
        if record is not None:
            return name, record
    return None


def revision() -> str:
    """The commit that was measured, where git can say it."""
    try:
        said = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said.stdout.strip()
