"""Prepared statements give what SQLAlchemy gives, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    bindparam,
    delete,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from perfuse.errors import Aborted, Unavailable
from perfuse.storage.database import Database
from perfuse.storage.moments import Moment
from perfuse.storage.prepared import Prepared
from storage.databases import fresh_database

THINGS = Table(
    "things",
    MetaData(),
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("name", String(71), nullable=False),
    Column("count", BigInteger),
    Column("weight", Float),
    Column("labels", JSON),
    Column("time", Moment),
    UniqueConstraint("name"),
)
COLUMNS = ("name", "count", "weight", "labels", "time")
INSERT = Prepared(insert(THINGS).inline(), COLUMNS)
NAMED_ = select(THINGS).where(THINGS.c.name == bindparam("wanted"))
NAMED = Prepared(NAMED_)
FIRST_TWO = Prepared(select(THINGS.c.name, THINGS.c.time).order_by(THINGS.c.name).limit(2))
COUNT_UP = Prepared(
    update(THINGS)
    .where(THINGS.c.name == bindparam("wanted"))
    .values(count=THINGS.c.count + bindparam("step"))
    .returning(THINGS.c.count)
)
DROP = Prepared(delete(THINGS).where(THINGS.c.time < bindparam("before")))
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


@pytest.fixture(params=("sqlite", "postgresql"), scope="module")
def database(
    request: pytest.FixtureRequest,
) -> Iterator[Database]:
    with fresh_database(request.param) as url, closing(Database(url)) as made:
        made.make()
        THINGS.create(made.engine)
        yield made


@pytest.fixture(autouse=True)
def empty(database: Database) -> None:
    database.transact(lambda connection: connection.execute(delete(THINGS)))


def thing(name: str = "tom", **values: Any) -> dict[str, Any]:
    return {"name": name, "count": 1, "weight": 0.5, "labels": {}, "time": MOMENT, **values}


LABELS = st.dictionaries(st.text(st.characters(exclude_characters="\0"), max_size=5), st.text("ab"))


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20),
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    LABELS,
    st.none() | st.datetimes(datetime(1900, 1, 1), timezones=st.just(UTC)),
)
def test_what_is_put_in_comes_out_as_from_sqlalchemy(
    database: Database, name: str, count: Any, weight: Any, labels: Any, time: Any
) -> None:
    row = {"name": name, "count": count, "weight": weight, "labels": labels, "time": time}

    def work(connection: Any) -> None:
        connection.execute(delete(THINGS))
        assert INSERT.run(connection, **row) == 1
        found = NAMED.first(connection, wanted=name)
        usual = connection.execute(NAMED_, {"wanted": name}).one()
        assert tuple(found) == tuple(usual)
        assert {key: getattr(found, key) for key in COLUMNS} == row

    database.transact(work)


def test_rows_returned_are_those_changed(database: Database) -> None:
    def work(connection: Any) -> None:
        INSERT.run(connection, **thing("tom"))
        INSERT.run(connection, **thing("tim"))
        assert [row.count for row in COUNT_UP.all(connection, wanted="tom", step=4)] == [5]
        assert COUNT_UP.first(connection, wanted="nobody", step=4) is None
        assert NAMED.first(connection, wanted="tim").count == 1
        assert DROP.run(connection, before=MOMENT) == 0
        assert DROP.run(connection, before=MOMENT + timedelta(microseconds=1)) == 2
        assert NAMED.all(connection, wanted="tom") == []

    database.transact(work)


def test_a_value_in_the_statement_itself_is_kept(database: Database) -> None:
    for name in ("c", "b", "a"):
        database.transact(lambda connection, name=name: INSERT.run(connection, **thing(name)))
    assert database.read(FIRST_TWO.all) == [("a", MOMENT), ("b", MOMENT)]


def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    def work(connection: Any) -> None:
        INSERT.run(connection, **thing())
        raise LookupError

    with pytest.raises(LookupError):
        database.transact(work)
    assert database.read(lambda connection: NAMED.first(connection, wanted="tom")) is None


def test_faults_are_those_of_sqlalchemy_and_tell_no_values(database: Database) -> None:
    def work(connection: Any) -> None:
        INSERT.run(connection, **thing("canary-4711"))
        INSERT.run(connection, **thing("canary-4711"))

    with pytest.raises(Aborted):
        database.transact(work)
    with pytest.raises(IntegrityError) as raised, database.engine.begin() as connection:
        work(connection)
    # The driver's own words may hold values; what we add to them does not.
    assert "parameters hidden" in str(raised.value)


def test_a_statement_of_a_table_that_is_gone_is_refused(database: Database) -> None:
    gone = Table("gone", MetaData(), Column("id", Integer, primary_key=True))
    missing = Prepared(select(gone))
    with pytest.raises(Unavailable) as caught:
        database.read(missing.all)
    assert isinstance(caught.value.__cause__, DBAPIError)
    # The connection is as good as before.
    assert database.read(FIRST_TWO.all) == []


def test_a_percent_sign_is_one(database: Database) -> None:
    threes = Prepared(select(THINGS.c.name).where(THINGS.c.count % 5 == 3))
    for name, count in (("tom", 13), ("tim", 12)):
        row = thing(name, count=count)
        database.transact(lambda connection, row=row: INSERT.run(connection, **row))
    assert database.read(threes.all) == [("tom",)]


def test_a_transaction_is_one_whoever_runs_its_statements(database: Database) -> None:
    def work(connection: Any) -> None:
        INSERT.run(connection, **thing("tom"))
        connection.execute(insert(THINGS).values(**thing("tim")))
        INSERT.run(connection, **thing("ann"))
        raise LookupError

    # More than once: what a connection has prepared outlasts what is taken back.
    for _ in range(3):
        with pytest.raises(LookupError):
            database.transact(work)
    assert database.read(FIRST_TWO.all) == []


def test_a_connection_that_died_is_replaced() -> None:
    end_others = text(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with (
        fresh_database("postgresql") as url,
        closing(Database(url)) as database,
        closing(Database(url)) as other,
    ):
        THINGS.create(database.engine)
        for change in (database.transact, database.hasten, database.read):
            assert change(FIRST_TWO.all) == []
            ended = other.read(lambda connection: connection.scalars(end_others).all())
            assert True in ended
            assert change(FIRST_TWO.all) == []


def test_one_statement_serves_both_databases() -> None:
    both = Prepared(select(THINGS.c.name))
    for kind in ("sqlite", "postgresql", "sqlite"):
        with fresh_database(kind) as url, closing(Database(url)) as database:
            database.make()
            THINGS.create(database.engine)
            database.transact(lambda connection: INSERT.run(connection, **thing()))
            assert database.read(both.all) == [("tom",)]
