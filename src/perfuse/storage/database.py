"""The SQL database behind the rules: SQLite for one machine, PostgreSQL for many."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Row
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from perfuse.errors import Aborted, FailedPrecondition, Unavailable
from perfuse.storage.engines import open_engine, parse
from perfuse.storage.watching import Watch, timed

Result = TypeVar("Result")
AnyRow = Row[*tuple[Any, ...]]
"""A row of whatever columns a query selects."""

_ATTEMPTS = 6
_log = logging.getLogger(__name__)

# serialization_failure, deadlock_detected, lock_not_available
_LOST_RACES = {"40001", "40P01", "55P03"}


class Database:
    """Connections for reading and for changing.

    Args:
        url: `sqlite:///path/to/file.db` or `postgresql://user:password@host/database`.
        connections: Most at a time for reading, again for changing durably, and again for changing
            otherwise.
        watch: Is told how long each piece of work took, the wait for a connection included.

    Raises:
        InvalidArgument: the URL is of no database that Perfuse works with.
    """

    def __init__(self, url: str, connections: int = 16, *, watch: Watch | None = None) -> None:
        parsed = parse(url)
        self._watch = watch
        self.dialect = parsed.get_backend_name()
        self._file = os.path.abspath(parsed.database or "") if self.dialect == "sqlite" else None
        self._found: tuple[int, int] | None = None
        self._engine = open_engine(parsed, connections)
        # A statement of its own needs no transaction around it, so reads save two round trips;
        # with connections of their own they need not be told so each time.
        self._reading = open_engine(
            parsed, connections, isolation_level="AUTOCOMMIT", pool_reset_on_return=None
        )
        # There a statement of its own needs no transaction around it either.
        alone = {"isolation_level": "AUTOCOMMIT"} if self.dialect == "postgresql" else {}
        self._hasty = open_engine(
            parsed, connections, hasty=True, pool_reset_on_return=None, **alone
        )
        # SQLite has one writer at a time and its waiters poll; a lock lets them queue instead.
        self._writer: contextlib.AbstractContextManager[Any] = (
            threading.Lock() if self.dialect == "sqlite" else contextlib.nullcontext()
        )

    @property
    def engine(self) -> Engine:
        """For migrations."""
        return self._engine

    def read(self, work: Callable[[Connection], Result]) -> Result:
        """Run statements that change nothing, each seeing what was committed before it.

        Raises:
            Unavailable: the database does not answer.
        """
        if self._watch is None:
            return self._read(work)
        with timed(self._watch, "read"):
            return self._read(work)

    def _read(self, work: Callable[[Connection], Result]) -> Result:
        for attempt in range(2):
            try:
                with self._reading.connect() as connection:
                    return work(connection)
            except DBAPIError as error:
                # After a restart of the server every pooled connection is dead, and dropped at
                # the first sign of it.
                if error.connection_invalidated and attempt == 0:
                    self._again("read")
                    continue
                raise _unavailable(error) from error
            except PoolTimeout as error:
                raise _unavailable(error) from error
        raise AssertionError("unreachable")

    def transact(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` in one transaction: all of it, durably, or nothing.

        `work` may run several times, where another transaction was in its way.

        Raises:
            Unavailable: the database does not answer; the change may or may not have been made.
            Aborted: others were in the way every time.
        """
        return self._change("transact", self._engine.begin, work)

    def transact_alone(self, work: Callable[[Connection], Result]) -> Result:
        """Run a change that is one statement, durably; as `transact`, but without the two
        statements around it on PostgreSQL.

        There `work` may also run again where a connection broke, and may have been done then.

        Raises:
            Unavailable, Aborted: as `transact`.
        """
        alone = self.dialect == "postgresql"
        return self._change(
            "transact", self._reading.connect if alone else self._engine.begin, work
        )

    def hasten(self, work: Callable[[Connection], Result]) -> Result:
        """Run a change that need not outlast a loss of power before a later one does.

        It saves the wait for the disk. It is durable as soon as a later transaction is, so that
        what is kept is never without what came before it. On PostgreSQL `work` must be one
        statement, which saves the two that would be around it, and which may be done twice where a
        connection breaks; on SQLite it is one transaction.

        Raises:
            Unavailable, Aborted: as `transact`.
        """
        alone = self.dialect == "postgresql"
        begin = self._hasty.connect if alone else self._hasty.begin
        return self._change("hasten", begin, work)

    def _change(
        self,
        kind: str,
        begin: Callable[[], contextlib.AbstractContextManager[Connection]],
        work: Callable[[Connection], Result],
    ) -> Result:
        if self._watch is None:
            return self._try(kind, begin, work)
        with timed(self._watch, kind):
            return self._try(kind, begin, work)

    def _try(
        self,
        kind: str,
        begin: Callable[[], contextlib.AbstractContextManager[Connection]],
        work: Callable[[Connection], Result],
    ) -> Result:
        for attempt in range(_ATTEMPTS):
            worked = False
            try:
                with self._writer, begin() as connection:
                    result = work(connection)
                    worked = True
            except IntegrityError as error:
                # Two that insert the same row: the second looks again, and finds the first's.
                cause: DBAPIError = error
            except DBAPIError as error:
                if error.connection_invalidated and not worked and attempt == 0:
                    self._again(kind)
                    continue  # As in `read`; nothing can have been committed.
                if getattr(error.orig, "sqlstate", None) not in _LOST_RACES:
                    raise _unavailable(error) from error
                cause = error
            except PoolTimeout as error:
                raise _unavailable(error) from error
            else:
                return result
            self._again(kind)
            _log.info("transaction lost a race: %s", type(cause.orig).__name__)
            time.sleep(random.uniform(0.0, 0.01 * 2**attempt))
        raise Aborted(
            f"the change met others in its way {_ATTEMPTS} times. Read again and repeat it"
        )

    def _again(self, kind: str) -> None:
        if self._watch is not None:
            self._watch.again(kind)

    def check(self) -> None:
        """Prove that the database answers.

        Raises:
            Unavailable: it does not.
        """
        if self._file is not None:
            self._look_for(self._file)
        self.read(lambda connection: connection.exec_driver_sql("SELECT 1"))

    def _look_for(self, file: str) -> None:
        """SQLite goes on with a file that was moved or replaced, and what it writes is lost."""
        try:
            status = os.stat(file)
        except OSError as error:
            raise _unavailable(error) from error
        found = status.st_dev, status.st_ino
        if self._found not in (None, found):
            raise Unavailable(
                "the database's file was replaced by another while it was open. Restart the server"
            )
        self._found = found

    def is_made(self) -> bool:
        """Whether there is a database at all; SQLite's file may be yet to come."""
        return self._file is None or os.path.exists(self._file)

    def make(self) -> None:
        """Make SQLite's file if it is not there; connecting never does, so that one that went
        away is not mistaken for a new one.

        Raises:
            FailedPrecondition: it cannot be made.
        """
        try:
            if not self.is_made():
                open(self._file or "", "ab").close()
        except OSError as error:
            raise FailedPrecondition(
                f"the database's file {self._file} cannot be made ({error.strerror}). Choose "
                "another place, or make its folder"
            ) from None

    def forget_deleted(self) -> None:
        """Have nothing of what was deleted stay in SQLite's log, unless a reader holds it up.

        PostgreSQL does so by its own means, which are the operator's: see operating.md.
        """
        if self.engine.dialect.name != "sqlite":
            return
        # Not in a transaction, which SQLAlchemy's own connections would begin.
        connection = self.engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            raise _unavailable(error) from error
        finally:
            connection.close()

    def close(self) -> None:
        """Close every connection."""
        for engine in (self._engine, self._reading, self._hasty):
            engine.dispose()


def _unavailable(error: Exception) -> Unavailable:
    _log.error("the database failed: %s", type(getattr(error, "orig", error)).__name__)
    refusal = Unavailable("the database does not answer. Repeat the call with the same request_id")
    refusal.retry_after = 1.0
    return refusal
