"""Versions as they are read: one, several, a page, and their bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sqlalchemy import Connection, bindparam

from perfuse.errors import DataLoss, NotFound, PermissionDenied
from perfuse.names import ConceptName, VersionName
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.filters import Field, Kind
from perfuse.storage.listing import Lists, Page, Query
from perfuse.storage.paging import Listing
from perfuse_registry.cached_blobs import CachedBlobs
from perfuse_registry.catalog.access import access_to, shown
from perfuse_registry.catalog.attachments import attachments_of
from perfuse_registry.catalog.likeness import consented_until, require_consent
from perfuse_registry.catalog.ownership import concept_row, require_live, require_unerased
from perfuse_registry.catalog.resources import Access, Preview, Scope, Version
from perfuse_registry.catalog.version_rows import WITH_PARENTS, found, version_of, version_row
from perfuse_registry.tables import BASE_MODELS, VERSIONS

FILTERS = {
    "number": Field(VERSIONS.c.number, Kind.INTEGER),
    "digest": Field(VERSIONS.c.digest, Kind.TEXT),
    "base_model": Field("baseModels/" + BASE_MODELS.c.base_model_id, Kind.TEXT),
    "key_lock": Field(VERSIONS.c.key_lock, Kind.ENUM, ("LOCAL", "TRAINED_K")),
    "training_run": Field(VERSIONS.c.training_run, Kind.TEXT),
    "create_time": Field(VERSIONS.c.create_time, Kind.TIMESTAMP),
    "update_time": Field(VERSIONS.c.update_time, Kind.TIMESTAMP),
    "labels": Field(VERSIONS.c.labels, Kind.LABELS),
}
ORDERS = {
    "number": VERSIONS.c.number,
    "create_time": VERSIONS.c.create_time,
    "update_time": VERSIONS.c.update_time,
}
_OF_CONCEPT = WITH_PARENTS.where(VERSIONS.c.concept == bindparam("of_concept"))


class VersionReads:
    """Reads versions of every concept.

    Args:
        database: With the Registry's tables.
        blobs: Where the bytes are; adapters are kept in memory, previews are not.
        lists: For pages.
    """

    def __init__(self, database: Database, blobs: CachedBlobs, lists: Lists) -> None:
        self._database = database
        self._blobs = blobs
        self._lists = lists

    def get(self, tenant: str, name: VersionName) -> Version:
        """One version, by number, alias or `latest`; the tenant's own, or granted to it.

        With its previews and its curve, unless it is shared for rendering alone.

        Raises:
            NotFound, ConceptDeleted: as their names say.
        """
        return self._database.read(
            lambda connection: _readable(connection, tenant, name, attached=True)[0]
        )

    def batch_get(self, tenant: str, names: Sequence[VersionName]) -> list[Version]:
        """Several, in the order asked for; one that is missing fails all.

        Raises:
            NotFound, ConceptDeleted: for the first such name.
        """

        def work(connection: Connection) -> list[Version]:
            return [_readable(connection, tenant, name)[0] for name in names]

        return self._database.read(work)

    def list(self, tenant: str, parent: ConceptName, query: Query) -> Page[Version]:
        """A page of a concept's versions, by default the newest first.

        Raises:
            NotFound, ConceptDeleted: as their names say.
            InvalidArgument: filter, order, token or size.
        """
        concept = self._concept(tenant, parent)
        return self._lists.page(
            _OF_CONCEPT,
            query,
            Listing(tenant, "ListVersions", str(parent), query.filter),
            FILTERS,
            ORDERS,
            "number desc",
            VERSIONS.c.number,
            version_of,
            {"of_concept": concept.id},
        )

    def download(
        self, tenant: str, name: VersionName, known: str, *, custodian: bool = False
    ) -> tuple[Version, bytes | None]:
        """A version and its bytes, or None where the caller has them already.

        Args:
            tenant: The caller's.
            name: Of the version.
            known: Digest of the bytes that the caller has.
            custodian: Whether the bytes go to a service that keeps them to itself, which may then
                have those that the tenant may only render with.

        Raises:
            NotFound, ConceptDeleted: as their names say.
            PermissionDenied: they are shared with the tenant for rendering alone.
            ConsentMissing, ConsentExpired, ConsentRevoked: a likeness that nobody may render.
            DataLoss: the bytes are gone or altered.
        """
        version, access = self._database.read(
            lambda connection: _readable(connection, tenant, name)
        )
        if access is Access.RENDER and not custodian:
            raise PermissionDenied(
                f"{name} is shared with {tenant} for rendering alone, and its bytes are given to a "
                "Renderer only. Render with it, or ask its owner for a grant to read it"
            )
        self._require_render(version)
        if version.digest == known:
            return version, None
        return version, self._bytes(tenant, version, version.digest)

    def preview(self, tenant: str, name: VersionName, digest: str) -> tuple[Preview, bytes]:
        """A preview of a version and its picture.

        Args:
            tenant: The caller's.
            name: Of the version.
            digest: Of the preview.

        Raises:
            NotFound, ConceptDeleted: as their names say.
            PermissionDenied: the version is shared with the tenant for rendering alone.
            ConsentMissing, ConsentExpired, ConsentRevoked: a likeness that nobody may render.
            DataLoss: the bytes are gone or altered.
        """
        version, access = self._database.read(
            lambda connection: _readable(connection, tenant, name, attached=True)
        )
        if access is Access.RENDER:
            raise PermissionDenied(
                f"{name} is shared with {tenant} for rendering alone, without its previews. Render "
                "with it, or ask its owner for a grant to read it"
            )
        self._require_render(version)
        for each in version.attachments.previews:
            if each.digest == digest:
                return each, self._bytes(tenant, version, digest, self._blobs.get_unkept)
        raise NotFound(
            f"{name} has no preview with the digest {digest}. Read the version to see which it has"
        )

    def load(self, tenant: str, name: VersionName) -> tuple[Version, bytes, Access]:
        """A version with its bytes for the Registry's own use, and what the tenant may do with it.

        Raises:
            NotFound, ConceptDeleted: as their names say.
            ConsentMissing, ConsentExpired, ConsentRevoked: a likeness that nobody may render.
            DataLoss: the bytes are gone or altered.
        """
        version, access = self._database.read(
            lambda connection: _readable(connection, tenant, name)
        )
        self._require_render(version)
        return version, self._bytes(tenant, version, version.digest), access

    def _require_render(self, version: Version) -> None:
        if not version.likeness or version.render_until is not None:
            return
        parent = version.name.parent

        def work(connection: Connection) -> None:
            concept = require_live(concept_row(connection, parent), parent)
            require_consent(connection, concept.id, parent, Scope.RENDER)

        self._database.read(work)

    def _bytes(
        self,
        tenant: str,
        version: Version,
        digest: str,
        get: Callable[[str, str], bytes] | None = None,
    ) -> bytes:
        try:
            return (get or self._blobs.get)(version.tenant, digest)
        except DataLoss:
            # No loss if it was deleted since it was looked up, and its bytes collected.
            self.get(tenant, version.name)
            raise

    def _concept(self, tenant: str, name: ConceptName) -> AnyRow:
        def work(connection: Connection) -> AnyRow | None:
            access_to(connection, tenant, name, whole=True)
            return concept_row(connection, name)

        return require_live(self._database.read(work), name)


def _readable(
    connection: Connection, tenant: str, name: VersionName, *, attached: bool = False
) -> tuple[Version, Access]:
    """A version as far as a tenant may see it, `attached` with what came with its adapter, and
    what it may do with it."""
    access = access_to(connection, tenant, name)
    row = version_row(connection, name)
    if row is None:
        require_unerased(connection, name.parent)
    version = found(row, name)
    if row is not None and version.likeness:
        until = consented_until(connection, row.concept, Scope.RENDER)
        version = replace(version, render_until=until)
    if attached and version.attachment_bytes and access is not Access.RENDER and row is not None:
        version = replace(version, attachments=attachments_of(connection, row.id, version.name))
    return shown(version, access), access
