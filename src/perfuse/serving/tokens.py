"""Tokens that an operator mints, and the file of their digests.

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
from collections.abc import Iterable, Mapping
from pathlib import Path

from perfuse.errors import InvalidArgument
from perfuse.names import check_id
from perfuse.serving.caller_file import CallerFile, Kind
from perfuse.serving.identity import (
    SUBJECT,
    Caller,
    Peer,
    bearer_token,
    on_behalf,
    unknown_caller,
)
from perfuse.serving.roles import GRANTED_BY

TOKEN_PREFIX = "perfuse_"
"""Begins every token, so that scanners of leaked secrets know one when they see it."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_KIND = Kind(
    noun="token file",
    record="a token's record",
    field="sha256",
    key=lambda text: bytes.fromhex(text) if _SHA256.fullmatch(text) else None,
    rule="64 lower-case hexadecimal digits",
    remedy="mint a new token",
    missing="mint a token first",
)


class TokenAuthenticator:
    """Knows callers by the digests in a token file, which may change at any time.

    Args:
        path: The token file; see `CallerFile`.

    Raises:
        FailedPrecondition: the file is missing, others may write it, or a line breaks the rule;
            the message names the line, without its content.
    """

    def __init__(self, path: Path) -> None:
        self._callers = CallerFile(path, _KIND)

    async def authenticate(self, metadata: Mapping[str, str], peer: Peer | None = None) -> Caller:
        """The caller whose token the metadata carries.

        Raises:
            Unauthenticated: no token, or one that the file does not hold.
        """
        token = bearer_token(metadata)
        caller = self._callers.find(hashlib.sha256(token.encode()).digest())
        if caller is None:
            raise unknown_caller()
        return on_behalf(caller, metadata)


def mint(path: Path, tenant: str, subject: str, roles: Iterable[str]) -> str:
    """Make a token, append its digest to the file, and return the token, which is kept nowhere.

    The file is made, readable by its owner alone, where there is none.

    Raises:
        InvalidArgument: tenant, subject or a role breaks its rule.
    """
    roles = sorted(set(roles))
    check_id("tenant", tenant)
    if not SUBJECT.fullmatch(subject):
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
