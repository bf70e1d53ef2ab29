"""Integrity: all stored adapters and previews read, and compared with digest and database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection, Select, select

from perfuse.errors import DataLoss
from perfuse.storage.blobs import BlobStore
from perfuse.storage.database import AnyRow, Database
from perfuse_registry.references import HOLDERS, is_referred_to
from perfuse_registry.tables import BLOBS, CONCEPTS

_PAGE = 500
MAX_DAMAGED = 1000
_NAMES = 10


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that versions refer to and that are gone or altered."""

    tenant: str
    digest: str
    versions: list[str]
    problem: str


@dataclass(slots=True)
class Report:
    """What was found; `damaged` holds the first `MAX_DAMAGED` of `damaged_count`."""

    checked: int = 0
    damaged_count: int = 0
    unreferenced: int = 0
    unreferenced_bytes: int = 0
    damaged: list[Damage] = field(default_factory=list)


class Integrity:
    """Looks at everything and changes nothing."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._database = database
        self._blobs = blobs

    def verify(self, tenant: str = "") -> Report:
        """Read every adapter and preview of one tenant, or of all.

        Versions made or deleted meanwhile may or may not be counted.

        Raises:
            Unavailable: database or store do not answer.
        """
        report = Report()
        for blob in self._referred_blobs(tenant):
            report.checked += 1
            try:
                self._blobs.get(blob.tenant, blob.digest)
            except DataLoss as loss:
                if versions := self._names(blob):  # Else it was deleted meanwhile.
                    report.damaged_count += 1
                    if len(report.damaged) < MAX_DAMAGED:
                        report.damaged.append(Damage(blob.tenant, blob.digest, versions, str(loss)))
        for stored in self._blobs.listing(tenant or None):
            if not self._is_referred(stored.tenant, stored.digest):
                report.unreferenced += 1
                report.unreferenced_bytes += stored.size
        return report

    def _referred_blobs(self, tenant: str) -> Iterator[AnyRow]:
        chosen = (
            select(BLOBS.c.tenant, BLOBS.c.digest)
            .where(is_referred_to(BLOBS))
            .order_by(BLOBS.c.tenant, BLOBS.c.digest)
            .limit(_PAGE)
        )
        if tenant:
            chosen = chosen.where(BLOBS.c.tenant == tenant)
        page = self._database.read(partial(_all, chosen))
        while page:
            yield from page
            last = page[-1]
            rest = chosen.where(
                (BLOBS.c.tenant > last.tenant)
                | ((BLOBS.c.tenant == last.tenant) & (BLOBS.c.digest > last.digest))
            )
            page = self._database.read(partial(_all, rest))

    def _names(self, blob: AnyRow) -> list[str]:
        chosen = (
            select(CONCEPTS.c.concept_id, HOLDERS.c.number)
            .join(HOLDERS, CONCEPTS.c.id == HOLDERS.c.concept)
            .where(HOLDERS.c.tenant == blob.tenant, HOLDERS.c.digest == blob.digest)
            .distinct()
            .order_by(CONCEPTS.c.concept_id, HOLDERS.c.number)
            .limit(_NAMES)
        )
        rows = self._database.read(lambda connection: connection.execute(chosen).all())
        return [
            f"tenants/{blob.tenant}/concepts/{row.concept_id}/versions/{row.number}" for row in rows
        ]

    def _is_referred(self, tenant: str, digest: str) -> bool:
        chosen = (
            select(HOLDERS.c.number)
            .where(HOLDERS.c.tenant == tenant, HOLDERS.c.digest == digest)
            .limit(1)
        )
        found = self._database.read(lambda connection: connection.execute(chosen).first())
        return found is not None


def _all(chosen: Select[Any], connection: Connection) -> Sequence[AnyRow]:
    return connection.execute(chosen).all()
