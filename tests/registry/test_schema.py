"""The database's revisions: up, down and up again, and nothing served on another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Column, text
from storage.databases import database_url, dialect  # noqa: F401
from storage.schemas import differences, tables

from perfuse.errors import FailedPrecondition, InvalidArgument, Unavailable, WrongRevision
from perfuse.storage.blobs_directory import DirectoryBlobs
from perfuse.storage.database import Database
from perfuse_registry.registry import Registry
from perfuse_registry.schema import SCHEMA, page_token_key
from perfuse_registry.tables import Base
from registry.served import migrate

REVISIONS = [entry.revision for entry in ScriptDirectory(SCHEMA._migrations).walk_revisions()][::-1]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:  # noqa: F811
    made = Database(database_url)
    made.make()
    yield made
    made.close()


def execute(database: Database, statement: str) -> None:
    database.transact(lambda connection: connection.execute(text(statement)) and None)


class TestMigrations:
    def test_they_make_the_tables_of_this_release(self, database: Database) -> None:
        assert SCHEMA.current_revision(database) is None
        SCHEMA.migrate(database)
        assert SCHEMA.current_revision(database) == SCHEMA.latest_revision == REVISIONS[-1]
        assert differences(database, Base.metadata) == []
        assert tables(database) == set(Base.metadata.tables) | {"alembic_version"}

    def test_a_difference_would_be_seen(self, database: Database) -> None:
        SCHEMA.migrate(database)
        execute(database, "ALTER TABLE concepts ADD COLUMN colour INTEGER")
        execute(database, "DROP INDEX ix_versions_tenant_digest")
        assert len(differences(database, Base.metadata)) == 2  # type: ignore[arg-type]

    def test_text_that_lists_go_by_sorts_by_its_bytes(self, database: Database) -> None:
        """The comparison above does not look at collations."""
        SCHEMA.migrate(database)
        if database.dialect != "postgresql":
            return  # SQLite has no other order.
        query = text("SELECT table_name, column_name FROM information_schema.columns "
                     "WHERE table_schema = 'public' AND collation_name = 'C'")  # fmt: skip
        found = {tuple(row) for row in database.read(lambda c: c.execute(query).all())}
        assert found == {
            (table.name, column.name)
            for table in Base.metadata.tables.values()
            for column in table.columns
            if _collation(column, database) == "C"
        }
        assert ("concepts", "concept_id") in found

    def test_each_goes_down_and_up_again(self, database: Database) -> None:
        for revision in REVISIONS:
            SCHEMA.migrate(database, revision)
            assert SCHEMA.current_revision(database) == revision
        assert differences(database, Base.metadata) == []
        for revision in reversed(["base", *REVISIONS[:-1]]):
            SCHEMA.migrate(database, revision)
            assert SCHEMA.current_revision(database) == (None if revision == "base" else revision)
        assert tables(database) == {"alembic_version"}
        SCHEMA.migrate(database)
        assert differences(database, Base.metadata) == []

    def test_again_changes_nothing(self, database: Database) -> None:
        SCHEMA.migrate(database)
        page_token_key(database)
        before = page_token_key(database)
        for revision in ("head", REVISIONS[-1]):
            SCHEMA.migrate(database, revision)
        assert page_token_key(database) == before

    def test_many_at_once_are_as_one(self, database_url: str) -> None:  # noqa: F811
        """As when replicas start together, each with --migrate."""
        faults: list[BaseException] = []

        def run() -> None:
            try:
                migrate(database_url)
            except BaseException as fault:
                faults.append(fault)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert faults == []

    def test_one_that_fails_leaves_nothing(self, database: Database) -> None:
        execute(database, "CREATE TABLE secrets (name INTEGER)")  # in the way of the last table
        with pytest.raises(FailedPrecondition, match=r"as before.*secrets"):
            SCHEMA.migrate(database)
        assert tables(database) <= {"secrets", "alembic_version"}
        assert SCHEMA.current_revision(database) is None
        execute(database, "DROP TABLE secrets")
        SCHEMA.migrate(database)
        assert differences(database, Base.metadata) == []

    @pytest.mark.parametrize("revision", ["", "nonsense", "heads", "+1", "0001:0002", "x" * 200])
    def test_what_is_no_revision_is_refused(self, database: Database, revision: str) -> None:
        with pytest.raises(InvalidArgument, match="is no revision of this release"):
            SCHEMA.migrate(database, revision)
        assert tables(database) == set()

    def test_a_newer_releases_database_is_left_alone(self, database: Database) -> None:
        SCHEMA.migrate(database)
        execute(database, "UPDATE alembic_version SET version_num = '9999'")
        for revision in ("head", "base", REVISIONS[0]):
            with pytest.raises(WrongRevision, match="9999"):
                SCHEMA.migrate(database, revision)
        assert differences(database, Base.metadata) == []


def _collation(column: Column[object], database: Database) -> str | None:
    kind = column.type.dialect_impl(database.engine.dialect)
    return getattr(kind, "collation", None)


class TestServing:
    """A Registry is made on its own revision alone, and is ready on no other."""

    @pytest.fixture
    def open_registry(
        self, database: Database, tmp_path_factory: pytest.TempPathFactory
    ) -> Callable[[], Registry]:
        blobs = DirectoryBlobs(tmp_path_factory.mktemp("store"))
        return lambda: Registry(database, blobs)

    def test_not_on_an_empty_database(self, open_registry: Callable[[], Registry]) -> None:
        with pytest.raises(WrongRevision, match=r"revision none.*`perfuse-registry migrate`"):
            open_registry()

    def test_not_on_another_revision(
        self, database: Database, open_registry: Callable[[], Registry]
    ) -> None:
        SCHEMA.migrate(database)
        registry = open_registry()
        registry.check()
        execute(database, "UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(WrongRevision, match=f"revision 9999.*{REVISIONS[-1]}"):
            registry.check()
        with pytest.raises(WrongRevision):
            open_registry()
        execute(database, f"UPDATE alembic_version SET version_num = '{REVISIONS[-1]}'")
        registry.check()

    def test_replicas_sign_page_tokens_with_one_key(
        self,
        database: Database,
        database_url: str,  # noqa: F811
    ) -> None:
        SCHEMA.migrate(database)
        other = Database(database_url)
        keys: list[bytes] = []
        threads = [
            threading.Thread(target=lambda source: keys.append(page_token_key(source)),
                             args=(source,))
            for source in (database, other) * 3
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        other.close()
        assert len(keys) == 6
        assert len(set(keys)) == 1


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mysql://u:canary@h/d", "oracle://h"],
)
def test_what_is_no_database_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Database(url)
    assert "canary" not in str(caught.value)


def test_a_file_comes_with_the_first_migration_alone(tmp_path: Path) -> None:
    """A file that went away is not mistaken for a new one."""
    file = tmp_path / "regis try#1?.db"
    database = Database(f"sqlite:///{quote(str(file))}")
    assert SCHEMA.current_revision(database) is None
    with pytest.raises(WrongRevision, match="revision none"):
        SCHEMA.require_revision(database)
    with pytest.raises(Unavailable):
        database.read(lambda connection: connection.execute(text("SELECT 1")))
    assert not list(tmp_path.iterdir())
    SCHEMA.migrate(database)
    SCHEMA.require_revision(database)
    database.close()
    assert [entry.name for entry in tmp_path.iterdir()] == [file.name]


def test_a_file_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/missing/registry.db")
    with pytest.raises(FailedPrecondition, match=r"missing/registry\.db cannot be made"):
        SCHEMA.migrate(database)
