"""Files of finished work, each under a digest of what it depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from perfuse.adapter.file import write_atomically

VERSIONS = {
    "lesson": 1,
    "pictures": 1,
    "judged": 1,
    "companions": 1,
    "trial": 1,
    "trial blend": 1,
    "trial lesson": 1,
}
"""Raised by hand where code changes what a kind of file would hold."""

Made = tuple[Mapping[str, Tensor], Mapping[str, Any]]
"""Tensors, and whatever JSON holds."""


class Store:
    """A folder of finished work. A file is there whole or not at all.

    Args:
        root: The folder; made where it is missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def key(self, kind: str, parts: Mapping[str, Any]) -> str:
        """The digest of a file of `kind` that depends on `parts`."""
        text = json.dumps({"version": VERSIONS[kind], **parts}, sort_keys=True)
        return hashlib.sha256(f"{kind}/{text}".encode()).hexdigest()[:32]

    def path(self, kind: str, key: str) -> Path:
        """Where it lies, or would."""
        return self.root / kind / f"{key}.safetensors"

    def checkpoint(self, key: str) -> Path:
        """Where unfinished work keeps its state."""
        folder = self.root / "unfinished"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{key}.safetensors"

    def put(self, kind: str, key: str, made: Made) -> None:
        """Keep what was made; the same tensors and notes give the same bytes."""
        tensors, notes = made
        path = self.path(kind, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = save(dict(tensors), {"notes": json.dumps(notes, sort_keys=True)})
        write_atomically(path, data)

    def get(self, kind: str, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was kept, or None."""
        path = self.path(kind, key)
        if not path.exists():
            return None
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads((file.metadata() or {})["notes"])

    def ensure(
        self, kind: str, parts: Mapping[str, Any], make: Callable[[], Made]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What was kept, made first where it is missing."""
        key = self.key(kind, parts)
        found = self.get(kind, key)
        if found is None:
            self.put(kind, key, make())
            found = self.get(kind, key)
        assert found is not None
        return found
