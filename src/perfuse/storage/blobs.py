"""Where bytes live: the contract, and the rules that every kind of store keeps.

A blob is a file that never changes, such as an adapter or a training picture. Its key is
`{tenant}/sha256/{hex[:2]}/{hex}`: the digest says what the bytes are, the tenant in front of it
keeps one tenant's uploads from telling another that the same bytes exist. Two writers of one key
write the same bytes, so nothing here needs a conditional write, and what exists is a question for
the database, never for the store.

`BlobStore` is what a service asks for. `CheckedBlobs` keeps its promises over five operations on
keys, which `blobs_directory` and `blobs_s3` supply; only they know a file system or a network.
"""

from __future__ import annotations

import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from perfuse.adapter.header import digest as digest_of
from perfuse.adapter.limits import MAX_FILE_BYTES
from perfuse.errors import DataLoss, DigestMismatch, InvalidArgument, Unavailable
from perfuse.names import ID

# Folders of ours that no tenant can be called, since an id starts with a letter.
INCOMING = "_incoming"
SELF_TEST = "_self-test"

_DIGEST = re.compile("sha256:([0-9a-f]{64})")
_KEY = re.compile(rf"({ID.pattern})/sha256/([0-9a-f]{{2}})/(\2[0-9a-f]{{62}})")


@dataclass(frozen=True)
class StoredBlob:
    """One blob as a listing shows it; its bytes have not been read.

    Attributes:
        tenant: whose it is.
        digest: `sha256:` and 64 lower-case hexadecimal digits, from the key.
        size: bytes.
        modified: when it was last put, in UTC, by the store's clock.
    """

    tenant: str
    digest: str
    size: int
    modified: datetime

    @property
    def key(self) -> str:
        """Its place in the store; `listing(after=key)` goes on behind it."""
        return key_of(self.tenant, self.digest)


@dataclass(frozen=True)
class Entry:
    """Anything a store holds under a key, whether or not it is a blob.

    Attributes:
        key: path below the store's root; a folder's ends in a slash.
        size: bytes.
        modified: when it was last written, in UTC, by the store's clock.
        plain: False for what is no ordinary file (a link, a folder, a pipe) and is never read.
    """

    key: str
    size: int
    modified: datetime
    plain: bool = True


class BlobStore(Protocol):
    """Bytes by tenant and digest. Every method may be called from several threads at once.

    Raises, from every method:
        InvalidArgument: a tenant or a digest that is not shaped like one; nothing was touched.
        Unavailable: the store did not answer or refused; whether a write took place is not known,
            and the same call may be made again.
    """

    def put(self, tenant: str, digest: str, data: bytes) -> None:
        """Store bytes so that they survive a loss of power once this returns.

        Writes whether or not the key is there already, which also makes its `modified` new.

        Raises:
            DigestMismatch: the bytes have another digest; nothing was written.
            InvalidArgument: more than the store's `max_bytes`, which no reader would take.
        """

    def get(self, tenant: str, digest: str) -> bytes:
        """The bytes, verified against their digest.

        Raises:
            DataLoss: they are not there, or are not those bytes. Ask only for what the database
                says was stored.
        """

    def stat(self, tenant: str, digest: str) -> int | None:
        """Size in bytes, or None where nothing is stored; the bytes are not read."""

    def delete(self, tenant: str, digest: str) -> None:
        """Remove the bytes; no error if they are gone already."""

    def listing(self, tenant: str | None = None, after: str | None = None) -> Iterator[StoredBlob]:
        """All blobs, or one tenant's, in ascending order of keys (code points).

        Blobs put or deleted meanwhile may or may not be shown; all others are, once. Keys order
        `a-b/...` before `a/...`, as S3 does.

        Args:
            tenant: whose blobs; None for everyone's.
            after: a `StoredBlob.key` behind which to start.
        """

    def strays(self) -> Iterator[Entry]:
        """What the store holds and is no blob: remains of a crashed put, and foreign files."""

    def sweep_strays(self, older_than: datetime) -> int:
        """Remove what crashed puts and self tests left behind; foreign files are never removed.

        Args:
            older_than: with a time zone; what was written later may belong to a put under way.

        Returns:
            How many were removed.
        """

    def check(self) -> None:
        """Readiness: return if the store answers, at the cost of one small question."""

    def self_test(self) -> None:
        """Write, read, replace and delete a few bytes under a key that no tenant can have.

        Raises:
            DataLoss: the store does not give back what it took.
        """


def key_of(tenant: str, digest: str) -> str:
    """Where a tenant's blob lies in any store.

    Raises:
        InvalidArgument: a malformed tenant or digest, so that no key leads out of its tenant.
    """
    check_tenant(tenant)
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise InvalidArgument(
            f"the digest {digest[:80]!r} is not 'sha256:' and 64 lower-case hexadecimal digits; "
            "send it as perfuse.adapter.digest gives it"
        )
    return _key(tenant, match[1])


