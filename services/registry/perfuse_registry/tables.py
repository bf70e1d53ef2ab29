"""The Registry's tables, alike on SQLite and PostgreSQL.

Numbers of versions come from `concepts.next_number`, changed in the transaction that inserts the
version. Adapters lie in the blob store; a row in `blobs` stands before the bytes are put there and
goes only after they are removed, so no bytes are ever without a row to find them by.
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
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)
from sqlmodel import Field, SQLModel

from perfuse.storage.moments import Moment

# Named, so that a migration can find each constraint on either database.
CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(SQLModel):
    """What all tables share."""

    metadata = MetaData(naming_convention=CONVENTION)


def _key() -> Any:
    # SQLite counts up only a key that is a plain INTEGER.
    wide = BigInteger().with_variant(Integer, "sqlite")
    return Field(default=None, sa_column=Column(wide, primary_key=True, autoincrement=True))


def _id(**options: Any) -> Any:
    # Ids and digests compare by their bytes on every database, so that an index serves a list.
    kind = String(71).with_variant(String(71, collation="C"), "postgresql")
    return Field(sa_column=Column(kind, nullable=False, **options))


def _moment(*, nullable: bool = False, index: bool = False) -> Any:
    return Field(sa_column=Column(Moment, nullable=nullable, index=index))


class ConceptRow(Base, table=True):
    """One concept of one tenant."""

    __tablename__ = "concepts"
    __table_args__ = (
        UniqueConstraint("tenant", "concept_id"),
        # The default order of a tenant's list, and the purge.
        Index(None, "tenant", "create_time"),
    )

    id: int = _key()
    tenant: str = _id()
    concept_id: str = _id()
    uid: str = Field(max_length=36)
    display_name: str
    super_category: str
    description: str
    labels: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    next_number: int = Field(sa_column=Column(BigInteger, nullable=False))
    latest_number: int | None = Field(sa_column=Column(BigInteger, nullable=True))
    revision: int
    create_time: datetime = _moment()
    update_time: datetime = _moment()
    delete_time: datetime | None = _moment(nullable=True)
    purge_time: datetime | None = _moment(nullable=True, index=True)


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

    id: int = _key()
    concept: int = Field(sa_column=Column(BigInteger, nullable=False))
    number: int = Field(sa_column=Column(BigInteger, nullable=False))
    tenant: str = _id()
    digest: str = _id()
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
    revision: int
    create_time: datetime = _moment()
    update_time: datetime = _moment()


class AliasRow(Base, table=True):
    """One alias of a concept; the foreign key keeps it from pointing at nothing."""

    __tablename__ = "aliases"
    __table_args__ = (
        UniqueConstraint("concept", "alias_id"),
        ForeignKeyConstraint(["concept", "number"], ["versions.concept", "versions.number"]),
        Index(None, "concept", "number"),
    )

    id: int = _key()
    concept: int = Field(sa_column=Column(BigInteger, nullable=False))
    alias_id: str = _id()
    number: int = Field(sa_column=Column(BigInteger, nullable=False))
    uid: str = Field(max_length=36)
    revision: int
    create_time: datetime = _moment()
    update_time: datetime = _moment()


class AliasMoveRow(Base, table=True):
    """One line of an alias's history."""

    __tablename__ = "alias_moves"
    __table_args__ = (
        ForeignKeyConstraint(["concept"], ["concepts.id"]),
        Index(None, "concept", "alias_id", "id"),
    )

    id: int = _key()
    concept: int = Field(sa_column=Column(BigInteger, nullable=False))
    alias_id: str = _id()
    from_number: int | None = Field(sa_column=Column(BigInteger, nullable=True))
    to_number: int | None = Field(sa_column=Column(BigInteger, nullable=True))
    mover: str
    move_time: datetime = _moment()


class BaseModelRow(Base, table=True):
    """One base model, the same for all tenants."""

    __tablename__ = "base_models"
    __table_args__ = (UniqueConstraint("base_model_id"), UniqueConstraint("fingerprint"))

    id: int = _key()
    base_model_id: str = _id()
    uid: str = Field(max_length=36)
    display_name: str
    fingerprint: str = _id()
    architecture: str
    conditioning_width: int
    layers: list[Any] = Field(sa_column=Column(JSON, nullable=False))
    encoders: list[Any] = Field(sa_column=Column(JSON, nullable=False))
    covariance_digest: str
    labels: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    revision: int
    create_time: datetime = _moment()
    update_time: datetime = _moment()


class BlobRow(Base, table=True):
    """One tenant's bytes in the blob store, or about to be there."""

    __tablename__ = "blobs"

    tenant: str = _id(primary_key=True)
    digest: str = _id(primary_key=True)
    size_bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    touch_time: datetime = _moment()
    condemn_time: datetime | None = _moment(nullable=True, index=True)


class LeaseRow(Base, table=True):
    """An upload under way: keeps its blob from being collected until it expires."""

    __tablename__ = "blob_leases"
    __table_args__ = (
        ForeignKeyConstraint(["tenant", "digest"], ["blobs.tenant", "blobs.digest"]),
        Index(None, "tenant", "digest"),
    )

    id: str = Field(max_length=36, primary_key=True)
    tenant: str = _id()
    digest: str = _id()
    expire_time: datetime = _moment(index=True)


class RequestRow(Base, table=True):
    """A mutation that was done, by the `request_id` it came with, and its answer."""

    __tablename__ = "requests"

    tenant: str = _id(primary_key=True)
    method: str = Field(max_length=40, primary_key=True)
    request_id: str = Field(max_length=36, primary_key=True)
    fingerprint: str = Field(max_length=64)
    answer: str
    done_time: datetime = _moment(index=True)


class SecretRow(Base, table=True):
    """A secret that all replicas of one installation share."""

    __tablename__ = "secrets"

    name: str = Field(max_length=63, primary_key=True)
    value: str


def _table(row: type[Base]) -> Table:
    table: Table = row.__table__  # type: ignore[attr-defined]
    return table


# What the rules query: SQLModel's classes have values' types where a query needs columns.
CONCEPTS = _table(ConceptRow)
VERSIONS = _table(VersionRow)
ALIASES = _table(AliasRow)
ALIAS_MOVES = _table(AliasMoveRow)
BASE_MODELS = _table(BaseModelRow)
BLOBS = _table(BlobRow)
LEASES = _table(LeaseRow)
REQUESTS = _table(RequestRow)
SECRETS = _table(SecretRow)
