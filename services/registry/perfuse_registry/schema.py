"""The database's revision: brought up to date by a command of its own, required by the server."""

from __future__ import annotations

import secrets
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, select

from perfuse.errors import WrongRevision
from perfuse_registry.database import Database
from perfuse_registry.tables import SECRETS

_MIGRATIONS = Path(__file__).with_name("migrations")
_PAGE_TOKEN_KEY = "page_token_key"


def latest_revision() -> str:
    """The revision that this release works with."""
    head = ScriptDirectory(str(_MIGRATIONS)).get_current_head()
    if head is None:
        raise WrongRevision("this installation has no migrations. Install it again")
    return head


def current_revision(database: Database) -> str | None:
    """The revision that the database is at; None for an empty one."""
    return database.read(
        lambda connection: MigrationContext.configure(connection).get_current_revision()
    )


def migrate(database: Database, revision: str = "head") -> None:
    """Bring the database to `revision`, from any earlier or later one, in one transaction."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with database.engine.begin() as connection:
        config.attributes["connection"] = connection
        down = revision == "base" or _is_before(revision, database)
        (command.downgrade if down else command.upgrade)(config, revision)


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


def _is_before(revision: str, database: Database) -> bool:
    current = current_revision(database)
    if revision == "head" or current is None or current == revision:
        return False
    script = ScriptDirectory(str(_MIGRATIONS))
    return any(entry.revision == revision for entry in script.iterate_revisions(current, "base"))
