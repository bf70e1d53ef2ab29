"""The Trainer's revisions: they make the tables of this release, and go down and up again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect
from storage.databases import database_url, dialect  # noqa: F401

from perfuse.storage.database import Database
from perfuse_trainer.schema import SCHEMA
from perfuse_trainer.tables import Base


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:  # noqa: F811
    made = Database(database_url)
    made.make()
    yield made
    made.close()


def differences(database: Database) -> object:
    """Between the database and the tables of this release."""

    def compare(connection: Connection) -> object:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, Base.metadata)

    return database.read(compare)


def tables(database: Database) -> set[str]:
    return set(database.read(lambda connection: inspect(connection).get_table_names()))


def test_they_make_the_tables_of_this_release_and_go_down_and_up_again(database: Database) -> None:
    SCHEMA.migrate(database)
    assert differences(database) == []
    assert tables(database) == set(Base.metadata.tables) | {"alembic_version"}
    SCHEMA.migrate(database, "base")
    assert tables(database) == {"alembic_version"}
    SCHEMA.migrate(database)
    assert differences(database) == []
