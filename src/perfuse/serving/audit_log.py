"""The record of who did what, of a service without a database: a file that only grows.

Each line is a JSON object with the fields of `perfuse.v1.AuditEvent` and `previous`, the SHA-256 of
the line before it (of nothing, for the first), so that a line which was changed or taken out shows:
`verify` finds it. Lines are written whole, by one process; the operator may move the file away and
have the process start another.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import structlog

from perfuse.errors import DataLoss, FailedPrecondition
from perfuse.serving.call import Call
from perfuse.serving.refused import Refused


class AuditLog:
    """Appends events.

    Args:
        path: of the file, made if it is not there; None tells the service's log instead, without
            the digests.

    Raises:
        FailedPrecondition: the file cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self._log = structlog.get_logger("perfuse.audit")
        self._lock = threading.Lock()
        self._file: int | None = None
        self._previous = ""
        if path is None:
            return
        try:
            self._previous = _last_digest(path)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise FailedPrecondition(
                f"the audit file {path} cannot be written ({error.strerror}). Choose another "
                "place, or make its folder"
            ) from None

    def record(self, call: Call, rpc: str, resources: Sequence[str], code: str = "OK") -> None:
        """Record what a call did, to which resources."""
        self._append(
            tenant=call.caller.tenant,
            subject=call.caller.subject,
            rpc=rpc,
            resources=list(resources),
            code=code,
            request_id="",
            call_id=call.request_id,
            peer=call.peer,
        )

    def refused(self, call: Refused) -> None:
        """Record that a call was refused, or failed."""
        self._append(
            tenant=call.caller.tenant,
            subject=call.caller.subject,
            rpc=call.rpc,
            resources=[call.resource] if call.resource else [],
            code=call.code,
            request_id=call.request_id,
            call_id=call.call_id,
            peer=call.peer,
        )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _append(self, **fields: object) -> None:
        event = {"event_time": datetime.now(UTC).isoformat(), **fields}
        with self._lock:
            if self._file is None:
                self._log.info("audit", **event)
                return
            line = json.dumps({**event, "previous": self._previous}).encode()
            try:
                os.write(self._file, line + b"\n")
            except OSError as error:
                # A full disk must not stop what the disk is not needed for; the log tells of both.
                self._log.error("audit_unwritten", problem=error.strerror, **event)
                return
            self._previous = hashlib.sha256(line).hexdigest()


def verify(path: Path) -> int:
    """How many events a file holds.

    Raises:
        DataLoss: a line is not followed by its digest: it, or one beside it, was changed or
            removed. What was cut off at the end does not show.
    """
    count, digest = 0, None
    for line in path.read_bytes().splitlines():
        count += 1
        try:
            found = json.loads(line)["previous"]
        except (ValueError, KeyError, TypeError):
            found = None
        # A file that was begun after another goes on from that one's end.
        if found is None or (digest is not None and found != digest):
            raise DataLoss(f"line {count} of {path} does not follow the line before it")
        digest = hashlib.sha256(line).hexdigest()
    return count


def _last_digest(path: Path) -> str:
    if not path.exists():
        return ""
    lines = path.read_bytes().splitlines()
    return hashlib.sha256(lines[-1]).hexdigest() if lines else ""
