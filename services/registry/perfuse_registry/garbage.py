"""Garbage: deleted concepts past their purge, and bytes that no version refers to any more.

Bytes go in two phases, so that no run can take what another call is about to use:

1. A run condemns every blob that no version and no live lease refers to and that nobody has
   touched for the grace period. With it go its expired leases.
2. A run at least the grace period later locks the blob's row, looks once more, removes the bytes
   and then the row. An upload of the same bytes takes its lease by the same row: either it comes
   first, and the blob is spared, or it waits, and then puts the bytes again.

So while a lease's row is there, its bytes were not condemned since it was taken, however late it
is; an upload whose row is gone makes no version (`catalog.leases`). No clock decides over bytes.

A crash between the bytes and the row leaves a row without bytes and without a version; the next
run ends it. Nothing else deletes bytes but `erased_bytes`, which does it by the same lock.

Here a row is locked by one statement and looked at by the next: on PostgreSQL a statement that
waited for a lock answers from before its wait.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from sqlalchemy import (
    Connection,
    Select,
    Table,
    delete,
    exists,
    func,
    insert,
    select,
    tuple_,
    update,
)

from perfuse.storage.blobs import BlobStore
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.moments import now
from perfuse_registry.catalog.usage import miscounted, recount
from perfuse_registry.failpoints import reach
from perfuse_registry.references import HOLDERS, is_referred_to
from perfuse_registry.tables import (
    ALIAS_MOVES,
    ALIASES,
    BLOBS,
    CONCEPTS,
    CONSENTS,
    GRANTS,
    LEASES,
    PREVIEWS,
    REQUESTS,
    REVOCATIONS,
    VERSIONS,
)

_BATCH = 200
_log = logging.getLogger(__name__)


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
        lease: How long an upload may take. Its unfinished files are left for so long, even where
            the grace is shorter.
        request_retention: How long a `request_id` is remembered.
        on_run: Told what each run did that was no trial, or None where it failed.
        forget_events: Removes what of the record of who did what is older than it is kept.
        go_on_erasing: Removes bytes of erased concepts that could not be removed at once.
    """

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        grace: timedelta = timedelta(days=2),
        lease: timedelta = timedelta(hours=1),
        request_retention: timedelta = timedelta(days=2),
        *,
        on_run: Callable[[Collected | None], object] = lambda done: None,
        forget_events: Callable[[], object] = lambda: None,
        go_on_erasing: Callable[[], object] = lambda: None,
    ) -> None:
        self._go_on_erasing = go_on_erasing
        self._on_run = on_run
        self._database = database
        self._blobs = blobs
        self._grace = grace
        self._unfinished = max(grace, lease)
        self._request_retention = request_retention
        self._forget_events = forget_events

    def collect(self, *, dry_run: bool = False) -> Collected:
        """One run.

        Raises:
            Unavailable: database or store do not answer; what was done until then stays done.
        """
        if dry_run:
            return self._collect(dry_run=True)
        done: Collected | None = None
        try:
            done = self._collect(dry_run=False)
            return done
        finally:
            self._on_run(done)

    def _collect(self, *, dry_run: bool) -> Collected:
        moment = now()
        done = Collected()
        if not dry_run:
            self._go_on_erasing()
        self._purge_concepts(moment, done, dry_run)
        self._remove_condemned(moment, done, dry_run)
        self._condemn(moment, done, dry_run)
        self._forget_requests(moment, done, dry_run)
        if not dry_run:
            self._recount()
            self._adopt_strangers(moment)
            self._blobs.sweep_strays(moment - self._unfinished)
            reach("garbage.swept")
        return done

    def _recount(self) -> None:
        """Count anew the bytes of concepts whose versions went past the counting."""
        for concept in self._database.read(miscounted):
            if self._database.transact(partial(recount, concept=concept)):
                _log.warning("a concept's bytes were counted wrong, and are right now")

    def _purge_concepts(self, moment: datetime, done: Collected, dry_run: bool) -> None:
        due = select(CONCEPTS.c.id).where(CONCEPTS.c.purge_time <= moment)
        concepts = self._database.read(lambda connection: connection.scalars(due).all())
        if dry_run:
            done.purged_concepts = len(concepts)
            return
        for concept in concepts:
            if self._database.transact(partial(_purge, concept=concept, moment=moment)):
                done.purged_concepts += 1
                reach("garbage.purge_committed")

    def _remove_condemned(self, moment: datetime, done: Collected, dry_run: bool) -> None:
        due = select(BLOBS.c.tenant, BLOBS.c.digest, BLOBS.c.size_bytes).where(
            BLOBS.c.condemn_time <= moment - self._grace
        )
        for row in self._database.read(lambda connection: connection.execute(due).all()):
            fate = self._database.transact(
                partial(self._remove, blob=row, moment=moment, dry_run=dry_run)
            )
            if fate == "removed":
                reach("garbage.committed")
                done.removed += 1
                done.removed_bytes += row.size_bytes
            elif fate == "spared":
                done.spared += 1

    def _remove(
        self, connection: Connection, blob: AnyRow, moment: datetime, dry_run: bool
    ) -> Literal["removed", "spared", "left"]:
        chosen = (BLOBS.c.tenant == blob.tenant, BLOBS.c.digest == blob.digest)
        due = BLOBS.c.condemn_time <= moment - self._grace
        locked = select(BLOBS.c.digest).where(*chosen, due).with_for_update()
        if connection.execute(locked).first() is None:
            return "left"  # To another run, or to an upload that put the bytes again.
        if connection.execute(select(_refers(moment)).where(*chosen)).scalar_one():
            if not dry_run:
                connection.execute(update(BLOBS).where(*chosen).values(condemn_time=None))
                reach("garbage.spare_uncommitted")
            return "spared"
        if dry_run:
            return "removed"
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
        return "removed"

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

        batch = idle.order_by(BLOBS.c.tenant, BLOBS.c.digest).limit(_BATCH)

        def work(connection: Connection) -> tuple[int, int]:
            locked = connection.execute(batch.with_for_update(of=BLOBS)).all()
            if not locked:
                return 0, 0
            condemned = connection.execute(
                update(BLOBS)
                .where(_is_one_of(locked, BLOBS), ~_refers(moment))
                .values(condemn_time=moment)
                .returning(BLOBS.c.tenant, BLOBS.c.digest)
            ).all()
            if condemned:
                connection.execute(delete(LEASES).where(_is_one_of(condemned, LEASES)))
                reach("garbage.condemn_uncommitted")
            return len(locked), len(condemned)

        found = 1
        while found:
            found, condemned = self._database.transact(work)
            done.condemned += condemned
            if condemned:
                reach("garbage.condemned")

    def _forget_requests(self, moment: datetime, done: Collected, dry_run: bool) -> None:
        old = REQUESTS.c.done_time <= moment - self._request_retention
        if dry_run:
            count: Select[Any] = select(func.count()).select_from(REQUESTS).where(old)
            done.expired_requests = self._database.read(
                lambda connection: connection.execute(count).scalar_one()
            )
            return
        self._forget_events()
        done.expired_requests = self._database.transact(
            lambda connection: connection.execute(delete(REQUESTS).where(old)).rowcount
        )
        self._database.transact(
            lambda connection: connection.execute(
                delete(LEASES).where(LEASES.c.expire_time <= moment)
            )
        )
        reach("garbage.forgotten")

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
            reach("garbage.adopted")


