"""An order is allowed, total, and the same on both databases."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from perfuse.errors import InvalidArgument
from perfuse.storage.moments import Moment
from perfuse.storage.ordering import MAX_LENGTH, Bytewise, Order, parse_order
from storage.databases import DIALECTS, fresh_database


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "things"

    uid: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    nickname: Mapped[str | None]
    create_time: Mapped[datetime] = mapped_column(Moment)
    state: Mapped[str] = mapped_column(sa.Enum("READY", "FAILED", name="state"))


ALLOWED = {
    "uid": Thing.uid,
    "name": Thing.name,
    "nickname": Thing.nickname,
    "create_time": Thing.create_time,
    "state": Thing.state,
}


def order(text: str, default: str = "create_time desc") -> Order:
    return parse_order(text, ALLOWED, default, Thing.uid)


def sql(clause: sa.ColumnElement[object], dialect: str) -> str:
    return str(clause.compile(dialect=sa.create_mock_engine(f"{dialect}://", print).dialect))


class TestReading:
    @pytest.mark.parametrize(
        ("text", "read"),
        [
            ("name", "name, uid"),
            ("name asc", "name, uid"),
            ("name desc", "name desc, uid desc"),
            (" create_time   desc ,name", "create_time desc, name, uid"),
            ("name,create_time desc", "name, create_time desc, uid desc"),
            ("", "create_time desc, uid desc"),
            ("  ", "create_time desc, uid desc"),
            ("uid", "uid"),
            ("uid desc, name", "uid desc"),
            ("name, uid desc", "name, uid desc"),
        ],
    )
    def test_it_closes_with_the_unique_column(self, text: str, read: str) -> None:
        assert str(order(text)) == read

    def test_without_a_default_the_unique_column_alone_decides(self) -> None:
        assert str(order("", default="")) == "uid"

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("colour", "'colour' is not a field to order by"),
            ("name, name desc", "'name' is given twice"),
            ("name, create_time, state", "3 fields; at most 2"),
            ("name,", "'' is not a field"),
            (",", "'' is not a field"),
            ("name DESC", "'name DESC' is not a field, alone or with asc or desc"),
            ("name desc desc", "is not a field"),
            ("-name", "is not a field"),
            ("name; DROP TABLE things", "is not a field"),
            ("(SELECT 1)", "is not a field"),
            ("name\0", "is not a field"),
            ("é", "is not a field"),
            ("n" * (MAX_LENGTH + 1), f"at most {MAX_LENGTH}"),
        ],
    )
    def test_anything_else_is_refused(self, text: str, complaint: str) -> None:
        with pytest.raises(InvalidArgument) as caught:
            order(text)
        ((field, description),) = caught.value.violations
        assert field == "order_by"
        assert complaint in description
        assert description.endswith("Fields: create_time, name, nickname, state, uid.")

    def test_a_table_s_columns_serve_as_well_as_mapped_attributes(self) -> None:
        columns = Thing.__table__.c
        read = parse_order("name desc", {"name": columns.name}, "", columns.uid)
        assert [key.nullable for key in read.keys] == [False, False]
        assert str(read) == "name desc, uid desc"


class TestClauses:
    def test_text_goes_by_its_bytes(self) -> None:
        (name, uid) = order("name").clauses
        assert sql(name, "sqlite") == "things.name ASC"
        assert sql(name, "postgresql") == '(things.name) COLLATE "C" ASC'
        assert sql(uid, "postgresql") == "things.uid ASC"

    def test_an_enumerated_type_has_no_collation(self) -> None:
        assert not isinstance(order("state").columns[0], Bytewise)

    def test_nulls_are_placed_only_where_there_can_be_some(self) -> None:
        up, down = order("nickname").clauses[0], order("nickname desc").clauses[0]
        assert sql(up, "postgresql").endswith("ASC NULLS FIRST")
        assert sql(down, "postgresql").endswith("DESC NULLS LAST")
        assert "NULLS" not in sql(order("create_time desc").clauses[0], "postgresql")


@pytest.fixture(scope="module", params=DIALECTS)
def connection(request: pytest.FixtureRequest) -> Iterator[sa.Connection]:
    with fresh_database(request.param) as url:
        engine = sa.create_engine(url)
        Base.metadata.create_all(engine)
        with engine.begin() as connection:
            connection.execute(sa.insert(Thing), ROWS)
            yield connection
        engine.dispose()


WORDS = ("tom", "Tom", "tom-b", "tomb", "TOM", "tóm", "", "_", "日", "😀", "z", "Z")
ROWS: list[dict[str, Any]] = [
    {
        "uid": index,
        "name": WORDS[index * 5 % len(WORDS)],
        "nickname": (*WORDS, None)[index * 7 % (len(WORDS) + 1)],
        "create_time": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=index * 3 % 7),
        "state": "READY",
    }
    for index in range(1, 60)
]


FIELDS = ("name", "nickname", "create_time")
ORDERS = [
    *itertools.product(FIELDS, ("asc", "desc")),
    *(
        (first, way, second, other)
        for first, second in itertools.permutations(FIELDS, 2)
        for way, other in itertools.product(("asc", "desc"), repeat=2)
    ),
]


@pytest.mark.parametrize("words", ORDERS, ids=" ".join)
def test_both_databases_sort_as_python_does(
    connection: sa.Connection, words: tuple[str, ...]
) -> None:
    fields = {words[at]: words[at + 1] == "desc" for at in range(0, len(words), 2)}
    text = ", ".join(f"{field} {words[words.index(field) + 1]}" for field in fields)
    expected = sorted(ROWS, key=lambda row: row["uid"], reverse=list(fields.values())[-1])
    for field, down in reversed(fields.items()):
        expected.sort(key=lambda row: (row[field] is not None, row[field]), reverse=down)
    query = sa.select(Thing.uid).order_by(*order(text).clauses)
    assert list(connection.scalars(query)) == [row["uid"] for row in expected]
