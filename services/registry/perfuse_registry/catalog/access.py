"""What a tenant may do with a concept that may be another's."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection, bindparam, select

from perfuse.names import AliasName, ConceptName, VersionName
from perfuse.storage.prepared import Prepared
from perfuse_registry.catalog.ownership import missing
from perfuse_registry.catalog.resources import Access, Version
from perfuse_registry.tables import CONCEPTS, GRANTS

# A deleted concept is nothing to whom it was granted.
_GRANTED = Prepared(
    select(GRANTS.c.access)
    .join(CONCEPTS, CONCEPTS.c.id == GRANTS.c.concept)
    .where(
        CONCEPTS.c.tenant == bindparam("tenant"),
        CONCEPTS.c.concept_id == bindparam("concept"),
        CONCEPTS.c.delete_time.is_(None),
        GRANTS.c.grantee == bindparam("grantee"),
    )
)


def access_to(
    connection: Connection,
    tenant: str,
    name: ConceptName | VersionName | AliasName,
    *,
    whole: bool = False,
) -> Access:
    """What `tenant` may do with the concept that a name belongs to.

    Its own costs no look at the database. A grant is looked up whenever it is used, so that taking
    it back holds from the next call on.

    Args:
        connection: For reading.
        tenant: The caller's.
        name: Of the concept, or of something in it.
        whole: Whether rendering alone is not enough.

    Raises:
        NotFound: nothing; as if there were no such concept.
    """
    if name.tenant == tenant:
        return Access.OWN
    row = _GRANTED.first(connection, tenant=name.tenant, concept=name.concept, grantee=tenant)
    if row is None or (whole and row.access == Access.RENDER):
        raise missing(name)
    return Access(row.access)


def shown(version: Version, access: Access) -> Version:
    """The version as far as it is shown: for rendering nobody needs to know how it was trained."""
    if access is not Access.RENDER:
        return version
    return replace(
        version, training={}, training_run="", description="", labels={}, attachment_bytes=0
    )
