"""The database's revision: brought up to date by a command of its own, required by the server."""

from __future__ import annotations

import logging
import secrets
from functools import cached_property
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Table, insert, select
from sqlalchemy.exc import DBAPIError

from perfuse.errors import FailedPrecondition, InvalidArgument, WrongRevision
from perfuse.storage.database import Database

# It tells of every look at the revision, and readiness looks every few seconds.
logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)


class Schema:
    """The tables of one service.

    Args:
        migrations: Alembic's folder.
        command: That migrates, for messages.
    """

    def __init__(self, migrations: Path, command: str) -> None:
        self._migrations = str(migrations)
        self._command = command

    @cached_property
    def latest_revision(self) -> str:
        """The revision that this release works with."""
        head = ScriptDirectory(self._migrations).get_current_head()
        if head is None:
            raise WrongRevision("this installation has no migrations. Install it again")
        return head

    def current_revision(self, database: Database) -> str | None:
        """The revision that the database is at; None for an empty one, or one yet to be made."""
        if not database.is_made():
            return None
        return database.read(
            lambda connection: MigrationContext.configure(connection).get_current_revision()
        )

    def migrate(self, database: Database, revision: str = "head") -> None:
        """Bring the database, made if need be, from any revision to `revision` in one transaction.

        Raises:
            InvalidArgument: there is no such revision.
            WrongRevision: the database is at one that this release does not know.
            FailedPrecondition: the database did not do it; it is as before.
        """
        script = ScriptDirectory(self._migrations)
        known = [entry.revision for entry in script.walk_revisions()]
        if revision not in ("head", "base", *known):
            raise InvalidArgument(
                f"{revision[:80]!r} is no revision of this release; it has {', '.join(known)}. "
                "Give one of them, `head` or `base`"
            )
        database.make()
        try:
            with database.engine.begin() as connection:
                _lock(connection)
                self._move(connection, revision, known)
        except DBAPIError as error:
            raise FailedPrecondition(
                f"the database could not be migrated, and is as before: {error.orig}. Mend that, "
                "then migrate again"
            ) from error

    def require_revision(self, database: Database) -> None:
        """Refuse to work on a database of another revision than this release's.

        Raises:
            WrongRevision: it is older, newer or empty; the message says which command mends it.
        """
        found, wanted = self.current_revision(database), self.latest_revision
        if found != wanted:
            raise WrongRevision(
                f"the database is at revision {found or 'none'}, this release works with {wanted}. "
                f"Run `{self._command}` with this release, or start the release that fits"
            )

    def _move(self, connection: Connection, revision: str, known: list[str]) -> None:
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in known:
            raise WrongRevision(
                f"the database is at revision {current}, which this release does not know. "
                "Migrate with the release that made it"
            )
        config = Config()
        config.set_main_option("script_location", self._migrations)
        config.attributes["connection"] = connection
        # Newest first: what stands behind the current one is earlier.
        earlier = known[known.index(current) + 1 :] if current is not None else []
        down = revision == "base" or revision in earlier
        (command.downgrade if down else command.upgrade)(config, revision)


def shared_key(database: Database, table: Table, name: str) -> bytes:
    """A key that all replicas of an installation share, made at first use.

    Args:
        database: of the installation.
        table: of secrets, with columns name and value.
        name: of the key.
    """
    chosen = select(table.c.value).where(table.c.name == name)
    found = database.read(lambda connection: connection.execute(chosen).scalar())
    if found is None:
        found = database.transact(
            lambda connection: (
                connection.execute(chosen).scalar()
                or connection.execute(
                    insert(table)
                    .values(name=name, value=secrets.token_hex(32))
                    .returning(table.c.value)
                ).scalar_one()
            )
        )
    return bytes.fromhex(found)


def _lock(connection: Connection) -> None:
    """Let those who migrate at once do so one after the other; SQLite does so by itself."""
    if connection.dialect.name == "postgresql":
        # To alter a large table takes longer than any call may.
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql("SET LOCAL lock_timeout = '60s'")
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('perfuse.migrate'))")
