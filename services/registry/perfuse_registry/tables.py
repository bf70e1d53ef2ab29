"""The Registry's tables, alike on SQLite and PostgreSQL.

Numbers of versions come from `concepts.next_number`, changed in the transaction that inserts the
version. Adapters and previews lie in the blob store; a row in `blobs` stands before the bytes are
put there and goes only after they are removed. Only a loss of power just after an upload began, or
a restored backup, can leave bytes without a row; a collection finds them in the store.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    UniqueConstraint,
)
from sqlmodel import Field

from perfuse.storage.columns import identifier, key, moment, table_of
from perfuse_registry.erasure_tables import ERASED_ADAPTERS as ERASED_ADAPTERS
from perfuse_registry.erasure_tables import ERASURES as ERASURES
from perfuse_registry.table_base import Base as Base


class ConceptRow(Base, table=True):
    """One concept of one tenant."""

    __tablename__ = "concepts"
    __table_args__ = (
        UniqueConstraint("tenant", "concept_id"),
        # The default order of a tenant's list, and the purge.
        Index(None, "tenant", "create_time"),
    )

    id: int = key()
    tenant: str = identifier()
    concept_id: str = identifier()
    uid: str = Field(max_length=36)
    display_name: str
    super_category: str
    likeness: bool
    description: str
    labels: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    next_number: int = Field(sa_column=Column(BigInteger, nullable=False))
    latest_number: int | None = Field(sa_column=Column(BigInteger, nullable=True))
    # Of its versions; counted with their numbers, for quotas.
    size_bytes: int = Field(sa_column=Column(BigInteger, nullable=False, server_default="0"))
    revision: int
    create_time: datetime = moment()
    update_time: datetime = moment()
    delete_time: datetime | None = moment(nullable=True)
    purge_time: datetime | None = moment(nullable=True, index=True)
    # An erased concept is deleted too; its row stays so that its name does.
    erase_time: datetime | None = moment(nullable=True)


class VersionRow(Base, table=True):
    """One immutable version of a concept."""

    __tablename__ = "versions"
    __table_args__ = (
        UniqueConstraint("concept", "number"),
        ForeignKeyConstraint(["concept"], ["concepts.id"]),
        ForeignKeyConstraint(["tenant", "digest"], ["blobs.tenant", "blobs.digest"]),
        ForeignKeyConstraint(["base_model"], ["base_models.id"]),
        Index(None, "concept", "create_time"),
        # Is this blob, is this base model still referred to?
        Index(None, "tenant", "digest"),
        Index(None, "base_model"),
    )

    id: int = key()
    concept: int = Field(sa_column=Column(BigInteger, nullable=False))
    number: int = Field(sa_column=Column(BigInteger, nullable=False))
    tenant: str = identifier()
    digest: str = identifier()
    size_bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    base_model: int = Field(sa_column=Column(BigInteger, nullable=False))
    uid: str = Field(max_length=36)
    key_lock: str
    placeholder: str
    super_category: str
    bias: float
    temperature: float
    training: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    training_run: str
    description: str
    labels: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    # Points `[step, validation loss, similarity]`.
    curve: list[Any] | None = Field(sa_column=Column(JSON(none_as_null=True), nullable=True))
    # Of its previews and its curve.
    attachment_bytes: int = Field(sa_column=Column(BigInteger, nullable=False, server_default="0"))
    revision: int
    create_time: datetime = moment()
    update_time: datetime = moment()


class PreviewRow(Base, table=True):
    """A picture that a version brought with it; never changed."""

    __tablename__ = "previews"
    __table_args__ = (
        ForeignKeyConstraint(["concept", "number"], ["versions.concept", "versions.number"]),
        ForeignKeyConstraint(["tenant", "digest"], ["blobs.tenant", "blobs.digest"]),
        # Is this blob still referred to?
        Index(None, "tenant", "digest"),
    )

    concept: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    number: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    position: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    tenant: str = identifier()
    digest: str = identifier()
    size_bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    media_type: str = Field(max_length=16)
    width: int
    height: int
    step: int
    caption: str


class AliasRow(Base, table=True):
    """One alias of a concept; the foreign key keeps it from pointing at nothing."""

    __tablename__ = "aliases"
    __table_args__ = (
        UniqueConstraint("concept", "alias_id"),
        ForeignKeyConstraint(["concept", "number"], ["versions.concept", "versions.number"]),
        Index(None, "concept", "number"),
    )

    id: int = key()
    concept: int = Field(sa_column=Column(BigInteger, nullable=False))
    alias_id: str = identifier()
    number: int = Field(sa_column=Column(BigInteger, nullable=False))
    uid: str = Field(max_length=36)
    revision: int
    create_time: datetime = moment()
    update_time: datetime = moment()


class AliasMoveRow(Base, table=True):
    """One line of an alias's history."""

    __tablename__ = "alias_moves"
    __table_args__ = (
        ForeignKeyConstraint(["concept"], ["concepts.id"]),
        Index(None, "concept", "alias_id", "id"),
    )

    id: int = key()
    concept: int = Field(sa_column=Column(BigInteger, nullable=False))
    alias_id: str = identifier()
    from_number: int | None = Field(sa_column=Column(BigInteger, nullable=True))
    to_number: int | None = Field(sa_column=Column(BigInteger, nullable=True))
    mover: str
    move_time: datetime = moment()


