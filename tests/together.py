"""Which files are tested in one process, one after another, because they share running servers."""

from __future__ import annotations

from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

TOGETHER = (
    (  # `platform`: what `perfuse up` runs.
        "cli/test_commands.py",
        "cli/test_consent.py",
        "cli/test_doctor.py",
        "cli/test_erase.py",
        "cli/test_sharing.py",
        "cli/test_up.py",
        "test_examples.py",
    ),
    ("renderer/test_serve_backend.py", "renderer/test_service.py"),  # `fleet`: replicas on Ray.
    ("security/test_leaks.py", "security/test_generated.py"),  # `planted`: one full of secrets.
)
"""Files by what they share; every other file is by itself."""

HERE = Path(__file__).parent


def place(file: Path) -> Path:
    """A file's group, named by the first file in it."""
    for files in TOGETHER:
        if file in [HERE / name for name in files]:
            return HERE / files[0]
    return file


class Together(LoadScopeScheduling):
    """Gives whole groups of files to the processes, in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        super().__init__(config, log)
        self._root = config.rootpath

    def _split_scope(self, nodeid: str) -> str:
        return str(place(self._root / nodeid.partition("::")[0]))
