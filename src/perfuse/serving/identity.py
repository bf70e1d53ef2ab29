"""Who is calling: a caller, and the file of tokens that vouches for callers.

A token file holds one JSON object a line, written by `mint`:

    {"tenant": "acme", "subject": "alice", "roles": ["publisher"], "sha256": "9f86d0..."}

It holds the digests of tokens and never a token. Tokens are 256 random bits, so a plain digest
gives nothing away, and looking a digest up takes no time that depends on another caller's token.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog

from perfuse.errors import FailedPrecondition, InvalidArgument, Unauthenticated
from perfuse.names import ID, check_id
from perfuse.serving.roles import DELEGATE, GRANTED_BY

ON_BEHALF_OF = "perfuse-tenant"
"""Metadata in which a caller with the role `delegate` says for which tenant it acts."""

TOKEN_PREFIX = "perfuse_"
"""Begins every token, so that scanners of leaked secrets know one when they see it."""

_SUBJECT = re.compile(r"[!-~]([ -~]{0,126}[!-~])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FIELDS = {"tenant", "subject", "roles", "sha256"}
_SCHEME = "bearer "


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling, as the credential says and not the request.

    Attributes:
        tenant: The owner on whose behalf the call is made.
        subject: The person or service within the tenant.
        roles: What the caller may do; see `perfuse.serving.roles`.
    """

    tenant: str
    subject: str
    roles: frozenset[str]


class Authenticator(Protocol):
    """Tells who is calling."""

    async def authenticate(self, metadata: Mapping[str, str]) -> Caller:
        """The caller whose credential the metadata carries (keys are lower-case).

        Raises:
            Unauthenticated: there is none, or nobody vouches for it.
        """
        ...


def unknown_caller() -> Unauthenticated:
    """The one refusal of all whom nobody vouches for, whatever they sent."""
    return Unauthenticated(
        "the call carries no credential that is known here; send the metadata "
        "'authorization: Bearer TOKEN' with a token that is in force"
    )


def bearer_token(metadata: Mapping[str, str]) -> str:
    """The token of `authorization: Bearer <token>`.

    Raises:
        Unauthenticated: there is no such metadata.
    """
    value = metadata.get("authorization", "")
    if value[:7].lower() != _SCHEME or len(value) == len(_SCHEME):
        raise unknown_caller()
    return value[7:]


def on_behalf(caller: Caller, metadata: Mapping[str, str]) -> Caller:
    """The caller as whom a delegate acts: of the one tenant that it names, and a delegate alone.

    The Trainer publishes so, long after the credential of whoever queued the run has expired. What
    a delegate may call, the policy says row by row. Who is no delegate acts as itself, whatever it
    names.

    Raises:
        Unauthenticated: a delegate names no tenant, or none that could be one.
    """
    if DELEGATE not in caller.roles:
        return caller
    tenant = metadata.get(ON_BEHALF_OF, "")
    if not ID.fullmatch(tenant):
        raise Unauthenticated(
            f"a delegate acts for one tenant; name it in the metadata {ON_BEHALF_OF!r}"
        )
    return Caller(tenant, caller.subject, frozenset({DELEGATE}))


