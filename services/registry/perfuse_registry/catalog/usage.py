"""What tenants keep, counted where it changes, and held to their quotas.

A count is changed in the transaction that makes or removes what is counted, after the concept's row
is locked, so that of several that want the last place exactly one gets it. A collection counts anew
(`recount`), should a row ever have gone another way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from perfuse.errors import QuotaExceeded
from perfuse.names import TenantName
from perfuse.quotas import Quotas, exceeded
from perfuse.storage.database import Database
from perfuse.storage.prepared import Prepared
from perfuse_registry.catalog.ownership import require_own
from perfuse_registry.tables import CONCEPTS, USAGE, VERSIONS

NO_LIMIT = (1 << 63) - 1 - (1 << 40)
"""Of what no tenant ever has; sums with it stay 64 bits wide."""


@dataclass(frozen=True, slots=True)
class Used:
    """How much of a quota is used; `limit` is None where there is none."""

    quota: str
    used: int
    limit: float | None


class Usage:
    """Counts of every tenant.

    Args:
        database: With the Registry's tables.
        quotas: What tenants may keep.
    """

    def __init__(self, database: Database, quotas: Quotas) -> None:
        self._database = database
        self._quotas = quotas

    def of(self, tenant: str, name: TenantName) -> list[Used]:
        """What a tenant keeps, by quota.

        Raises:
            NotFound: it is not the caller's.
        """
        require_own(tenant, name)
        row = self._database.read(lambda connection: _COUNTED.first(connection, whose=tenant))
        concepts, size = (0, 0) if row is None else (row.concept_count, row.size_bytes)
        return [
            Used("concepts", concepts, self._quotas.limit(tenant, "concepts")),
            Used("bytes", size, self._quotas.limit(tenant, "bytes")),
        ]

    def add_concept(self, connection: Connection, tenant: str) -> None:
        """Count a concept, made or undeleted.

        Raises:
            QuotaExceeded: there are as many as may be.
        """
        limit = self._quotas.limit(tenant, "concepts")
        most = NO_LIMIT if limit is None else int(limit)
        counting = _ADD[connection.dialect.name]
        if most < 1 or counting.run(connection, whose=tenant, most=most) != 1:
            raise exceeded(
                tenant,
                "concepts",
                most,
                "Delete a concept that is not needed, or ask the operator for more",
            )

    def most_bytes(self, tenant: str) -> int:
        """Bytes of versions that a tenant may keep."""
        limit = self._quotas.limit(tenant, "bytes")
        return NO_LIMIT if limit is None else int(limit)

    def require_room(self, tenant: str, used: int, size: int) -> None:
        """Refuse bytes that go beyond what a tenant may keep.

        Raises:
            QuotaExceeded: they do.
        """
        most = self.most_bytes(tenant)
        if used + size > most:
            raise too_many_bytes(tenant, used, size, most)


def too_many_bytes(tenant: str, used: int, size: int, most: int) -> QuotaExceeded:
    """The refusal of an upload."""
    return exceeded(
        tenant,
        "bytes",
        most,
        f"{used} are kept, and the adapter has {size}. Delete versions that are not needed, or ask "
        "the operator for more",
    )


def used_bytes(connection: Connection, tenant: str) -> int:
    """Bytes of a tenant's versions at the moment."""
    row = _COUNTED.first(connection, whose=tenant)
    return 0 if row is None else int(row.size_bytes)


def count_off(connection: Connection, tenant: str, *, concepts: int = 0, size: int = 0) -> None:
    """Count what was removed: concepts that were deleted, bytes of versions that are gone."""
    _COUNT_OFF.run(connection, whose=tenant, concepts_gone=concepts, bytes_gone=size)


def recount(connection: Connection, tenant: str) -> bool:
    """Count a tenant's rows anew; whether the count was another."""
    locked = select(USAGE).where(USAGE.c.tenant == tenant).with_for_update()
    before = connection.execute(locked).first()
    # A statement of its own: one that waited for a lock answers from before its wait.
    concepts = connection.execute(
        select(func.count()).where(CONCEPTS.c.tenant == tenant, CONCEPTS.c.delete_time.is_(None))
    ).scalar_one()
    size = connection.execute(
        select(func.coalesce(func.sum(VERSIONS.c.size_bytes), 0)).where(VERSIONS.c.tenant == tenant)
    ).scalar_one()
    found = {"concept_count": int(concepts), "size_bytes": int(size)}
    if before is None:
        connection.execute(insert(USAGE).values(tenant=tenant, **found))
        return True
    if (before.concept_count, before.size_bytes) == (found["concept_count"], found["size_bytes"]):
        return False
    connection.execute(update(USAGE).where(USAGE.c.tenant == tenant).values(**found))
    return True


def counted_bytes(guard: Any) -> Any:
    """An update that counts `size_bytes` more for `tenant`, unless they go beyond `most_bytes`.

    Args:
        guard: A further condition.
    """
    size = bindparam("size_bytes", type_=BigInteger)
    most = bindparam("most_bytes", type_=BigInteger)
    return (
        update(USAGE)
        .where(USAGE.c.tenant == bindparam("tenant", type_=USAGE.c.tenant.type))
        .where(USAGE.c.size_bytes + size <= most)
        .where(guard)
        .values(size_bytes=USAGE.c.size_bytes + size)
    )


def _one_more(dialect: Any) -> Prepared:
    row = dialect.insert(USAGE).values(tenant=bindparam("whose"), concept_count=1, size_bytes=0)
    return Prepared(
        row.on_conflict_do_update(
            index_elements=["tenant"],
            set_={"concept_count": USAGE.c.concept_count + 1},
            where=USAGE.c.concept_count < bindparam("most", type_=BigInteger),
        )
    )


_ADD = {"postgresql": _one_more(postgresql), "sqlite": _one_more(sqlite)}
_COUNTED = Prepared(select(USAGE).where(USAGE.c.tenant == bindparam("whose")))
_COUNT_OFF = Prepared(
    update(USAGE)
    .where(USAGE.c.tenant == bindparam("whose"))
    .values(
        concept_count=USAGE.c.concept_count - bindparam("concepts_gone", type_=BigInteger),
        size_bytes=USAGE.c.size_bytes - bindparam("bytes_gone", type_=BigInteger),
    )
)