class GrantRow(Base, table=True):
    """What another tenant may do with a concept."""

    __tablename__ = "grants"
    __table_args__ = (
        UniqueConstraint("concept", "grantee"),
        ForeignKeyConstraint(["concept"], ["concepts.id"]),
        # What was granted to a tenant, the oldest first.
        Index(None, "grantee", "id"),
    )

    id: int = key()
    concept: int = Field(sa_column=Column(BigInteger, nullable=False))
    grantee: str = identifier()
    access: str = Field(max_length=16)
    uid: str = Field(max_length=36)
    create_time: datetime = moment()


class BaseModelRow(Base, table=True):
    """One base model, the same for all tenants."""

    __tablename__ = "base_models"
    __table_args__ = (UniqueConstraint("base_model_id"), UniqueConstraint("fingerprint"))

    id: int = key()
    base_model_id: str = identifier()
    uid: str = Field(max_length=36)
    display_name: str
    fingerprint: str = identifier()
    architecture: str
    conditioning_width: int
    layers: list[Any] = Field(sa_column=Column(JSON, nullable=False))
    encoders: list[Any] = Field(sa_column=Column(JSON, nullable=False))
    covariance_digest: str
    labels: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    revision: int
    create_time: datetime = moment()
    update_time: datetime = moment()


class BlobRow(Base, table=True):
    """One tenant's bytes in the blob store, or about to be there."""

    __tablename__ = "blobs"

    tenant: str = identifier(primary_key=True)
    digest: str = identifier(primary_key=True)
    size_bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    touch_time: datetime = moment()
    condemn_time: datetime | None = moment(nullable=True, index=True)


class LeaseRow(Base, table=True):
    """An upload under way: keeps its blob from being collected until it expires."""

    __tablename__ = "blob_leases"
    __table_args__ = (
        ForeignKeyConstraint(["tenant", "digest"], ["blobs.tenant", "blobs.digest"]),
        Index(None, "tenant", "digest"),
    )

    id: str = Field(max_length=36, primary_key=True)
    tenant: str = identifier()
    digest: str = identifier()
    expire_time: datetime = moment(index=True)


class RequestRow(Base, table=True):
    """A mutation that was done, by the `request_id` it came with, and its answer."""

    __tablename__ = "requests"

    tenant: str = identifier(primary_key=True)
    method: str = Field(max_length=40, primary_key=True)
    request_id: str = Field(max_length=36, primary_key=True)
    fingerprint: str = Field(max_length=64)
    answer: str
    done_time: datetime = moment(index=True)


class ConsentRow(Base, table=True):
    """A person's consent to the use of a likeness; never changed."""

    __tablename__ = "consents"
    __table_args__ = (
        UniqueConstraint("concept", "consent_id"),
        ForeignKeyConstraint(["concept"], ["concepts.id"]),
    )

    id: int = key()
    concept: int = Field(sa_column=Column(BigInteger, nullable=False))
    consent_id: str = identifier()
    uid: str = Field(max_length=36)
    giver: str
    train: bool
    render: bool
    start_time: datetime = moment()
    expire_time: datetime = moment()
    recorder: str
    create_time: datetime = moment()


class RevocationRow(Base, table=True):
    """That a consent was taken back; never changed."""

    __tablename__ = "consent_revocations"
    __table_args__ = (ForeignKeyConstraint(["consent"], ["consents.id"]),)

    consent: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    revoker: str
    revoke_time: datetime = moment()


class AuditEventRow(Base, table=True):
    """One mutation that was done or refused; see `perfuse.storage.audit`."""

    __tablename__ = "audit_events"
    __table_args__ = (Index(None, "tenant", "id"),)

    id: int = key()
    event_time: datetime = moment()
    tenant: str = identifier()
    subject: str
    rpc: str
    resource: str
    code: str
    request_id: str
    call_id: str
    peer: str


class SecretRow(Base, table=True):
    """A secret that all replicas of one installation share."""

    __tablename__ = "secrets"

    name: str = Field(max_length=63, primary_key=True)
    value: str


CONCEPTS = table_of(ConceptRow)
VERSIONS = table_of(VersionRow)
PREVIEWS = table_of(PreviewRow)
ALIASES = table_of(AliasRow)
ALIAS_MOVES = table_of(AliasMoveRow)
GRANTS = table_of(GrantRow)
BASE_MODELS = table_of(BaseModelRow)
BLOBS = table_of(BlobRow)
LEASES = table_of(LeaseRow)
REQUESTS = table_of(RequestRow)
CONSENTS = table_of(ConsentRow)
REVOCATIONS = table_of(RevocationRow)
AUDIT_EVENTS = table_of(AuditEventRow)
SECRETS = table_of(SecretRow)
