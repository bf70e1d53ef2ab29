"""Training state on disk, written whole or not at all: a killed build goes on from the last."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` beside `path`, then put it in place in one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    torch.save(state, draft)
    os.replace(draft, path)


def load(path: Path) -> dict[str, Any] | None:
    """The state at `path`, or None where no build has been yet."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return state
