"""What every rule asks first: is it the caller's, is it there, is it still what was read?"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select

from perfuse.errors import ConceptDeleted, ConceptErased, EtagMismatch, NotFound
from perfuse.names import (
    AliasName,
    BaseModelName,
    ConceptName,
    ConsentName,
    ErasureName,
    GrantName,
    TenantName,
    VersionName,
)
from perfuse.storage.database import AnyRow
from perfuse.storage.prepared import Prepared
from perfuse_registry.tables import CONCEPTS

AnyName = (
    TenantName
    | ConceptName
    | VersionName
    | AliasName
    | ConsentName
    | GrantName
    | ErasureName
    | BaseModelName
)


def missing(name: AnyName | str) -> NotFound:
    """The one answer for what does not exist and for what is another tenant's."""
    refusal = NotFound(f"{name} does not exist, or is not yours to see. Check the name")
    refusal.resource = str(name)
    return refusal


def erased(name: ConceptName) -> ConceptErased:
    """The answer about a concept of one's own that was erased."""
    refusal = ConceptErased(
        f"{name} was erased, which nothing takes back. Make another concept, under another name"
    )
    refusal.resource = str(name)
    return refusal


def require_own(
    tenant: str,
    *names: TenantName | ConceptName | VersionName | AliasName | ConsentName | ErasureName,
) -> None:
    """Refuse names of other tenants, as if they did not exist.

    Raises:
        NotFound: for the first such name.
    """
    for name in names:
        if name.tenant != tenant:
            raise missing(name)


def require_etag(given: str, actual: str, name: AnyName) -> None:
    """Refuse a change of something that is no longer what was read; an empty etag is none.

    Raises:
        EtagMismatch: it is not.
    """
    if given and given != actual:
        raise EtagMismatch(
            f"{name} has changed since etag {given[:64]} was read. Read it again and decide anew"
        )


def require_live(row: AnyRow | None, name: ConceptName) -> AnyRow:
    """A concept's row, if the concept is there and not deleted.

    Raises:
        NotFound, ConceptErased, ConceptDeleted: as their names say.
    """
    if row is None:
        raise missing(name)
    # Rows of what is within a concept have no such column, for they go with it.
    if getattr(row, "erase_time", None) is not None:
        raise erased(name)
    if row.delete_time is not None:
        raise ConceptDeleted(f"{name} was deleted. Undelete it first, or use another concept")
    return row


def locked_concept(connection: Connection, name: ConceptName) -> AnyRow | None:
    """A concept's row, held until the transaction ends; children change only under this lock."""
    return _LOCKED.first(connection, tenant=name.tenant, concept=name.concept)


def concept_row(connection: Connection, name: ConceptName) -> AnyRow | None:
    """A concept's row as it is at the moment."""
    return _CONCEPT.first(connection, tenant=name.tenant, concept=name.concept)


def require_unerased(connection: Connection, name: ConceptName) -> None:
    """Say of something that is not there whether its concept was erased.

    Raises:
        ConceptErased: it was.
    """
    row = concept_row(connection, name)
    if row is not None and row.erase_time is not None:
        raise erased(name)


_NAMED = select(CONCEPTS).where(
    CONCEPTS.c.tenant == bindparam("tenant"), CONCEPTS.c.concept_id == bindparam("concept")
)
_CONCEPT = Prepared(_NAMED)
_LOCKED = Prepared(_NAMED.with_for_update())
