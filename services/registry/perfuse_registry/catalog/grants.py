"""Rules for grants: which other tenants may use a concept, until that is taken back."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Select, delete, insert, select

from perfuse.errors import AlreadyExists, InvalidArgument
from perfuse.names import ConceptName, GrantName, TenantName
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.listing import Lists, Page, Query
from perfuse.storage.moments import now
from perfuse.storage.paging import Listing
from perfuse.storage.requests import Mutation
from perfuse_registry.catalog.ownership import (
    concept_row,
    locked_concept,
    missing,
    require_etag,
    require_live,
    require_own,
    require_unerased,
)
from perfuse_registry.catalog.requests import once
from perfuse_registry.catalog.resources import Access, Grant
from perfuse_registry.tables import CONCEPTS, GRANTS


class Grants:
    """Grants of every concept."""

    def __init__(self, database: Database, lists: Lists) -> None:
        self._database = database
        self._lists = lists

    def create(self, mutation: Mutation, name: GrantName, access: Access) -> Grant:
        """Let another tenant use a concept.

        The grantee need not exist: whether it does is not for its neighbours to know.

        Raises:
            NotFound, ConceptDeleted: the concept.
            AlreadyExists: it was granted before, with whatever access.
            InvalidArgument: the grantee is the owner.
        """
        require_own(mutation.tenant, name.parent)

        def work(connection: Connection) -> Grant:
            concept = require_live(locked_concept(connection, name.parent), name.parent)
            if name.grantee == name.tenant:
                raise InvalidArgument.in_field(
                    "grant_id", f"{name.parent} is {name.grantee}'s own; name another tenant"
                )
            if _row(connection, name) is not None:
                refusal = AlreadyExists(
                    f"{name} exists already. To change its access, delete it and make it anew"
                )
                refusal.resource = str(name)
                raise refusal
            connection.execute(
                insert(GRANTS).values(
                    concept=concept.id,
                    grantee=name.grantee,
                    access=access.value,
                    uid=str(uuid4()),
                    create_time=now(),
                )
            )
            return _grant_of(_present(connection, name))

        content = [str(name), access.value]
        made: Grant = once(self._database, mutation, "CreateGrant", content, Grant, work)
        return made

    def get(self, tenant: str, name: GrantName) -> Grant:
        """One grant, for its owner or its grantee.

        Raises:
            NotFound: there is none, or it is neither's.
            ConceptDeleted: the owner's concept.
        """
        row = self._database.read(lambda connection: _looked_for(connection, tenant, name))
        if row is None or tenant not in (name.tenant, name.grantee):
            raise missing(name)
        if row.delete_time is not None and tenant == name.grantee:
            raise missing(name)
        require_live(row, name.parent)
        return _grant_of(row)

    def list(self, tenant: str, parent: ConceptName, query: Query) -> Page[Grant]:
        """A page of a concept's grants, by grantee.

        Raises:
            NotFound, ConceptDeleted: as their names say.
            InvalidArgument: token or size.
        """
        require_own(tenant, parent)
        concept = require_live(
            self._database.read(lambda connection: concept_row(connection, parent)), parent
        )
        return self._lists.page(
            _SELECT.where(GRANTS.c.concept == concept.id),
            query,
            Listing(tenant, "ListGrants", str(parent)),
            {},
            {"grantee": GRANTS.c.grantee},
            "grantee",
            GRANTS.c.grantee,
            _grant_of,
        )

    def received(self, tenant: str, parent: TenantName, query: Query) -> Page[Grant]:
        """A page of what others grant to a tenant, the oldest first.

        Raises:
            NotFound: the tenant is not the caller's.
            InvalidArgument: token or size.
        """
        require_own(tenant, parent)
        return self._lists.page(
            _SELECT.where(GRANTS.c.grantee == tenant, CONCEPTS.c.delete_time.is_(None)),
            query,
            Listing(tenant, "ListReceivedGrants", str(parent)),
            {},
            {"id": GRANTS.c.id},
            "id",
            GRANTS.c.id,
            _grant_of,
        )

    def delete(self, mutation: Mutation, name: GrantName, etag: str) -> None:
        """Take a grant back, also while its concept is deleted.

        Raises:
            NotFound, EtagMismatch: as their names say.
        """
        require_own(mutation.tenant, name.parent)

        def work(connection: Connection) -> None:
            locked_concept(connection, name.parent)
            row = _present(connection, name)
            require_etag(etag, _grant_of(row).etag, name)
            connection.execute(delete(GRANTS).where(GRANTS.c.id == row.id))

        once(self._database, mutation, "DeleteGrant", [str(name), etag], type(None), work)


_SELECT: Select[Any] = select(
    GRANTS,
    CONCEPTS.c.tenant,
    CONCEPTS.c.concept_id,
    CONCEPTS.c.super_category,
    CONCEPTS.c.delete_time,
).join(CONCEPTS, CONCEPTS.c.id == GRANTS.c.concept)


def _grant_of(row: AnyRow) -> Grant:
    return Grant(
        tenant=row.tenant,
        concept_id=row.concept_id,
        grantee=row.grantee,
        access=Access(row.access),
        super_category=row.super_category,
        uid=row.uid,
        create_time=row.create_time,
    )


def _row(connection: Connection, name: GrantName) -> AnyRow | None:
    return connection.execute(
        _SELECT.where(
            CONCEPTS.c.tenant == name.tenant,
            CONCEPTS.c.concept_id == name.concept,
            GRANTS.c.grantee == name.grantee,
        )
    ).first()


def _looked_for(connection: Connection, tenant: str, name: GrantName) -> AnyRow | None:
    row = _row(connection, name)
    if row is None and tenant == name.tenant:
        require_unerased(connection, name.parent)
    return row


def _present(connection: Connection, name: GrantName) -> AnyRow:
    row = _row(connection, name)
    if row is None:
        raise missing(name)
    return row
