"""Leases: while one is held, no collection takes the bytes that are being uploaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, bindparam, delete, insert, null
from sqlalchemy.dialects import postgresql, sqlite

from perfuse.errors import PerfuseError, Unavailable
from perfuse.storage.database import Database
from perfuse.storage.moments import now
from perfuse.storage.prepared import Prepared
from perfuse_registry.failpoints import reach
from perfuse_registry.tables import BLOBS, LEASES


@dataclass(frozen=True, slots=True)
class Lease:
    """One upload's hold on its bytes.

    Attributes:
        id: Its row's.
    """

    id: str

    def drop(self, connection: Connection) -> bool:
        """Give the hold up; False where there is none left."""
        return _DROP.run(connection, lease=self.id) == 1


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
        """
        # Not durable yet: a loss of power that forgets the lease forgets the upload too, and bytes
        # that were put meanwhile are found in the store. What makes the version is durable, and
        # makes all before it so.
        lease = self._database.hasten(partial(self._take, tenant, digest, size_bytes))
        try:
            yield lease
        except BaseException:
            # A lease that stays is no harm: it expires.
            with contextlib.suppress(PerfuseError):
                self._database.hasten(lease.drop)
            raise

    def _take(self, tenant: str, digest: str, size_bytes: int, connection: Connection) -> Lease:
        moment = now()
        lease = Lease(str(uuid4()))
        values: dict[str, Any] = {
            "lease": lease.id,
            "whose": tenant,
            "which": digest,
            "size": size_bytes,
            "moment": moment,
            "expiry": moment + self._duration,
        }
        if connection.dialect.name == "postgresql":
            _TOUCH_AND_TAKE.run(connection, **values)
        else:
            _TOUCH.run(connection, **values)
            _TAKE.run(connection, **values)
            reach("lease.uncommitted")
        return lease


def _touch(dialect: Any) -> Any:
    """Insert a blob's row, or take its condemnation back."""
    row = dialect.insert(BLOBS).values(
        tenant=bindparam("whose"),
        digest=bindparam("which"),
        size_bytes=bindparam("size"),
        touch_time=bindparam("moment"),
        condemn_time=null(),
    )
    new = {"touch_time": row.excluded.touch_time, "condemn_time": null()}
    return row.on_conflict_do_update(index_elements=["tenant", "digest"], set_=new)


_take = insert(LEASES).values(
    id=bindparam("lease"),
    tenant=bindparam("whose"),
    digest=bindparam("which"),
    expire_time=bindparam("expiry"),
)
_TOUCH, _TAKE = Prepared(_touch(sqlite)), Prepared(_take)
_TOUCH_AND_TAKE = Prepared(_take.add_cte(_touch(postgresql).cte("touched")))
_DROP = Prepared(delete(LEASES).where(LEASES.c.id == bindparam("lease")))


def outlasted() -> Unavailable:
    """The refusal of an upload whose lease is gone: a collection has condemned its bytes, perhaps
    removed them, and no version may refer to them."""
    refusal = Unavailable(
        "the upload took longer than its lease, and a collection may have taken its bytes. Send it "
        "again with the same request_id"
    )
    refusal.retry_after = 1.0
    return refusal
