"""Leases: while one is held, no collection takes the bytes that are being uploaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, bindparam, delete, insert
from sqlalchemy.dialects import postgresql, sqlite

from perfuse.errors import Aborted, PerfuseError, Unavailable
from perfuse.storage.database import Database
from perfuse.storage.moments import now
from perfuse.storage.prepared import Prepared
from perfuse_registry.failpoints import reach
from perfuse_registry.tables import BLOBS, LEASES


class Lease:
    """One upload's hold on its bytes."""

    def __init__(self, lease_id: str) -> None:
        self._id = lease_id

    def release(self, connection: Connection) -> None:
        """Give the hold up, in the transaction that makes a version refer to the bytes.

        Raises:
            Unavailable: the lease expired and a collection has condemned the bytes, perhaps
                removed them; no version may refer to them.
        """
        if not self.drop(connection):
            raise _outlasted()

    def drop(self, connection: Connection) -> bool:
        """Give the hold up, whatever becomes of the bytes; False where there is none left."""
        return _DROP.run(connection, lease=self._id) == 1


class Leases:
    """Takes leases.

    Args:
        database: With the Registry's tables.
        duration: After which a lease whose holder died is void; far longer than any call, for an
            upload that takes longer may have to be sent again.
    """

    def __init__(self, database: Database, duration: timedelta) -> None:
        self._database = database
        self._duration = duration

    @contextlib.contextmanager
    def held(self, tenant: str, digest: str, size_bytes: int) -> Iterator[Lease]:
        """Hold a blob, from before its bytes are put until a version refers to them or none will.

        Waits where a collection is removing the same bytes; afterwards they must be put again,
        so whoever holds a lease puts them whether or not they seem to be there.

        Raises:
            Unavailable: also where the upload outlasted its lease and its bytes were collected.
        """
        lease_id = str(uuid4())

        def take(connection: Connection) -> None:
            moment = now()
            blob = {"tenant": tenant, "digest": digest}
            _TOUCH[connection.dialect.name].run(
                connection, size_bytes=size_bytes, touch_time=moment, condemn_time=None, **blob
            )
            _TAKE.run(connection, id=lease_id, expire_time=moment + self._duration, **blob)
            reach("lease.uncommitted")

        # Not durable yet: a loss of power that forgets the lease forgets the upload too, and bytes
        # that were put meanwhile are found in the store. What makes the version is durable, and
        # makes all before it so.
        self._database.transact(take, durable=False)
        lease = Lease(lease_id)
        try:
            yield lease
        except BaseException as error:
            was_there = True
            # A lease that stays is no harm: it expires.
            with contextlib.suppress(PerfuseError):
                was_there = self._database.transact(lease.drop, durable=False)
            if isinstance(error, Aborted) and not was_there:
                # Its row and its bytes' row went together, so no version could be inserted.
                raise _outlasted() from error
            raise


def _touch(dialect: Any) -> Prepared:
    """Insert a blob's row, or take its condemnation back."""
    row = dialect.insert(BLOBS)
    new = {"touch_time": row.excluded.touch_time, "condemn_time": row.excluded.condemn_time}
    return Prepared(
        row.on_conflict_do_update(index_elements=["tenant", "digest"], set_=new), BLOBS.c.keys()
    )


_TOUCH = {"sqlite": _touch(sqlite), "postgresql": _touch(postgresql)}
_TAKE = Prepared(insert(LEASES), LEASES.c.keys())
_DROP = Prepared(delete(LEASES).where(LEASES.c.id == bindparam("lease")))


def _outlasted() -> Unavailable:
    refusal = Unavailable(
        "the upload took longer than its lease, and a collection may have taken its bytes. Send it "
        "again with the same request_id"
    )
    refusal.retry_after = 1.0
    return refusal
