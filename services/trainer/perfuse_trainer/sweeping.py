"""Sweeping: what nobody needs any more is removed, and what a crash left lying.

Sweeps may run in several replicas at once and beside everything else. A file is put before the row
that names it is committed, so that a file without a row is swept only once it is older than any
upload or checkpoint may be between the two; no lock is needed, since no two rows name one file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import islice

from sqlalchemy import delete, func, select, union_all

from perfuse.errors import InvalidArgument
from perfuse.storage.blobs import INCOMING, SELF_TEST, StoredBlob
from perfuse.storage.database import Database
from perfuse.storage.moments import now
from perfuse_trainer.sets.image_rows import due
from perfuse_trainer.sets.image_sets import expire
from perfuse_trainer.sets.uploads import MAX_TIME
from perfuse_trainer.tables import EVENTS, IMAGE_SETS, IMAGES, REQUESTS, RUNS
from perfuse_trainer.vault import Vault

GRACE = timedelta(hours=24)
REQUEST_RETENTION = timedelta(hours=48)

_BATCH = 200
# Every column that names a file.
_NAMING = (
    IMAGES.c.blob,
    IMAGES.c.mask_blob,
    RUNS.c.checkpoint_blob,
    RUNS.c.adapter_blob,
    EVENTS.c.blob,
)


@dataclass(slots=True)
class Swept:
    """What a sweep did, or with `dry_run` would have done.

    Attributes:
        expired_sets: image sets that were emptied since their time was over.
        orphans: files that no row named.
        orphan_bytes: their size.
        strays: remains of puts that a crash cut short.
        requests: request ids that were forgotten.
    """

    expired_sets: int = 0
    orphans: int = 0
    orphan_bytes: int = 0
    strays: int = 0
    requests: int = 0


class Sweeper:
    """Sweeps.

    Args:
        database: With the Trainer's tables.
        vault: Of all files.
        grace: How old a file must be to be swept as nobody's.
        request_retention: How long a `request_id` is remembered.
        upload_limit: How long an upload may take, in every replica.

    Raises:
        InvalidArgument: the grace is not twice as long as an upload may take at least, so that the
            files of one under way could be swept.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        *,
        grace: timedelta = GRACE,
        request_retention: timedelta = REQUEST_RETENTION,
        upload_limit: timedelta = MAX_TIME,
    ) -> None:
        if grace < 2 * upload_limit:
            raise InvalidArgument(
                f"files would be swept after {grace}, and an upload may take {upload_limit}; wait "
                "at least twice as long, so that no clock can be so wrong"
            )
        self._database = database
        self._vault = vault
        self._grace = grace
        self._request_retention = request_retention

    def sweep(self, *, dry_run: bool = False) -> Swept:
        """Sweep once.

        Raises:
            Unavailable: database or store do not answer; what was done until then stays done.
        """
        moment = now()
        done = Swept()
        self._expire(moment, done, dry_run)
        self._forget_requests(moment, done, dry_run)
        for orphans in self._orphans(moment - self._grace):
            for blob in orphans:
                if not dry_run:
                    self._vault.blobs.delete(blob.tenant, blob.digest)
                done.orphans += 1
                done.orphan_bytes += blob.size
        done.strays = self._strays(moment - self._grace, dry_run)
        return done

    def _expire(self, moment: datetime, done: Swept, dry_run: bool) -> None:
        chosen = select(IMAGE_SETS.c.id, IMAGE_SETS.c.tenant).where(due(moment))
        rows = self._database.read(lambda connection: connection.execute(chosen).all())
        for row in rows:
            if dry_run:
                done.expired_sets += 1
                continue
            left = self._database.transact(partial(expire, image_set=row.id, moment=moment))
            if left is not None:
                done.expired_sets += 1
                self._vault.drop(row.tenant, left)

    def _forget_requests(self, moment: datetime, done: Swept, dry_run: bool) -> None:
        old = REQUESTS.c.done_time <= moment - self._request_retention
        if dry_run:
            count = select(func.count()).select_from(REQUESTS).where(old)
            done.requests = self._database.read(
                lambda connection: connection.execute(count).scalar_one()
            )
            return
        done.requests = self._database.transact(
            lambda connection: connection.execute(delete(REQUESTS).where(old)).rowcount
        )

    def _orphans(self, before: datetime) -> Iterator[list[StoredBlob]]:
        old = (blob for blob in self._vault.blobs.listing() if blob.modified < before)
        while blobs := list(islice(old, _BATCH)):
            named = self._named([blob.digest for blob in blobs])
            yield [blob for blob in blobs if blob.digest not in named]

    def _named(self, digests: Sequence[str]) -> set[str]:
        """Those of the digests that a row names."""
        chosen = union_all(*(select(column).where(column.in_(digests)) for column in _NAMING))
        return self._database.read(lambda connection: set(connection.execute(chosen).scalars()))

    def _strays(self, before: datetime, dry_run: bool) -> int:
        if not dry_run:
            return self._vault.blobs.sweep_strays(before)
        ours = (f"{INCOMING}/", f"{SELF_TEST}/")
        return sum(
            entry.plain and entry.modified < before and entry.key.startswith(ours)
            for entry in self._vault.blobs.strays()
        )
