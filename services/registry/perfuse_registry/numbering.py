"""Numbers of versions after a restore: those that were given and lost must not be given again."""

from __future__ import annotations

from sqlalchemy import Connection, update

from perfuse.errors import InvalidArgument
from perfuse.storage.database import Database
from perfuse_registry.tables import CONCEPTS

MOST = 1_000_000_000


def skip_numbers(database: Database, count: int) -> int:
    """Have every concept's next version numbered so much higher.

    What was made after a backup is lost with a restore, but its numbers were told: somebody may
    have written `tom@7` down, and must not get another `tom@7`.

    Args:
        database: With the Registry's tables.
        count: More than any concept got versions since the backup.

    Returns:
        How many concepts there are.

    Raises:
        InvalidArgument: not within 1 to `MOST`.
        Unavailable: the database does not answer.
    """
    if not 1 <= count <= MOST:
        raise InvalidArgument(f"{count} is not within 1 to {MOST}; give how many to skip")

    def work(connection: Connection) -> int:
        if connection.dialect.name == "postgresql":
            # All concepts of an installation take longer than any call may.
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        every = update(CONCEPTS).values(next_number=CONCEPTS.c.next_number + count)
        return connection.execute(every).rowcount

    return database.transact(work)