def check_tenant(tenant: str) -> None:
    """Refuse what is no tenant id."""
    if ID.fullmatch(tenant) is None:
        raise InvalidArgument(
            f"the tenant {tenant[:80]!r} is not an id: a lower-case letter, then up to 62 letters, "
            "digits and hyphens, the last of them no hyphen"
        )


def parse_key(key: str) -> tuple[str, str] | None:
    """Tenant and digest of a blob's key; None for any other text."""
    match = _KEY.fullmatch(key)
    return None if match is None else (match[1], f"sha256:{match[3]}")


class CheckedBlobs(ABC):
    """The promises of `BlobStore`, kept over five operations on keys.

    Args:
        max_bytes: of one blob.
    """

    def __init__(self, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._max_bytes = max_bytes

    def put(self, tenant: str, digest: str, data: bytes) -> None:
        key = key_of(tenant, digest)
        if len(data) > self._max_bytes:
            raise InvalidArgument(
                f"{len(data)} bytes are more than one blob may have here ({self._max_bytes})"
            )
        found = digest_of(data)
        if found != digest:
            raise DigestMismatch(
                f"the bytes have the digest {found}, not {digest} as claimed; send them again"
            )
        self._write(key, data)

    def get(self, tenant: str, digest: str) -> bytes:
        data = self._read(key_of(tenant, digest))
        if data is None:
            raise DataLoss(f"the bytes of {digest} are not in the store; restore from backup")
        if len(data) > self._max_bytes:
            raise DataLoss(
                f"the bytes stored as {digest} are more than {self._max_bytes}, which no blob "
                "has here; restore from backup"
            )
        found = digest_of(data)
        if found != digest:
            raise DataLoss(
                f"the {len(data)} bytes stored as {digest} have the digest {found}; "
                "restore from backup"
            )
        return data

    def stat(self, tenant: str, digest: str) -> int | None:
        return self._size(key_of(tenant, digest))

    def delete(self, tenant: str, digest: str) -> None:
        self._remove(key_of(tenant, digest))

    def listing(self, tenant: str | None = None, after: str | None = None) -> Iterator[StoredBlob]:
        if tenant is not None:
            check_tenant(tenant)
        if after is not None and parse_key(after) is None:
            raise InvalidArgument(
                f"after={after[:200]!r} is not a blob's key; pass StoredBlob.key of the last one"
            )
        return self._blobs("" if tenant is None else f"{tenant}/sha256/", after)

    def strays(self) -> Iterator[Entry]:
        for entry in self._entries("", None):
            if not entry.plain or parse_key(entry.key) is None:
                yield entry

    def sweep_strays(self, older_than: datetime) -> int:
        if older_than.tzinfo is None:
            raise InvalidArgument(f"older_than={older_than} has no time zone; use UTC")
        swept = 0
        for folder in (INCOMING, SELF_TEST):
            for entry in self._entries(f"{folder}/", None):
                if entry.plain and entry.modified < older_than:
                    self._remove(entry.key)
                    swept += 1
        return swept

    def self_test(self) -> None:
        data = b"perfuse self test " + secrets.token_bytes(16)
        # Of its own digest, so that servers starting together do not meet.
        key = _key(SELF_TEST, digest_of(data).removeprefix("sha256:"))
        try:
            for content in (b"", data):
                self._write(key, content)
                if self._read(key) != content or self._size(key) != len(content):
                    raise DataLoss(
                        "the store took a self test's bytes and did not give them back; "
                        "do not use it before its read-after-write is repaired"
                    )
        except BaseException:
            with suppress(Unavailable):
                self._remove(key)
            raise
        self._remove(key)
        if self._read(key) is not None:
            raise DataLoss("the store still has what a self test deleted; do not use it so")

    @abstractmethod
    def check(self) -> None: ...

    @abstractmethod
    def _write(self, key: str, data: bytes) -> None:
        """Replace what is under the key, durably."""

    @abstractmethod
    def _read(self, key: str) -> bytes | None:
        """At most `max_bytes` + 1 bytes; None where there is no ordinary file."""

    @abstractmethod
    def _size(self, key: str) -> int | None: ...

    @abstractmethod
    def _remove(self, key: str) -> None: ...

    @abstractmethod
    def _entries(self, prefix: str, after: str | None) -> Iterator[Entry]:
        """All entries below a prefix that is empty or ends in a slash, in ascending order."""

    def _blobs(self, prefix: str, after: str | None) -> Iterator[StoredBlob]:
        last = after or ""
        for entry in self._entries(prefix, after):
            # A store that lists in another order would skip blobs when a caller goes on by key.
            if entry.key <= last:
                raise Unavailable("the store does not list its keys in order; it cannot be used")
            last = entry.key
            parsed = parse_key(entry.key)
            if entry.plain and parsed is not None:
                yield StoredBlob(*parsed, entry.size, entry.modified)


def _key(folder: str, digits: str) -> str:
    return f"{folder}/sha256/{digits[:2]}/{digits}"
