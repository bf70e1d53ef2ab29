"""A file that says who is who: one JSON object a line, read again when it changes.

    {"tenant": "acme", "subject": "alice", "roles": ["publisher"], "sha256": "9f86d0..."}

The last field is what a credential is known by; what it is called and how it is written, its
reader says.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

from perfuse.errors import FailedPrecondition
from perfuse.names import ID
from perfuse.serving.identity import SUBJECT, Caller
from perfuse.serving.roles import GRANTED_BY

K = TypeVar("K")

_NOT_JSON = (json.JSONDecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True)
class Kind(Generic[K]):
    """What kind of file it is.

    Attributes:
        noun: What messages call it, as `token file`.
        record: What a line is, as `a token's record`.
        field: That says what a credential is known by.
        key: Reads the field's text; None where it breaks the rule.
        rule: Of the field, for messages.
        remedy: For a line that breaks a rule, after "remove it, and".
        missing: What to do where there is no file.
    """

    noun: str
    record: str
    field: str
    key: Callable[[str], K | None]
    rule: str
    remedy: str
    missing: str


class CallerFile(Generic[K]):
    """Callers by what their credentials are known by.

    Every look-up looks at the file's stamp, so a line is in force, or out of force, from the next
    call on. A line that becomes unreadable meanwhile vouches for nobody; the others stay in force,
    and the log names the line once.

    Raises:
        FailedPrecondition: the file is missing, others may write it, or a line breaks a rule; the
            message names the line, without its content.
    """

    def __init__(self, path: Path, kind: Kind[K]) -> None:
        self._path, self._kind = path, kind
        self._log = structlog.get_logger("perfuse.serving.identity")
        self._reloading = threading.Lock()
        self._stamp = _stamp(path)
        self._callers, faults = _read(path, kind)
        if faults:
            raise FailedPrecondition(faults[0])

    def find(self, key: K) -> Caller | None:
        """The caller that is known by this."""
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            # Calls may be on threads: the others wait here until what has changed is read.
            with self._reloading:
                if stamp != self._stamp:
                    self._reload(stamp)
        return self._callers.get(key)

    def _reload(self, stamp: tuple[int, ...] | None) -> None:
        # The stamp is taken before reading: what is written meanwhile is read the next time.
        self._callers, faults = _read(self._path, self._kind)
        self._stamp = stamp
        self._log.info("callers_reloaded", file=self._kind.noun, callers=len(self._callers))
        for fault in faults:
            self._log.error("caller_file_fault", problem=fault)


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode


def _read(path: Path, kind: Kind[K]) -> tuple[dict[K, Caller], list[str]]:
    """Callers by key, and what is wrong with the file, line by line."""
    callers: dict[K, Caller] = {}
    faults: list[str] = []
    what = f"the {kind.noun} {path}"
    try:
        writable = path.stat().st_mode & 0o002
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        return {}, [f"{what} cannot be read ({error.strerror}); {kind.missing}"]
    if writable:
        return {}, [f"{what} may be written by anyone: chmod o-w {path}"]
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            key, caller = _parse(json.loads(line), kind)
            if key in callers:
                raise ValueError(f"its {kind.field} stands on an earlier line already")
        except (ValueError, RecursionError) as error:
            wrong = "it is not JSON" if isinstance(error, _NOT_JSON) else str(error)
            faults.append(
                f"line {number} of {what} is not {kind.record}: {wrong}; remove it, and "
                f"{kind.remedy}"
            )
            continue
        callers[key] = caller
    return callers, faults


def _parse(record: Any, kind: Kind[K]) -> tuple[K, Caller]:
    names = {"tenant", "subject", "roles", kind.field}
    if not isinstance(record, dict) or set(record) != names:
        raise ValueError(f"it must have the fields {', '.join(sorted(names))} and no other")
    tenant, subject, roles = record["tenant"], record["subject"], record["roles"]
    if not (isinstance(tenant, str) and ID.fullmatch(tenant)):
        raise ValueError("its tenant is not an id")
    if not (isinstance(subject, str) and SUBJECT.fullmatch(subject)):
        raise ValueError("its subject is not 1 to 128 printable ASCII characters")
    known = isinstance(roles, list) and all(isinstance(role, str) for role in roles)
    if not (known and roles and set(roles) <= set(GRANTED_BY)):
        raise ValueError(f"its roles are not a list of some of {', '.join(GRANTED_BY)}")
    text = record[kind.field]
    key = kind.key(text) if isinstance(text, str) else None
    if key is None:
        raise ValueError(f"its {kind.field} is not {kind.rule}")
    return key, Caller(tenant, subject, frozenset(roles))