class TokenAuthenticator:
    """Knows callers by the digests in a token file, which may change at any time.

    Every call looks at the file's stamp, so a token is in force, or out of force, from the next
    call on. A line that becomes unreadable while the server runs vouches for nobody; the others
    stay in force, and the log names the line once.

    Args:
        path: The token file.

    Raises:
        FailedPrecondition: the file is missing, others may write it, or a line breaks the rule;
            the message names the line, without its content.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = structlog.get_logger("perfuse.serving.identity")
        self._reloading = threading.Lock()
        self._stamp = _stamp(path)
        self._callers, faults = _read(path)
        if faults:
            raise FailedPrecondition(faults[0])

    async def authenticate(self, metadata: Mapping[str, str]) -> Caller:
        """The caller whose token the metadata carries.

        Raises:
            Unauthenticated: no token, or one that the file does not hold.
        """
        token = bearer_token(metadata)
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            # Calls may be on threads: the others wait here until what has changed is read.
            with self._reloading:
                if stamp != self._stamp:
                    self._reload(stamp)
        caller = self._callers.get(hashlib.sha256(token.encode()).digest())
        if caller is None:
            raise unknown_caller()
        return on_behalf(caller, metadata)

    def _reload(self, stamp: tuple[int, ...] | None) -> None:
        # The stamp is taken before reading: what is written meanwhile is read the next time.
        self._callers, faults = _read(self._path)
        self._stamp = stamp
        self._log.info("tokens_reloaded", tokens=len(self._callers))
        for fault in faults:
            self._log.error("token_file_fault", problem=fault)


def mint(path: Path, tenant: str, subject: str, roles: Iterable[str]) -> str:
    """Make a token, append its digest to the file, and return the token, which is kept nowhere.

    The file is made, readable by its owner alone, where there is none.

    Raises:
        InvalidArgument: tenant, subject or a role breaks its rule.
    """
    roles = sorted(set(roles))
    check_id("tenant", tenant)
    if not _SUBJECT.fullmatch(subject):
        raise InvalidArgument.in_field(
            "subject", f"{subject[:130]!r} must be 1 to 128 printable ASCII characters"
        )
    if not roles or not set(roles) <= set(GRANTED_BY):
        raise InvalidArgument.in_field(
            "roles", f"{roles!r} must be one or more of {', '.join(GRANTED_BY)}"
        )
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).hexdigest()
    record = {"tenant": tenant, "subject": subject, "roles": roles, "sha256": digest}
    is_new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        # Two who mint at once write one after the other; closing lets go of the lock.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        parted = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
        os.write(descriptor, (b"" if parted else b"\n") + json.dumps(record).encode() + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if is_new:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return token


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode


def _read(path: Path) -> tuple[dict[bytes, Caller], list[str]]:
    """Callers by digest, and what is wrong with the file, line by line."""
    callers: dict[bytes, Caller] = {}
    faults: list[str] = []
    try:
        writable = path.stat().st_mode & 0o002
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        return {}, [f"the token file {path} cannot be read ({error.strerror}); mint a token first"]
    if writable:
        return {}, [f"the token file {path} may be written by anyone: chmod o-w {path}"]
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            digest, caller = _parse(json.loads(line))
            if digest in callers:
                raise ValueError("its digest stands on an earlier line already")
        except (ValueError, RecursionError) as error:
            wrong = "it is not JSON" if isinstance(error, _NOT_JSON) else str(error)
            faults.append(
                f"line {number} of the token file {path} is not a token's record: {wrong}; remove "
                "it, and mint a new token"
            )
            continue
        callers[digest] = caller
    return callers, faults


_NOT_JSON = (json.JSONDecodeError, UnicodeDecodeError, RecursionError)


def _parse(record: Any) -> tuple[bytes, Caller]:
    if not isinstance(record, dict) or set(record) != _FIELDS:
        raise ValueError(f"it must have the fields {', '.join(sorted(_FIELDS))} and no other")
    tenant, subject, roles = record["tenant"], record["subject"], record["roles"]
    if not (isinstance(tenant, str) and ID.fullmatch(tenant)):
        raise ValueError("its tenant is not an id")
    if not (isinstance(subject, str) and _SUBJECT.fullmatch(subject)):
        raise ValueError("its subject is not 1 to 128 printable ASCII characters")
    known = isinstance(roles, list) and all(isinstance(role, str) for role in roles)
    if not (known and roles and set(roles) <= set(GRANTED_BY)):
        raise ValueError(f"its roles are not a list of some of {', '.join(GRANTED_BY)}")
    if not (isinstance(record["sha256"], str) and _SHA256.fullmatch(record["sha256"])):
        raise ValueError("its sha256 is not 64 lower-case hexadecimal digits")
    return bytes.fromhex(record["sha256"]), Caller(tenant, subject, frozenset(roles))
