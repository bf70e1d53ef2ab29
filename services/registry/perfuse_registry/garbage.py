"""Garbage: deleted concepts past their purge, and bytes that no version refers to any more.

Bytes go in two phases, so that no run can take what another call is about to use:

1. A run condemns every blob that no version and no live lease refers to and that nobody has
   touched for the grace period.
2. A run at least the grace period later locks the blob's row, looks once more, removes the bytes
   and then the row. An upload of the same bytes takes its lease by the same row: either it comes
   first, and the blob is spared, or it waits, and then puts the bytes again.

A crash between the bytes and the row leaves a row without bytes and without a version; the next
run ends it. Nothing but this module deletes bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import Connection, Select, delete, exists, func, insert, select, update

from perfuse_registry.blobs import BlobStore
from perfuse_registry.database import AnyRow, Database
from perfuse_registry.failpoints import reach
from perfuse_registry.moments import now
from perfuse_registry.tables import (
    ALIAS_MOVES,
    ALIASES,
    BLOBS,
    CONCEPTS,
    LEASES,
    REQUESTS,
    VERSIONS,
)

_BATCH = 500


@dataclass(slots=True)
class Collected:
    """What a run did, or with `dry_run` would have done."""

    purged_concepts: int = 0
    condemned: int = 0
    removed: int = 0
    removed_bytes: int = 0
    spared: int = 0
    expired_requests: int = 0


class Garbage:
    """Collects; runs may overlap with each other and with everything else.

    Args:
        database: With the Registry's tables.
        blobs: Where the bytes are.
        grace: Before bytes are condemned, and again before they are removed; longer than any
            backup of the database is kept, if restoring one must not lose bytes.
        request_retention: How long a `request_id` is remembered.
    """

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        grace: timedelta = timedelta(days=2),
        request_retention: timedelta = timedelta(days=2),
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._grace = grace
        self._request_retention = request_retention

    def collect(self, *, dry_run: bool = False) -> Collected:
        """One run.

        Raises:
            Unavailable: database or store do not answer; what was done until then stays done.
        """
        moment = now()
        done = Collected()
        self._purge_concepts(moment, done, dry_run)
        self._remove_condemned(moment, done, dry_run)
        self._condemn(moment, done, dry_run)
        self._forget_requests(moment, done, dry_run)
        if not dry_run:
            self._adopt_strangers(moment)
            self._blobs.sweep_strays(moment - self._grace)
        return done

    def _purge_concepts(self, moment: datetime, done: Collected, dry_run: bool) -> None:
        due = select(CONCEPTS.c.id).where(CONCEPTS.c.purge_time <= moment)
        concepts = self._database.read(lambda connection: connection.scalars(due).all())
        done.purged_concepts = len(concepts)
        if dry_run:
            return
        for concept in concepts:
            self._database.transact(partial(_purge, concept=concept, moment=moment))

    def _remove_condemned(self, moment: datetime, done: Collected, dry_run: bool) -> None:
        due = select(BLOBS.c.tenant, BLOBS.c.digest, BLOBS.c.size_bytes).where(
            BLOBS.c.condemn_time <= moment - self._grace
        )
        for row in self._database.read(lambda connection: connection.execute(due).all()):
            removed = self._database.transact(
                partial(self._remove, blob=row, moment=moment, dry_run=dry_run)
            )
            reach("garbage.committed")
            if removed:
                done.removed += 1
                done.removed_bytes += row.size_bytes
            else:
                done.spared += 1

    def _remove(
        self, connection: Connection, blob: AnyRow, moment: datetime, dry_run: bool
    ) -> bool:
        chosen = (BLOBS.c.tenant == blob.tenant, BLOBS.c.digest == blob.digest)
        row = connection.execute(
            select(BLOBS.c.condemn_time, _referred(moment)).where(*chosen).with_for_update()
        ).first()
        if row is None or row.condemn_time is None:
            return False
        if row.referred:
            if not dry_run:
                connection.execute(update(BLOBS).where(*chosen).values(condemn_time=None))
            return False
        if dry_run:
            return True
        reach("garbage.locked")
        self._blobs.delete(blob.tenant, blob.digest)
        reach("garbage.removed")
        connection.execute(
            delete(LEASES).where(
                LEASES.c.tenant == blob.tenant,
                LEASES.c.digest == blob.digest,
                LEASES.c.expire_time <= moment,
            )
        )
        connection.execute(delete(BLOBS).where(*chosen))
        reach("garbage.uncommitted")
        return True

    def _condemn(self, moment: datetime, done: Collected, dry_run: bool) -> None:
        idle = select(BLOBS.c.tenant, BLOBS.c.digest).where(
            BLOBS.c.condemn_time.is_(None),
            BLOBS.c.touch_time <= moment - self._grace,
            ~_refers(moment),
        )
        if dry_run:
            count = select(func.count()).select_from(idle.subquery())
            done.condemned = self._database.read(
                lambda connection: connection.execute(count).scalar_one()
            )
            return

        def work(connection: Connection) -> int:
            rows = connection.execute(idle.limit(_BATCH).with_for_update(of=BLOBS)).all()
            for row in rows:
                connection.execute(
                    update(BLOBS)
                    .where(BLOBS.c.tenant == row.tenant, BLOBS.c.digest == row.digest)
                    .values(condemn_time=moment)
                )
            return len(rows)

        while found := self._database.transact(work):
            done.condemned += found
            reach("garbage.condemned")

    def _forget_requests(self, moment: datetime, done: Collected, dry_run: bool) -> None:
        old = REQUESTS.c.done_time <= moment - self._request_retention
        if dry_run:
            count: Select[Any] = select(func.count()).select_from(REQUESTS).where(old)
            done.expired_requests = self._database.read(
                lambda connection: connection.execute(count).scalar_one()
            )
            return
        done.expired_requests = self._database.transact(
            lambda connection: connection.execute(delete(REQUESTS).where(old)).rowcount
        )
        self._database.transact(
            lambda connection: connection.execute(
                delete(LEASES).where(LEASES.c.expire_time <= moment)
            )
        )

    def _adopt_strangers(self, moment: datetime) -> None:
        """Give bytes without a row one, as after a restored backup; they wait out the grace."""
        for stored in self._blobs.listing():
            if stored.modified > moment - self._grace:
                continue
            known = select(BLOBS.c.digest).where(
                BLOBS.c.tenant == stored.tenant, BLOBS.c.digest == stored.digest
            )
            row = {
                "tenant": stored.tenant,
                "digest": stored.digest,
                "size_bytes": stored.size,
                "touch_time": moment,
                "condemn_time": None,
            }

            if self._database.read(partial(_is_known, known)):
                continue
            self._database.transact(partial(_adopt, known, row))


def _is_known(known: Select[Any], connection: Connection) -> bool:
    return connection.execute(known).first() is not None


def _adopt(known: Select[Any], row: dict[str, Any], connection: Connection) -> None:
    if not _is_known(known, connection):
        connection.execute(insert(BLOBS).values(**row))


def _refers(moment: datetime) -> Any:
    """Whether a version or a live lease refers to the blob of the outer query."""
    return (
        exists()
        .where(VERSIONS.c.tenant == BLOBS.c.tenant, VERSIONS.c.digest == BLOBS.c.digest)
        .correlate(BLOBS)
    ) | (
        exists()
        .where(
            LEASES.c.tenant == BLOBS.c.tenant,
            LEASES.c.digest == BLOBS.c.digest,
            LEASES.c.expire_time > moment,
        )
        .correlate(BLOBS)
    )


def _referred(moment: datetime) -> Any:
    return _refers(moment).label("referred")


def _purge(connection: Connection, concept: int, moment: datetime) -> None:
    still = select(CONCEPTS.c.id).where(
        CONCEPTS.c.id == concept,
        CONCEPTS.c.purge_time <= moment,
    )
    if connection.execute(still.with_for_update()).first() is None:
        return
    digests = select(VERSIONS.c.digest).where(VERSIONS.c.concept == concept)
    tenants = select(CONCEPTS.c.tenant).where(CONCEPTS.c.id == concept)
    connection.execute(
        update(BLOBS)
        .where(BLOBS.c.digest.in_(digests), BLOBS.c.tenant.in_(tenants))
        .values(touch_time=moment)
    )
    for table in (ALIASES, ALIAS_MOVES, VERSIONS):
        connection.execute(delete(table).where(table.c.concept == concept))
    connection.execute(delete(CONCEPTS).where(CONCEPTS.c.id == concept))
    reach("garbage.purged")
