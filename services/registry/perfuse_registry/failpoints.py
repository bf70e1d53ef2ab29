"""Named moments at which a test may kill the process; without effect unless enabled.

`PERFUSE_REGISTRY_FAILPOINTS=version.stored=kill` ends the process, as SIGKILL does, the first time
it reaches that moment; `=raise` raises there instead. The names are in `NAMES`. Never set this
where data matters.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "PERFUSE_REGISTRY_FAILPOINTS"

NAMES = (
    "version.judged",
    "version.leased",
    "blob.put.written",
    "blob.put.renamed",
    "version.stored",
    "version.numbered",
    "version.uncommitted",
    "version.committed",
    "alias.changed",
    "alias.uncommitted",
    "alias.committed",
    "version_delete.unlisted",
    "version_delete.uncommitted",
    "version_delete.committed",
    "concept_delete.uncommitted",
    "concept_delete.committed",
    "garbage.purged",
    "garbage.condemned",
    "garbage.locked",
    "garbage.removed",
    "garbage.uncommitted",
    "garbage.committed",
)


class Reached(RuntimeError):
    """A fail point was told to raise."""


def _enabled() -> dict[str, str]:
    entries = filter(None, os.environ.get(VARIABLE, "").split(","))
    points = dict(entry.partition("=")[::2] for entry in entries)
    if unknown := points.keys() - set(NAMES):
        raise ValueError(f"{VARIABLE} names {sorted(unknown)}; known are {', '.join(NAMES)}")
    return points


_ENABLED = _enabled()


def reach(name: str) -> None:
    """Say that the moment `name` has come."""
    if not _ENABLED:
        return
    action = _ENABLED.get(name)
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "raise":
        raise Reached(name)
