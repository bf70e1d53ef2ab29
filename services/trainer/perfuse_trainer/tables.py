"""The Trainer's tables, alike on SQLite and PostgreSQL; they are the truth about every run.

A blob of the Trainer has one owner, the row that holds its digest (`vault`), so what no row names
can be removed. `training_runs.fence` rises with every claim: a worker that lost its lease writes
under an old number, and nothing of what it writes is taken.
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
    MetaData,
    UniqueConstraint,
)
from sqlmodel import Field, SQLModel

from perfuse.storage.columns import CONVENTION, identifier, key, moment, table_of


class Base(SQLModel):
    """What all tables share."""

    metadata = MetaData(naming_convention=CONVENTION)


def _big() -> Any:
    return Field(sa_column=Column(BigInteger, nullable=False))


def _json() -> Any:
    return Field(sa_column=Column(JSON, nullable=False))


class ImageSetRow(Base, table=True):
    """Pictures of one thing."""

    __tablename__ = "image_sets"
    __table_args__ = (
        UniqueConstraint("tenant", "image_set_id"),
        Index(None, "tenant", "create_time"),
    )

    id: int = key()
    tenant: str = identifier()
    image_set_id: str = identifier()
    uid: str = Field(max_length=36)
    keep: bool
    emptied: bool
    revision: int
    create_time: datetime = moment()
    update_time: datetime = moment()
    expire_time: datetime = moment(index=True)


class ImageRow(Base, table=True):
    """One image as it is kept; `blob` and `mask_blob` are PNG files in the vault."""

    __tablename__ = "images"
    __table_args__ = (
        UniqueConstraint("image_set", "file_name"),
        ForeignKeyConstraint(["image_set"], ["image_sets.id"]),
    )

    id: int = key()
    image_set: int = _big()
    tenant: str = identifier()
    file_name: str = Field(max_length=255)
    digest: str = identifier()
    mask_digest: str | None = identifier(nullable=True)
    width: int
    height: int
    blob: str = identifier(index=True)
    mask_blob: str | None = identifier(nullable=True, index=True)


class RunRow(Base, table=True):
    """One training run; `image_set` is empty once the set is gone.

    `traceparent` is the span that asked for it, where spans are sent anywhere.
    """

    __tablename__ = "training_runs"
    __table_args__ = (
        UniqueConstraint("tenant", "run_id"),
        Index(None, "tenant", "create_time"),
        # Whose turn is it?
        Index(None, "tenant", "claim_time"),
        # Workers look for what waits, and for what was left lying.
        Index(None, "state", "lease_time"),
    )

    id: int = key()
    tenant: str = identifier()
    run_id: str = identifier()
    uid: str = Field(max_length=36)
    concept_id: str = identifier()
    image_set_id: str = identifier()
    image_set: int | None = Field(sa_column=Column(BigInteger, nullable=True, index=True))
    base_model_id: str = identifier()
    super_category: str
    key_lock: str = Field(max_length=16)
    settings: dict[str, Any] = _json()
    description: str
    labels: dict[str, str] = _json()
    exclusive: bool
    state: str = Field(max_length=16)
    step: int
    loss: float | None
    attempt: int
    faults: int
    fence: int = _big()
    worker: str | None = Field(max_length=64)
    lease_time: datetime | None = moment(nullable=True)
    claim_time: datetime | None = moment(nullable=True)
    checkpoint_blob: str | None = identifier(nullable=True, index=True)
    checkpoint_step: int
    finish_time: datetime | None = moment(nullable=True)
    adapter_blob: str | None = identifier(nullable=True, index=True)
    digest: str | None = identifier(nullable=True)
    version_number: int | None = Field(sa_column=Column(BigInteger, nullable=True))
    consent_until: datetime | None = moment(nullable=True)
    consent_seen: datetime | None = moment(nullable=True)
    provenance: list[str] | None = Field(sa_column=Column(JSON(none_as_null=True), nullable=True))
    error_reason: str
    error_message: str
    next_sequence: int = _big()
    revision: int = _big()
    create_time: datetime = moment()
    update_time: datetime = moment()
    start_time: datetime | None = moment(nullable=True)
    end_time: datetime | None = moment(nullable=True)
    traceparent: str | None = Field(max_length=55)


class EventRow(Base, table=True):
    """One event of a run; never changed. `blob` is a preview's JPEG file in the vault."""

    __tablename__ = "run_events"
    __table_args__ = (ForeignKeyConstraint(["run"], ["training_runs.id"]),)

    run: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    sequence: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    event_time: datetime = moment()
    kind: str = Field(max_length=16)
    body: dict[str, Any] = _json()
    tenant: str = identifier()
    blob: str | None = identifier(nullable=True, index=True)


class RequestRow(Base, table=True):
    """A mutation that was done, by the `request_id` it came with, and its answer."""

    __tablename__ = "requests"

    tenant: str = identifier(primary_key=True)
    method: str = Field(max_length=40, primary_key=True)
    request_id: str = Field(max_length=36, primary_key=True)
    fingerprint: str = Field(max_length=64)
    answer: str
    done_time: datetime = moment(index=True)


class ErasedConceptRow(Base, table=True):
    """A concept that the Registry has erased; `files` are yet to be removed from the vault."""

    __tablename__ = "erased_concepts"

    tenant: str = identifier(primary_key=True)
    concept_id: str = identifier(primary_key=True)
    tell_time: datetime = moment()
    counts: dict[str, int] = _json()
    files: list[str] = _json()
    confirm_time: datetime | None = moment(nullable=True)


class StaffRow(Base, table=True):
    """How many workers a Trainer has for a base model, told a moment ago."""

    __tablename__ = "staff"

    trainer: str = Field(max_length=36, primary_key=True)
    base_model_id: str = identifier(primary_key=True)
    workers: int
    tell_time: datetime = moment()


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


IMAGE_SETS = table_of(ImageSetRow)
IMAGES = table_of(ImageRow)
RUNS = table_of(RunRow)
EVENTS = table_of(EventRow)
REQUESTS = table_of(RequestRow)
ERASED_CONCEPTS = table_of(ErasedConceptRow)
STAFF = table_of(StaffRow)
AUDIT_EVENTS = table_of(AuditEventRow)
SECRETS = table_of(SecretRow)
