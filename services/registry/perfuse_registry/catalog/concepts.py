"""Rules for concepts: what a tenant has taught, or will."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, insert, select, update

from perfuse.errors import AlreadyExists, ConceptNotEmpty, FailedPrecondition, InvalidArgument
from perfuse.names import ConceptName, TenantName
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.filters import Field, Kind
from perfuse.storage.listing import Lists, Page, Query
from perfuse.storage.moments import now
from perfuse.storage.paging import Listing
from perfuse.storage.requests import Mutation
from perfuse_registry.catalog.access import access_to
from perfuse_registry.catalog.likeness import consented_until
from perfuse_registry.catalog.ownership import (
    erased,
    locked_concept,
    missing,
    require_etag,
    require_live,
    require_own,
)
from perfuse_registry.catalog.requests import once
from perfuse_registry.catalog.resources import Access, Concept, Scope
from perfuse_registry.catalog.usage import Usage
from perfuse_registry.failpoints import reach
from perfuse_registry.tables import CONCEPTS

FILTERS = {
    "concept_id": Field(CONCEPTS.c.concept_id, Kind.TEXT),
    "display_name": Field(CONCEPTS.c.display_name, Kind.TEXT),
    "super_category": Field(CONCEPTS.c.super_category, Kind.TEXT),
    "create_time": Field(CONCEPTS.c.create_time, Kind.TIMESTAMP),
    "update_time": Field(CONCEPTS.c.update_time, Kind.TIMESTAMP),
    "labels": Field(CONCEPTS.c.labels, Kind.LABELS),
}
ORDERS = {
    "concept_id": CONCEPTS.c.concept_id,
    "create_time": CONCEPTS.c.create_time,
    "update_time": CONCEPTS.c.update_time,
}
MUTABLE = frozenset({"display_name", "description", "labels"})


class Concepts:
    """Concepts of every tenant.

    Args:
        database: With the Registry's tables.
        lists: For pages.
        retention: How long a deleted concept can be undeleted.
        usage: What tenants keep and may keep.
    """

    def __init__(
        self, database: Database, lists: Lists, retention: timedelta, usage: Usage
    ) -> None:
        self._usage = usage
        self._database = database
        self._lists = lists
        self._retention = retention

    def create(
        self,
        mutation: Mutation,
        name: ConceptName,
        *,
        super_category: str,
        display_name: str = "",
        description: str = "",
        labels: dict[str, str] | None = None,
        likeness: bool = False,
    ) -> Concept:
        """A new concept without versions; `likeness`, of a living person, never changes.

        Raises:
            NotFound: the tenant is not the caller's.
            InvalidArgument: there is no super-category.
            AlreadyExists: the id is taken, by a deleted concept too.
            ConceptErased: it was an erased concept's.
            QuotaExceeded: the tenant has as many as it may.
        """
        require_own(mutation.tenant, name)
        if not super_category.strip():
            raise InvalidArgument.in_field(
                "concept.super_category",
                "it is empty; give the everyday noun that the concept is a kind of, such as 'cat'",
            )
        moment = now()
        concept = Concept(
            tenant=name.tenant,
            concept_id=name.concept,
            uid=str(uuid4()),
            display_name=display_name,
            super_category=super_category,
            description=description,
            labels=labels or {},
            latest_number=None,
            revision=1,
            create_time=moment,
            update_time=moment,
            likeness=likeness,
        )

        def work(connection: Connection) -> Concept:
            known = _row(connection, name)
            if known is not None and known.erase_time is not None:
                raise erased(name)
            if known is not None:
                refusal = AlreadyExists(
                    f"{name} exists already, perhaps deleted. Choose another id, or undelete it"
                )
                refusal.resource = str(name)
                raise refusal
            self._usage.require_place(connection, name.tenant)
            values = {key: getattr(concept, key) for key in _COLUMNS}
            connection.execute(insert(CONCEPTS).values(next_number=1, **values))
            return concept

        content: list[object]
        content = [str(name), super_category, display_name, description, labels or {}]
        content += [likeness] if likeness else []
        return self._once(mutation, "CreateConcept", content, work)

    def get(self, tenant: str, name: ConceptName) -> Concept:
        """One concept: the tenant's own, deleted or not, or one granted to it.

        Raises:
            NotFound: there is none, or it is another tenant's.
            ConceptErased: it was erased.
        """

        def work(connection: Connection) -> tuple[Concept, Access]:
            access = access_to(connection, tenant, name)
            row = _row(connection, name)
            if row is None:
                raise missing(name)
            if row.erase_time is not None:
                raise erased(name)
            concept = concept_of(row)
            if concept.likeness:
                concept = replace(
                    concept,
                    train_until=consented_until(connection, row.id, Scope.TRAIN),
                    render_until=consented_until(connection, row.id, Scope.RENDER),
                )
            return concept, access

        concept, access = self._database.read(work)
        if access is Access.RENDER:
            return replace(concept, description="", labels={})
        return concept

    def list(self, tenant: str, parent: TenantName, query: Query) -> Page[Concept]:
        """A page of the tenant's concepts, by default in order of creation.

        Raises:
            NotFound: the tenant is not the caller's.
            InvalidArgument: filter, order, token or size.
        """
        require_own(tenant, parent)
        chosen = select(CONCEPTS).where(
            CONCEPTS.c.tenant == parent.tenant, CONCEPTS.c.erase_time.is_(None)
        )
        if not query.show_deleted:
            chosen = chosen.where(CONCEPTS.c.delete_time.is_(None))
        return self._lists.page(
            chosen,
            query,
            Listing(tenant, "ListConcepts", str(parent), query.filter, query.show_deleted),
            FILTERS,
            ORDERS,
            "create_time",
            CONCEPTS.c.id,
            concept_of,
        )

    def update(
        self, mutation: Mutation, name: ConceptName, etag: str, changes: dict[str, Any]
    ) -> Concept:
        """Change some of `MUTABLE`.

        Raises:
            NotFound, ConceptDeleted, EtagMismatch: as their names say.
        """
        require_own(mutation.tenant, name)

        def work(connection: Connection) -> Concept:
            row = require_live(locked_concept(connection, name), name)
            concept = concept_of(row)
            require_etag(etag, concept.etag, name)
            return _changed(connection, row, **changes) if changes else concept

        content = [str(name), etag, changes]
        return self._once(mutation, "UpdateConcept", content, work)

    def delete(self, mutation: Mutation, name: ConceptName, etag: str, *, force: bool) -> Concept:
        """Mark a concept deleted, until it is undeleted or purged.

        Raises:
            NotFound, ConceptDeleted, EtagMismatch: as their names say.
            ConceptNotEmpty: it has versions, and `force` is not given.
        """
        require_own(mutation.tenant, name)

        def work(connection: Connection) -> Concept:
            row = require_live(locked_concept(connection, name), name)
            require_etag(etag, concept_of(row).etag, name)
            if row.latest_number is not None and not force:
                raise ConceptNotEmpty(
                    f"{name} has versions, up to number {row.latest_number}. Delete with force to "
                    "delete them too, or delete them first"
                )
            moment = now()
            changed = _changed(
                connection, row, delete_time=moment, purge_time=moment + self._retention
            )
            reach("concept_delete.uncommitted")
            return changed

        deleted = self._once(mutation, "DeleteConcept", [str(name), etag, force], work)
        reach("concept_delete.committed")
        return deleted

    def undelete(self, mutation: Mutation, name: ConceptName, etag: str) -> Concept:
        """Take a deletion back.

        Raises:
            NotFound, ConceptErased, EtagMismatch: as their names say.
            FailedPrecondition: the concept is not deleted.
            QuotaExceeded: the tenant has as many as it may.
        """
        require_own(mutation.tenant, name)

        def work(connection: Connection) -> Concept:
            # Before the concept: who adds versions takes the two in this order.
            self._usage.hold_places(connection, name.tenant)
            row = locked_concept(connection, name)
            if row is None:
                raise missing(name)
            if row.erase_time is not None:
                raise erased(name)
            require_etag(etag, concept_of(row).etag, name)
            if row.delete_time is None:
                raise FailedPrecondition(f"{name} is not deleted. There is nothing to undelete")
            self._usage.require_place(connection, name.tenant)
            restored = _changed(connection, row, delete_time=None, purge_time=None)
            reach("concept_undelete.uncommitted")
            return restored

        restored = self._once(mutation, "UndeleteConcept", [str(name), etag], work)
        reach("concept_undelete.committed")
        return restored

    def _once(self, mutation: Mutation, method: str, content: object, work: Any) -> Concept:
        answer: Concept = once(self._database, mutation, method, content, Concept, work)
        return answer


_COLUMNS = tuple(name for name in Concept.__dataclass_fields__ if name in CONCEPTS.c)


def concept_of(row: AnyRow) -> Concept:
    """The concept in a row of its table."""
    return Concept(**{key: getattr(row, key) for key in _COLUMNS})


def _row(connection: Connection, name: ConceptName) -> AnyRow | None:
    return connection.execute(
        select(CONCEPTS).where(
            CONCEPTS.c.tenant == name.tenant, CONCEPTS.c.concept_id == name.concept
        )
    ).first()


def _changed(connection: Connection, row: AnyRow, **changes: Any) -> Concept:
    return concept_of(
        connection.execute(
            update(CONCEPTS)
            .where(CONCEPTS.c.id == row.id)
            .values(revision=row.revision + 1, update_time=now(), **changes)
            .returning(CONCEPTS)
        ).one()
    )
