"""Columns that tables of every service are made of, alike on SQLite and PostgreSQL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Integer, String, Table
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


def key() -> Any:
    """A row's own number."""
    # SQLite counts up only a key that is a plain INTEGER.
    wide = BigInteger().with_variant(Integer, "sqlite")
    return Field(default=None, sa_column=Column(wide, primary_key=True, autoincrement=True))


def identifier(*, nullable: bool = False, **options: Any) -> Any:
    """An id or a digest."""
    # They compare by their bytes on every database, so that an index serves a list.
    kind = String(71).with_variant(String(71, collation="C"), "postgresql")
    return Field(sa_column=Column(kind, nullable=nullable, **options))


def moment(*, nullable: bool = False, index: bool = False) -> Any:
    """A moment; see `Moment`."""
    return Field(sa_column=Column(Moment, nullable=nullable, index=index))


def table_of(row: type[SQLModel]) -> Table:
    """What rules query: SQLModel's classes have values' types where a query needs columns."""
    table: Table = row.__table__  # type: ignore[attr-defined]
    return table
