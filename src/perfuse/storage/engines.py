"""Engines: how connections to SQLite and to PostgreSQL are opened and set."""

from __future__ import annotations

import json
import os
import sqlite3
from functools import partial
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from perfuse.errors import InvalidArgument

_decode = json.JSONDecoder().raw_decode


def parse(url: str) -> URL:
    """A URL with the driver that Perfuse takes.

    Raises:
        InvalidArgument: it is of no database that Perfuse works with.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InvalidArgument(
            "the database URL cannot be read. Write sqlite:///path/to/file.db or "
            "postgresql://user:password@host/database"
        ) from None
    if parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed.set(drivername="sqlite+pysqlite")
    raise InvalidArgument(
        f"the database is {parsed.render_as_string()!r}; Perfuse works with a SQLite file "
        "and with PostgreSQL. Write sqlite:///path/to/file.db or "
        "postgresql://user:password@host/database"
    )


def open_engine(url: URL, connections: int, *, hasty: bool = False, **options: Any) -> Engine:
    """A pool of connections; none is made yet.

    Args:
        url: as `parse` gives it.
        connections: most at a time.
        hasty: a commit does not wait for the disk.
        options: of SQLAlchemy's engine.

    Raises:
        InvalidArgument: the driver is not installed.
    """
    pool = {
        "pool_size": connections,
        "max_overflow": 0,
        "pool_timeout": 10,
        # Values of tenants' rows do not belong into the log that an error ends in.
        "hide_parameters": True,
        "json_deserializer": _of_json,
        **options,
    }
    try:
        if url.get_backend_name() == "sqlite":
            file = f"file:{quote(os.path.abspath(url.database or ''))}?mode=rw"
            open_file = partial(sqlite3.connect, file, uri=True, check_same_thread=False)
            engine = create_engine(url, creator=open_file, **pool)
            event.listen(engine, "connect", partial(_prepare_sqlite, hasty=hasty))
            if "isolation_level" not in options:
                event.listen(engine, "begin", _begin_sqlite)
            return engine
        # What a stuck peer may cost: a statement ten seconds, a lock five.
        settings = "-c statement_timeout=10000 -c lock_timeout=5000"
        if hasty:
            settings += " -c synchronous_commit=off"
        # Where psycopg prepares statements it drops all of a connection's, ours too, at a rollback.
        arguments = {"options": settings, "connect_timeout": 5, "prepare_threshold": None}
        return create_engine(url, connect_args=arguments, **pool)
    except NoSuchModuleError as error:
        raise InvalidArgument(f"{error}. pip install 'perfuse[storage]'") from None


def _prepare_sqlite(connection: Any, record: Any, *, hasty: bool) -> None:
    # The driver would begin transactions at moments of its own choosing.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        # What was committed outlives a loss of power; or once a later commit does.
        f"synchronous={'NORMAL' if hasty else 'FULL'}",
        "foreign_keys=ON",
        # What was deleted or changed is not left lying in the file: an erasure promises that.
        "secure_delete=ON",
        "busy_timeout=30000",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that first reads and then writes could find another's write in between.
    driver: Any = connection.connection.dbapi_connection
    try:
        driver.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        connection._handle_dbapi_exception(error, "BEGIN IMMEDIATE", None, None, None)


def _of_json(text: str | bytes) -> Any:
    """What `json.loads` makes of a text that `json.dumps` wrote, in half its time."""
    if isinstance(text, bytes):
        text = text.decode()
    # Most columns of this kind hold no labels.
    return {} if text == "{}" else _decode(text)[0]
