"""The database's revision: brought up to date by a command of its own, required by the server."""

from __future__ import annotations

import secrets
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import DBAPIError

from perfuse.errors import FailedPrecondition, InvalidArgument, WrongRevision
from perfuse_registry.database import Database
from perfuse_registry.tables import SECRETS

_MIGRATIONS = Path(__file__).with_name("migrations")
_PAGE_TOKEN_KEY = "page_token_key"


@cache
def latest_revision() -> str:
    """The revision that this release works with."""
    head = ScriptDirectory(str(_MIGRATIONS)).get_current_head()
    if head is None:
        raise WrongRevision("this installation has no migrations. Install it again")
    return head


def current_revision(database: Database) -> str | None:
    """The revision that the database is at; None for an empty one, or one yet to be made."""
    if not database.is_made():
        return None
    return database.read(
        lambda connection: MigrationContext.configure(connection).get_current_revision()
    )


def migrate(database: Database, revision: str = "head") -> None:
    """Bring the database, made if need be, from any revision to `revision` in one transaction.

    Raises:
        InvalidArgument: there is no such revision.
        WrongRevision: the database is at one that this release does not know.
        FailedPrecondition: the database did not do it; it is as before.
    """
    script = ScriptDirectory(str(_MIGRATIONS))
    known = [entry.revision for entry in script.walk_revisions()]
    if revision not in ("head", "base", *known):
        raise InvalidArgument(
            f"{revision[:80]!r} is no revision of this release; it has {', '.join(known)}. Give "
            "one of them, `head` or `base`"
        )
    database.make()
    try:
        with database.engine.begin() as connection:
            _lock(connection)
            _migrate(connection, revision, known)
    except DBAPIError as error:
        raise FailedPrecondition(
            f"the database could not be migrated, and is as before: {error.orig}. Mend that, then "
            "migrate again"
        ) from error


def _migrate(connection: Connection, revision: str, known: list[str]) -> None:
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        raise WrongRevision(
            f"the database is at revision {current}, which this release does not know. Migrate "
            "with the release that made it"
        )
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    # Newest first: what stands behind the current one is earlier.
    earlier = known[known.index(current) + 1 :] if current is not None else []
    down = revision == "base" or revision in earlier
    (command.downgrade if down else command.upgrade)(config, revision)


def _lock(connection: Connection) -> None:
    """Let those who migrate at once do so one after the other; SQLite does so by itself."""
    if connection.dialect.name == "postgresql":
        # To alter a large table takes longer than any call may.
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql("SET LOCAL lock_timeout = '60s'")
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('perfuse.migrate'))")


def require_revision(database: Database) -> None:
    """Refuse to work on a database of another revision than this release's.

    Raises:
        WrongRevision: it is older, newer or empty; the message says which command mends it.
    """
    found, wanted = current_revision(database), latest_revision()
    if found != wanted:
        raise WrongRevision(
            f"the database is at revision {found or 'none'}, this release works with {wanted}. "
            "Run `perfuse-registry migrate` with this release, or start the release that fits"
        )


def page_token_key(database: Database) -> bytes:
    """The key that signs page tokens, the same for all replicas; made at first use."""
    chosen = select(SECRETS.c.value).where(SECRETS.c.name == _PAGE_TOKEN_KEY)
    found = database.read(lambda connection: connection.execute(chosen).scalar())
    if found is None:
        found = database.transact(
            lambda connection: (
                connection.execute(chosen).scalar()
                or connection.execute(
                    insert(SECRETS)
                    .values(name=_PAGE_TOKEN_KEY, value=secrets.token_hex(32))
                    .returning(SECRETS.c.value)
                ).scalar_one()
            )
        )
    return bytes.fromhex(found)
