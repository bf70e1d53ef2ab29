"""Named moments at which a test may end the process or a call; without effect unless armed.

`PERFUSE_REGISTRY_FAILPOINTS=version.stored=kill` ends the process, as SIGKILL does, the first time
it comes by that moment; `version.stored=raise` raises there instead; `version.stored=kill@3` waits
for the third time. Several are parted by commas, and each acts once. The names are in `NAMES`.
Never set this where data matters.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading

VARIABLE = "PERFUSE_REGISTRY_FAILPOINTS"

NAMES = (
    # CreateVersion, in the order of its steps.
    "version.judged",
    "lease.uncommitted",
    "version.leased",
    "preview.leased",
    "blob.put.written",
    "blob.put.renamed",
    "preview.stored",
    "version.stored",
    "version.numbered",
    "preview.inserted",
    "version.uncommitted",
    "version.committed",
    # CreateAlias, UpdateAlias, DeleteAlias.
    "alias_create.uncommitted",
    "alias_create.committed",
    "alias_move.changed",
    "alias_move.uncommitted",
    "alias_move.committed",
    "alias_delete.uncommitted",
    "alias_delete.committed",
    # DeleteVersion, DeleteConcept, UndeleteConcept.
    "version_delete.unlisted",
    "version_delete.uncommitted",
    "version_delete.committed",
    "concept_delete.uncommitted",
    "concept_delete.committed",
    "concept_undelete.uncommitted",
    "concept_undelete.committed",
    # EraseConcept, and what goes on after it.
    "erasure.uncommitted",
    "erasure.committed",
    "erasure_bytes.locked",
    "erasure_bytes.removed",
    "erasure_bytes.uncommitted",
    "erasure_bytes.settled",
    # CollectGarbage, in the order of its steps.
    "garbage.purge_uncommitted",
    "garbage.purge_committed",
    "garbage.spare_uncommitted",
    "garbage.locked",
    "garbage.removed",
    "garbage.uncommitted",
    "garbage.committed",
    "garbage.condemn_uncommitted",
    "garbage.condemned",
    "garbage.forgotten",
    "garbage.adopted",
    "garbage.swept",
)

_ENTRY = re.compile(r"([a-z_.]+)=(kill|raise)(?:@([1-9][0-9]{0,8}))?")
_log = logging.getLogger(__name__)


class Reached(RuntimeError):
    """A fail point was told to raise."""


class _Armed:
    """What is to happen at one point, and how many comings-by before that."""

    def __init__(self, action: str, turn: int) -> None:
        self.action = action
        self._left = turn
        self._lock = threading.Lock()

    def is_due(self) -> bool:
        """Count one coming-by; True for the chosen one alone."""
        with self._lock:
            self._left -= 1
            return self._left == 0


_armed: dict[str, _Armed] = {}


def arm(entries: str) -> None:
    """Arm these points, written as in the variable, and no others.

    Raises:
        ValueError: an entry that is none, or a name that is not in `NAMES`.
    """
    points = {}
    for entry in filter(None, entries.split(",")):
        match = _ENTRY.fullmatch(entry)
        if match is None or match[1] not in NAMES:
            raise ValueError(
                f"{VARIABLE} has the entry {entry!r}; write NAME=kill, NAME=raise or NAME=kill@3, "
                f"where NAME is one of {', '.join(NAMES)}"
            )
        points[match[1]] = _Armed(match[2], int(match[3] or 1))
    if points:
        _log.warning("fail points are armed: %s", entries)
    _armed.clear()
    _armed.update(points)


def reach(name: str) -> None:
    """Say that the moment `name` has come."""
    if not _armed:
        return
    point = _armed.get(name)
    if point is None or not point.is_due():
        return
    if point.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise Reached(name)


arm(os.environ.get(VARIABLE, ""))
