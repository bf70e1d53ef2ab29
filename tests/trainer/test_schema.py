"""The Trainer's revisions: they make the tables of this release, and go down and up again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from storage.databases import database_url, dialect  # noqa: F401
from storage.schemas import differences, tables

from perfuse.storage.database import Database
from perfuse_trainer.schema import SCHEMA
from perfuse_trainer.tables import Base


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:  # noqa: F811
    made = Database(database_url)
    made.make()
    yield made
    made.close()


def test_they_make_the_tables_of_this_release_and_go_down_and_up_again(database: Database) -> None:
    SCHEMA.migrate(database)
    assert differences(database, Base.metadata) == []
    assert tables(database) == set(Base.metadata.tables) | {"alembic_version"}
    SCHEMA.migrate(database, "base")
    assert tables(database) == {"alembic_version"}
    SCHEMA.migrate(database)
    assert differences(database, Base.metadata) == []