def _is_known(known: Select[Any], connection: Connection) -> bool:
    return connection.execute(known).first() is not None


def _adopt(known: Select[Any], row: dict[str, Any], connection: Connection) -> None:
    if not _is_known(known, connection):
        connection.execute(insert(BLOBS).values(**row))


def _refers(moment: datetime) -> Any:
    """Whether a version, a preview or a live lease refers to the blob of the outer query."""
    return is_referred_to(BLOBS) | (
        exists()
        .where(
            LEASES.c.tenant == BLOBS.c.tenant,
            LEASES.c.digest == BLOBS.c.digest,
            LEASES.c.expire_time > moment,
        )
        .correlate(BLOBS)
    )


def _is_one_of(blobs: Sequence[AnyRow], table: Table) -> Any:
    """Whether a row of the table is of one of these blobs."""
    return tuple_(table.c.tenant, table.c.digest).in_([tuple(blob) for blob in blobs])


def _purge(connection: Connection, concept: int, moment: datetime) -> bool:
    still = select(CONCEPTS.c.id).where(
        CONCEPTS.c.id == concept,
        CONCEPTS.c.purge_time <= moment,
    )
    if connection.execute(still.with_for_update()).first() is None:
        return False  # Undeleted, or another run's.
    digests = select(HOLDERS.c.digest).where(HOLDERS.c.concept == concept)
    tenants = select(CONCEPTS.c.tenant).where(CONCEPTS.c.id == concept)
    connection.execute(
        update(BLOBS)
        .where(BLOBS.c.digest.in_(digests), BLOBS.c.tenant.in_(tenants))
        .values(touch_time=moment)
    )
    consents = select(CONSENTS.c.id).where(CONSENTS.c.concept == concept)
    connection.execute(delete(REVOCATIONS).where(REVOCATIONS.c.consent.in_(consents)))
    for table in (ALIASES, ALIAS_MOVES, GRANTS, CONSENTS, PREVIEWS, VERSIONS):
        connection.execute(delete(table).where(table.c.concept == concept))
    connection.execute(delete(CONCEPTS).where(CONCEPTS.c.id == concept))
    reach("garbage.purge_uncommitted")
    return True
