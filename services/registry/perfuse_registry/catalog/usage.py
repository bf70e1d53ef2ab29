"""What tenants keep, and whether it may be more.

A concept's row has the bytes of its versions, changed with their numbers. A tenant's sums are only
made for whom a quota limits, or who asks: where nothing is limited a change costs nothing more, and
no tenant's changes wait for each other. Where something is, they do: each locks the tenant and then
sums, so that of several that want the last place exactly one gets it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import BigInteger, Connection, bindparam, cast, func, select, text, update

from perfuse.errors import QuotaExceeded
from perfuse.names import TenantName
from perfuse.quotas import Quotas, exceeded
from perfuse.storage.database import Database
from perfuse.storage.prepared import Prepared
from perfuse_registry.catalog.ownership import require_own
from perfuse_registry.tables import CONCEPTS, VERSIONS


@dataclass(frozen=True, slots=True)
class Used:
    """How much of a quota is used; `limit` is None where there is none."""

    quota: str
    used: int
    limit: float | None


class Usage:
    """Sums of every tenant.

    Args:
        database: With the Registry's tables.
        quotas: What tenants may keep.
    """

    def __init__(self, database: Database, quotas: Quotas) -> None:
        self._database = database
        self._quotas = quotas

    def of(self, tenant: str, name: TenantName) -> list[Used]:
        """What a tenant keeps, by quota: concepts that are not deleted, bytes of all versions.

        Raises:
            NotFound: it is not the caller's.
        """
        require_own(tenant, name)
        row = self._database.read(lambda connection: _SUMS.first(connection, whose=tenant))
        concepts, size = (0, 0) if row is None else (row.concepts, row.size_bytes)
        return [
            Used("concepts", int(concepts), self._quotas.limit(tenant, "concepts")),
            Used("bytes", int(size), self._quotas.limit(tenant, "bytes")),
        ]

    def hold_places(self, connection: Connection, tenant: str) -> None:
        """`hold`, where the number of concepts is limited."""
        if self._quotas.limit(tenant, "concepts") is not None:
            hold(connection, tenant)

    def require_place(self, connection: Connection, tenant: str) -> None:
        """See that a tenant may have one more concept, made or undeleted.

        Args:
            connection: In the transaction that makes it.
            tenant: Whose.

        Raises:
            QuotaExceeded: there are as many as may be.
        """
        limit = self._quotas.limit(tenant, "concepts")
        if limit is None:
            return
        self.hold_places(connection, tenant)
        row = _SUMS.first(connection, whose=tenant)
        if row is not None and row.concepts >= int(limit):
            raise exceeded(
                tenant,
                "concepts",
                int(limit),
                "Delete a concept that is not needed, or ask the operator for more",
            )

    def most_bytes(self, tenant: str) -> int | None:
        """Bytes of versions that a tenant may keep, None for any."""
        limit = self._quotas.limit(tenant, "bytes")
        return None if limit is None else int(limit)

    def require_room(self, tenant: str, size: int) -> None:
        """Refuse at once what will be refused when it is counted.

        Raises:
            QuotaExceeded: so many bytes more are too many.
        """
        most = self.most_bytes(tenant)
        if most is not None:
            self._database.read(lambda connection: require_bytes(connection, tenant, size, most))


def require_bytes(connection: Connection, tenant: str, size: int, most: int) -> None:
    """Refuse bytes that go beyond what a tenant may keep.

    Raises:
        QuotaExceeded: they do.
    """
    row = _SUMS.first(connection, whose=tenant)
    used = 0 if row is None else int(row.size_bytes)
    if used + size > most:
        raise _too_many_bytes(tenant, used, size, most)


def hold(connection: Connection, tenant: str) -> None:
    """Have others that add to what the tenant keeps wait for the end of the transaction.

    Taken before any row is locked, for who waits for it must hold nothing that others wait for.
    SQLite has one writer at a time anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_HOLD, {"whose": f"perfuse storage of {tenant}"})


def recount(connection: Connection, concept: int) -> bool:
    """Count a concept's bytes anew; whether the count was another."""
    counted = select(CONCEPTS.c.size_bytes).where(CONCEPTS.c.id == concept).with_for_update()
    before = connection.execute(counted).scalar_one_or_none()
    # A statement of its own: one that waited for a lock answers from before its wait.
    size = connection.execute(
        select(func.coalesce(func.sum(_KEPT), 0)).where(VERSIONS.c.concept == concept)
    ).scalar_one()
    if before is None or before == size:
        return False
    changed = update(CONCEPTS).where(CONCEPTS.c.id == concept).values(size_bytes=int(size))
    connection.execute(changed)
    return True


def miscounted(connection: Connection) -> list[int]:
    """Keys of concepts whose bytes seem to be counted wrong."""
    size = (
        select(func.coalesce(func.sum(_KEPT), 0))
        .where(VERSIONS.c.concept == CONCEPTS.c.id)
        .scalar_subquery()
    )
    return list(connection.scalars(select(CONCEPTS.c.id).where(CONCEPTS.c.size_bytes != size)))


def _too_many_bytes(tenant: str, used: int, size: int, most: int) -> QuotaExceeded:
    return exceeded(
        tenant,
        "bytes",
        most,
        f"{used} are kept, and the version has {size}. Delete versions that are not needed, or ask "
        "the operator for more",
    )


_KEPT = VERSIONS.c.size_bytes + VERSIONS.c.attachment_bytes
_SUMS = Prepared(
    select(
        (func.count() - func.count(CONCEPTS.c.delete_time)).label("concepts"),
        # PostgreSQL sums whole numbers to decimal ones.
        cast(func.coalesce(func.sum(CONCEPTS.c.size_bytes), 0), BigInteger).label("size_bytes"),
    ).where(CONCEPTS.c.tenant == bindparam("whose"))
)
_HOLD = text("SELECT pg_advisory_xact_lock(hashtextextended(:whose, 0))")
