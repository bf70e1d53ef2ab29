"""Rules for versions: immutable adapters, numbered by the concept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, bindparam, delete, func, select, update

from perfuse.errors import AliasInUse, DataLoss, InvalidArgument, PerfuseError
from perfuse.names import ConceptName, VersionName
from perfuse.storage.blobs import BlobStore
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.filters import Field, Kind
from perfuse.storage.listing import Lists, Page, Query
from perfuse.storage.moments import now
from perfuse.storage.paging import Listing
from perfuse.storage.requests import Mutation
from perfuse_registry.catalog.admission import (
    Judged,
    judge,
    require_base_model,
    require_super_category,
)
from perfuse_registry.catalog.leases import Leases
from perfuse_registry.catalog.ownership import (
    concept_row,
    locked_concept,
    missing,
    require_etag,
    require_live,
    require_own,
)
from perfuse_registry.catalog.requests import once, recalled
from perfuse_registry.catalog.resources import Version
from perfuse_registry.catalog.standing import standing
from perfuse_registry.catalog.version_rows import (
    WITH_PARENTS,
    found,
    insert_numbered,
    version_of,
    version_row,
)
from perfuse_registry.failpoints import reach
from perfuse_registry.tables import ALIASES, BASE_MODELS, BLOBS, CONCEPTS, VERSIONS

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
MUTABLE = frozenset({"description", "labels"})
_OF_CONCEPT = WITH_PARENTS.where(VERSIONS.c.concept == bindparam("of_concept"))


class Versions:
    """Versions of every concept, and their bytes.

    Args:
        database: With the Registry's tables.
        blobs: Where the bytes are.
        lists: For pages.
        lease: How long an upload may take before its bytes count as abandoned.
    """

    def __init__(
        self, database: Database, blobs: BlobStore, lists: Lists, lease: timedelta
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._lists = lists
        self._leases = Leases(database, lease)

    def create(
        self,
        mutation: Mutation,
        parent: ConceptName,
        data: bytes,
        claimed: str,
        *,
        training_run: str = "",
        description: str = "",
        labels: dict[str, str] | None = None,
        validate_only: bool = False,
    ) -> Version:
        """Store an adapter as the concept's next version.

        The bytes are in the store, durably, before the row that refers to them exists; a lease
        keeps them from being collected in between.

        Raises:
            AdapterRefused, DigestMismatch: the bytes are not an adapter, or not those meant.
            NotFound, ConceptDeleted: there is no such concept of the caller's.
            InvalidArgument: another super-category than the concept's, or another tenant's run.
            BaseModelMismatch: a base model that is not known here.
            Unavailable: database or store do not answer, or the upload outlasted its lease.
        """
        require_own(mutation.tenant, parent)
        content = [str(parent), claimed, training_run, description, labels or {}, validate_only]

        judged = _judgement(data, claimed)
        fingerprint = judged.header.metadata.base_model if isinstance(judged, Judged) else ""
        met = self._database.read(
            lambda connection: standing(connection, mutation, "CreateVersion", parent, fingerprint)
        )
        done, answer = recalled(met, mutation, "CreateVersion", content, Version)
        if done:
            return answer  # type: ignore[no-any-return]
        concept = require_live(None if met.concept is None else met, parent)
        if isinstance(judged, PerfuseError):
            raise judged
        require_super_category(judged, concept.super_category)
        base = require_base_model(judged, None if met.base_model is None else met)
        if training_run and not training_run.startswith(f"tenants/{parent.tenant}/"):
            raise InvalidArgument.in_field(
                "version.training_run",
                f"{training_run!r} is not a run of {parent.tenant}; name a run of the same tenant",
            )
        moment = now()
        metadata = judged.header.metadata
        version = Version(
            tenant=parent.tenant,
            concept_id=parent.concept,
            number=0,
            uid=str(uuid4()),
            digest=judged.digest,
            size_bytes=len(data),
            base_model_id=base.base_model_id,
            fingerprint=metadata.base_model,
            key_lock=metadata.key_lock,
            placeholder=metadata.placeholder,
            super_category=metadata.super_category,
            bias=metadata.bias,
            temperature=metadata.temperature,
            training={key: _text(value) for key, value in metadata.training.items()},
            training_run=training_run,
            description=description,
            labels=labels or {},
            revision=1,
            create_time=moment,
            update_time=moment,
        )
        if validate_only:
            return version
        reach("version.judged")
        with self._leases.held(parent.tenant, judged.digest, len(data)) as lease:
            reach("version.leased")
            self._blobs.put(parent.tenant, judged.digest, data)
            reach("version.stored")

            def work(connection: Connection) -> Version:
                made = insert_numbered(
                    connection, parent, version, concept.concept, base.base_model, lease
                )
                reach("version.uncommitted")
                return made

            made = once(
                self._database, mutation, "CreateVersion", content, Version, work, looked=True
            )
        reach("version.committed")
        return made

    def get(self, tenant: str, name: VersionName) -> Version:
        """One version, by number, alias or `latest`.

        Raises:
            NotFound, ConceptDeleted: as their names say.
        """
        require_own(tenant, name)
        row = self._database.read(lambda connection: version_row(connection, name))
        return found(row, name)

    def batch_get(self, tenant: str, names: Sequence[VersionName]) -> list[Version]:
        """Several, in the order asked for; one that is missing fails all.

        Raises:
            NotFound, ConceptDeleted: for the first such name.
        """
        require_own(tenant, *names)

        def work(connection: Connection) -> list[Version]:
            return [found(version_row(connection, name), name) for name in names]

        return self._database.read(work)

    def list(self, tenant: str, parent: ConceptName, query: Query) -> Page[Version]:
        """A page of a concept's versions, by default the newest first.

        Raises:
            NotFound, ConceptDeleted: as their names say.
            InvalidArgument: filter, order, token or size.
        """
        require_own(tenant, parent)
        concept = self._concept(parent)
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

    def download(self, tenant: str, name: VersionName, known: str) -> tuple[Version, bytes | None]:
        """A version and its bytes, or None where the caller has them already.

        Raises:
            NotFound, ConceptDeleted: as their names say.
            DataLoss: the bytes are gone or altered.
        """
        version = self.get(tenant, name)
        if version.digest == known:
            return version, None
        try:
            return version, self._blobs.get(version.tenant, version.digest)
        except DataLoss:
            # No loss if it was deleted since it was looked up, and its bytes collected.
            self.get(tenant, version.name)
            raise

    def update(
        self, mutation: Mutation, name: VersionName, etag: str, changes: dict[str, Any]
    ) -> Version:
        """Change some of `MUTABLE`.

        Raises:
            NotFound, ConceptDeleted, EtagMismatch: as their names say.
        """
        require_own(mutation.tenant, name.parent)

        def work(connection: Connection) -> Version:
            row = self._numbered_row(connection, name, "version.name")
            require_etag(etag, version_of(row).etag, name)
            if changes:
                connection.execute(
                    update(VERSIONS)
                    .where(VERSIONS.c.id == row.id)
                    .values(revision=row.revision + 1, update_time=now(), **changes)
                )
            return found(version_row(connection, name), name)

        return once(
            self._database, mutation, "UpdateVersion", [str(name), etag, changes], Version, work
        )

    def delete(self, mutation: Mutation, name: VersionName, etag: str) -> None:
        """Remove a version; its bytes go with a later collection, its number never comes again.

        Raises:
            NotFound, ConceptDeleted, EtagMismatch: as their names say.
            AliasInUse: an alias points at it.
        """
        require_own(mutation.tenant, name.parent)

        def work(connection: Connection) -> None:
            row = self._numbered_row(connection, name)
            require_etag(etag, version_of(row).etag, name)
            aliases = connection.scalars(
                select(ALIASES.c.alias_id)
                .where(ALIASES.c.concept == row.concept, ALIASES.c.number == row.number)
                .limit(5)
            ).all()
            if aliases:
                raise AliasInUse(
                    f"{name} is what {', '.join(sorted(aliases))} points at. Move or delete the "
                    "alias first"
                )
            connection.execute(delete(VERSIONS).where(VERSIONS.c.id == row.id))
            reach("version_delete.unlisted")
            highest = select(func.max(VERSIONS.c.number)).where(VERSIONS.c.concept == row.concept)
            connection.execute(
                update(CONCEPTS)
                .where(CONCEPTS.c.id == row.concept)
                .values(latest_number=highest.scalar_subquery())
            )
            # The grace period of bytes that nothing refers to begins now.
            connection.execute(
                update(BLOBS)
                .where(BLOBS.c.tenant == row.tenant, BLOBS.c.digest == row.digest)
                .values(touch_time=now())
            )
            reach("version_delete.uncommitted")

        once(self._database, mutation, "DeleteVersion", [str(name), etag], type(None), work)
        reach("version_delete.committed")

    def _concept(self, name: ConceptName) -> AnyRow:
        row = self._database.read(lambda connection: concept_row(connection, name))
        return require_live(row, name)

    def _numbered_row(
        self, connection: Connection, name: VersionName, field: str = "name"
    ) -> AnyRow:
        """A version's row, its concept locked; only a number names what is to be changed."""
        require_live(locked_concept(connection, name.parent), name.parent)
        if name.number is None:
            raise InvalidArgument.in_field(
                field, f"{name} is not named by its number; read it first, and use that name"
            )
        row = version_row(connection, name)
        if row is None:
            raise missing(name)
        return row


def _judgement(data: bytes, claimed: str) -> Judged | PerfuseError:
    """What is found of the bytes, or the refusal that they get once it is their turn."""
    try:
        return judge(data, claimed)
    except PerfuseError as refusal:
        return refusal


def _text(value: object) -> str:
    """A training summary's scalar, as JSON spells it but for texts, which stand for themselves."""
    return value if isinstance(value, str) else json.dumps(value)
