"""Rules for versions: immutable adapters, numbered by the concept."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import Connection, select, update

from perfuse.errors import (
    AliasInUse,
    ConceptErased,
    InvalidArgument,
    PerfuseError,
)
from perfuse.names import ConceptName, VersionName
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.listing import Lists
from perfuse.storage.moments import now
from perfuse.storage.requests import Mutation
from perfuse_registry.cached_blobs import CachedBlobs
from perfuse_registry.catalog.admission import (
    Judged,
    judge,
    require_base_model,
    require_super_category,
)
from perfuse_registry.catalog.attachments import (
    JudgedAttachments,
    NewAttachments,
    judge_attachments,
)
from perfuse_registry.catalog.likeness import require_consent
from perfuse_registry.catalog.ownership import (
    locked_concept,
    missing,
    require_etag,
    require_live,
    require_own,
)
from perfuse_registry.catalog.requests import once, recalled
from perfuse_registry.catalog.resources import Scope, Version
from perfuse_registry.catalog.standing import standing
from perfuse_registry.catalog.uploads import Uploads
from perfuse_registry.catalog.usage import Usage
from perfuse_registry.catalog.version_at_once import create_at_once, may_be_at_once
from perfuse_registry.catalog.version_reads import VersionReads
from perfuse_registry.catalog.version_rows import (
    found,
    insert_numbered,
    remove_version,
    version_of,
    version_row,
)
from perfuse_registry.erased_bytes import ErasedBytes
from perfuse_registry.failpoints import reach
from perfuse_registry.tables import ALIASES, VERSIONS

MUTABLE = frozenset({"description", "labels"})
_NOTHING = NewAttachments()
_Found = TypeVar("_Found")


class Versions(VersionReads):
    """Versions of every concept, and their bytes.

    Args:
        database: With the Registry's tables.
        blobs: Where the bytes are.
        lists: For pages.
        lease: How long an upload may take before its bytes count as abandoned.
        usage: What tenants keep and may keep.
        erased_bytes: Removes what came for a concept that was erased meanwhile.
    """

    def __init__(
        self,
        database: Database,
        blobs: CachedBlobs,
        lists: Lists,
        lease: timedelta,
        usage: Usage,
        erased_bytes: ErasedBytes,
    ) -> None:
        super().__init__(database, blobs, lists)
        self._cached = blobs
        self._erased_bytes = erased_bytes
        self._usage = usage
        self._uploads = Uploads(database, blobs, lease)

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
        attached: NewAttachments = _NOTHING,
        validate_only: bool = False,
    ) -> Version:
        """Store an adapter as the concept's next version, with what is attached to it.

        The bytes are in the store, durably, before the row that refers to them exists; a lease
        keeps them from being collected in between.

        Raises:
            AdapterRefused, DigestMismatch: the bytes are not an adapter, or not those meant.
            NotFound, ConceptDeleted, ConceptErased: there is no such concept of the caller's.
            InvalidArgument: another super-category than the concept's, another tenant's run, or
                attached what cannot be kept.
            BaseModelMismatch: a base model that is not known here.
            ConsentMissing, ConsentExpired, ConsentRevoked: a likeness that nobody may train.
            QuotaExceeded: with it the tenant would keep more bytes than it may.
            Unavailable: database or store do not answer, or the upload outlasted its lease.
        """
        require_own(mutation.tenant, parent)
        content = [str(parent), claimed, training_run, description, labels or {}, validate_only]
        content += attached.content()

        judged = _judgement(lambda: judge(data, claimed))
        further = _judgement(lambda: judge_attachments(attached))
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
        if isinstance(further, PerfuseError):
            raise further
        # Looked at again where it is counted; here it saves the upload's way to the store.
        self._usage.require_room(parent.tenant, len(data) + further.size_bytes)
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
            likeness=concept.likeness,
            attachment_bytes=further.size_bytes,
            attachments=further.attachments,
        )
        if concept.likeness:
            self._database.read(
                lambda connection: require_consent(connection, concept.concept, parent, Scope.TRAIN)
            )
        if validate_only:
            return version
        reach("version.judged")
        try:
            made = self._stored(mutation, parent, judged, further, version, concept, base, content)
        except ConceptErased:
            for each in (judged.digest, *further.files):
                self._erased_bytes.discard(parent.tenant, each)
            raise
        reach("version.committed")
        return made

    def _stored(
        self,
        mutation: Mutation,
        parent: ConceptName,
        judged: Judged,
        further: JudgedAttachments,
        version: Version,
        concept: AnyRow,
        base: AnyRow,
        content: object,
    ) -> Version:
        """The bytes in the store, and then the version that refers to them."""
        most_bytes = self._usage.most_bytes(parent.tenant)
        with self._uploads.held(parent.tenant, judged, further) as files:
            is_plain = most_bytes is None and may_be_at_once(self._database, mutation, version)
            if is_plain:
                at_once = create_at_once(
                    self._database,
                    mutation,
                    content,
                    version,
                    concept.concept,
                    base.base_model,
                    files.adapter,
                )
                if at_once is not None:
                    return at_once

            def work(connection: Connection) -> Version:
                made = insert_numbered(
                    connection,
                    parent,
                    version,
                    concept.concept,
                    base.base_model,
                    files,
                    most_bytes,
                )
                if concept.likeness:
                    # Its row is locked by now, so that a revocation has come before or waits.
                    require_consent(connection, concept.concept, parent, Scope.TRAIN)
                reach("version.uncommitted")
                return made

            made: Version = once(
                self._database,
                mutation,
                "CreateVersion",
                content,
                Version,
                work,
                looked=not is_plain,
            )
        return made

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
        digest = ""

        def work(connection: Connection) -> None:
            nonlocal digest
            row = self._numbered_row(connection, name)
            digest = row.digest
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
            remove_version(connection, row)
            reach("version_delete.uncommitted")

        once(self._database, mutation, "DeleteVersion", [str(name), etag], type(None), work)
        self._cached.forget(name.tenant, digest)
        reach("version_delete.committed")

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


def _judgement(judge: Callable[[], _Found]) -> _Found | PerfuseError:
    """What is found of what was sent, or the refusal that it gets once it is its turn."""
    try:
        return judge()
    except PerfuseError as refusal:
        return refusal


def _text(value: object) -> str:
    """A training summary's scalar, as JSON spells it but for texts, which stand for themselves."""
    return value if isinstance(value, str) else json.dumps(value)
