"""Bytes of erased concepts: removed at once, without the grace of a garbage collection.

An erasure notes the digests of its concept's adapters and previews in the transaction that removes
the versions. For each, the blob's row is locked, as a collection does it, and looked at by a
statement of its own: bytes that another concept has too are kept; bytes that are uploaded wait for
the upload's end; all others are removed, then the row. Whatever cuts this short, the next call,
start or collection goes on with it.
"""

from __future__ import annotations

import logging
from functools import partial

from sqlalchemy import Connection, delete, distinct, exists, func, select, update

from perfuse.errors import PerfuseError
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.moments import now
from perfuse_registry.cached_blobs import CachedBlobs
from perfuse_registry.catalog.erased import Fate
from perfuse_registry.failpoints import reach
from perfuse_registry.references import HOLDERS
from perfuse_registry.tables import BLOBS, ERASED_ADAPTERS, ERASURES, LEASES

_log = logging.getLogger(__name__)


class ErasedBytes:
    """Removes them; calls may overlap with each other and with everything else.

    Args:
        database: With the Registry's tables.
        blobs: Where the bytes are.
    """

    def __init__(self, database: Database, blobs: CachedBlobs) -> None:
        self._database, self._blobs = database, blobs

    def go_on(self) -> int:
        """Go on with every erasure; what cannot be done now is done by a later call.

        Returns:
            How many digests were settled.
        """
        chosen = (
            select(ERASURES.c.id, ERASURES.c.tenant, ERASED_ADAPTERS.c.digest)
            .join(ERASURES, ERASURES.c.id == ERASED_ADAPTERS.c.erasure)
            .where(ERASURES.c.settle_time.is_(None), ERASED_ADAPTERS.c.state == Fate.PENDING.value)
            .order_by(ERASURES.c.id, ERASED_ADAPTERS.c.digest)
        )
        settled = 0
        try:
            rows = self._database.read(lambda connection: connection.execute(chosen).all())
            for row in rows:
                # Out of memory even where the store keeps them for an upload or another concept.
                self._blobs.forget(row.tenant, row.digest)
                settled += self._database.transact(partial(self._settle, row=row))
                reach("erasure_bytes.settled")
            if rows:
                self._database.forget_deleted()
        except PerfuseError as error:
            _log.warning("an erasure goes on later: %s", error)
        return settled

    def discard(self, tenant: str, digest: str) -> None:
        """Remove bytes that were uploaded for a concept which was erased meanwhile."""
        try:
            self._database.transact(
                lambda connection: self._remove(connection, tenant, digest) and None
            )
        except PerfuseError as error:
            _log.warning("bytes of an erased concept are left to the collection: %s", error)

    def _settle(self, connection: Connection, row: AnyRow) -> int:
        fate, holders = self._remove(connection, row.tenant, row.digest)
        if fate is Fate.PENDING:
            return 0
        connection.execute(
            update(ERASED_ADAPTERS)
            .where(
                ERASED_ADAPTERS.c.erasure == row.id,
                ERASED_ADAPTERS.c.digest == row.digest,
                ERASED_ADAPTERS.c.state == Fate.PENDING.value,
            )
            .values(state=fate.value, holder_count=holders)
        )
        left = exists().where(
            ERASED_ADAPTERS.c.erasure == row.id, ERASED_ADAPTERS.c.state == Fate.PENDING.value
        )
        done = update(ERASURES).where(
            ERASURES.c.id == row.id, ERASURES.c.settle_time.is_(None), ~left
        )
        connection.execute(done.values(settle_time=now()))
        reach("erasure_bytes.uncommitted")
        return 1

    def _remove(self, connection: Connection, tenant: str, digest: str) -> tuple[Fate, int]:
        """What becomes of the bytes, and how many other concepts have them."""
        chosen = (BLOBS.c.tenant == tenant, BLOBS.c.digest == digest)
        there = connection.execute(select(BLOBS.c.digest).where(*chosen).with_for_update()).first()
        if there is None:
            return Fate.REMOVED, 0
        holders = connection.execute(
            select(func.count(distinct(HOLDERS.c.concept))).where(
                HOLDERS.c.tenant == tenant, HOLDERS.c.digest == digest
            )
        ).scalar_one()
        if holders:
            return Fate.KEPT, int(holders)
        uploads = (LEASES.c.tenant == tenant, LEASES.c.digest == digest)
        live = select(LEASES.c.id).where(*uploads, LEASES.c.expire_time > now()).limit(1)
        if connection.execute(live).first() is not None:
            return Fate.PENDING, 0
        reach("erasure_bytes.locked")
        self._blobs.delete(tenant, digest)
        reach("erasure_bytes.removed")
        connection.execute(delete(LEASES).where(*uploads))
        connection.execute(delete(BLOBS).where(*chosen))
        return Fate.REMOVED, 0
