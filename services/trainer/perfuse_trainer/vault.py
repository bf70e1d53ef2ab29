"""Files with one owner each: what no row names may be removed at any time.

The blob store knows bytes by their digest, so that two rows with the same bytes would share a blob
and neither could tell whether the other still needs it. Every file is therefore stored behind
sixteen random bytes of its own: no two puts ever give the same digest, and deleting or sweeping
needs no lock and no lease.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from contextlib import suppress

from perfuse.adapter.header import digest as digest_of
from perfuse.errors import PerfuseError
from perfuse.storage.blobs import BlobStore

_SALT = 16
MAX_FILE_BYTES = (64 << 20) - _SALT
"""Of one file: pictures are smaller, and so are checkpoints of every known base model."""

MAX_BLOB_BYTES = MAX_FILE_BYTES + _SALT


class Vault:
    """Files of tenants.

    Args:
        blobs: Where they are; its `max_bytes` at least `MAX_BLOB_BYTES`.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self.blobs = blobs

    def put(self, tenant: str, data: bytes) -> str:
        """Store a file durably.

        Returns:
            Its digest, for one row to keep; until that is committed a sweep may remove the file
            once it is older than the sweep's grace.

        Raises:
            Unavailable: the store did not take it.
        """
        salted = secrets.token_bytes(_SALT) + data
        digest = digest_of(salted)
        self.blobs.put(tenant, digest, salted)
        return digest

    def get(self, tenant: str, digest: str) -> bytes:
        """A file's bytes, verified.

        Raises:
            DataLoss: they are gone or are others.
            Unavailable: the store does not answer.
        """
        return self.blobs.get(tenant, digest)[_SALT:]

    def drop(self, tenant: str, digests: Iterable[str | None]) -> None:
        """Remove files that no row names any more; what cannot be removed now is swept later."""
        for digest in digests:
            if digest is not None:
                with suppress(PerfuseError):
                    self.blobs.delete(tenant, digest)
