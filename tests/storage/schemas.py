"""A database as its migrations left it, held against the tables of a release."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, inspect

from perfuse.storage.database import Database


def differences(database: Database, metadata: MetaData) -> object:
    """Between the database and these tables."""

    def compare(connection: Connection) -> object:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, metadata)

    return database.read(compare)


def tables(database: Database) -> set[str]:
    """Names of its tables."""
    return set(database.read(lambda connection: inspect(connection).get_table_names()))
