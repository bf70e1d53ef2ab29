"""What is left of erased concepts, and what is yet to be removed of them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKeyConstraint,
    UniqueConstraint,
    false,
)
from sqlmodel import Field

from perfuse.storage.columns import identifier, key, moment, table_of
from perfuse_registry.table_base import Base


class ErasureRow(Base, table=True):
    """What is left of an erased concept; `trainer` is what the Trainer said that it removed."""

    __tablename__ = "erasures"
    __table_args__ = (UniqueConstraint("tenant", "concept_id"),)

    id: int = key()
    tenant: str = identifier()
    concept_id: str = identifier()
    uid: str = Field(max_length=36)
    eraser: str
    erase_time: datetime = moment()
    version_count: int
    alias_count: int
    grant_count: int
    consent_count: int
    settle_time: datetime | None = moment(nullable=True, index=True)
    trainer: dict[str, int] | None = Field(sa_column=Column(JSON(none_as_null=True), nullable=True))
    trainer_time: datetime | None = moment(nullable=True, index=True)


class ErasedAdapterRow(Base, table=True):
    """A file of an erased concept: yet to be removed, removed, or kept for others."""

    __tablename__ = "erased_adapters"
    __table_args__ = (ForeignKeyConstraint(["erasure"], ["erasures.id"]),)

    erasure: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    digest: str = identifier(primary_key=True)
    size_bytes: int = Field(sa_column=Column(BigInteger, nullable=False))
    state: str = Field(max_length=16)
    holder_count: int
    preview: bool = Field(sa_column=Column(Boolean, nullable=False, server_default=false()))


ERASURES = table_of(ErasureRow)
ERASED_ADAPTERS = table_of(ErasedAdapterRow)
