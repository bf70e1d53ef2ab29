"""Pages in a row are the whole list, and a token continues its own list only."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from perfuse.errors import InvalidArgument
from perfuse.storage.moments import Moment
from perfuse.storage.ordering import Order, parse_order
from perfuse.storage.paging import (
    MAX_TOKEN_LENGTH,
    KeyValue,
    Listing,
    PageTokens,
    keyset,
    page_size,
)
from storage.databases import DIALECTS, fresh_database

METADATA = sa.MetaData()
C_TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")
THINGS = sa.Table(
    "things",
    METADATA,
    sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("parent", sa.Integer, nullable=False, default=0),
    sa.Column("name", C_TEXT, nullable=False),
    sa.Column("nickname", sa.String),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("score", sa.Double),
    sa.Column("made", Moment, nullable=False),
    sa.Column("seen", sa.DateTime(timezone=True)),
    sa.Index("things_by_number", "parent", "number", "id"),
    sa.Index("things_by_name", "parent", "name", "id"),
)
ALLOWED = {column.name: column for column in THINGS.c if column.name != "parent"}
LISTING = Listing("acme", "ListConcepts", "tenants/acme", "size > 1", show_deleted=False)
TOKENS = PageTokens(b"k" * 32)


def ordered(text: str) -> Order:
    return parse_order(text, ALLOWED, "", THINGS.c.id)


Databases = tuple[sa.Connection, ...]


@pytest.fixture(scope="module")
def databases() -> Iterator[Databases]:
    """Connections to empty tables; a test rolls back what it does."""
    with ExitStack() as stack:
        connections = []
        for dialect in DIALECTS:
            engine = sa.create_engine(stack.enter_context(fresh_database(dialect)))
            METADATA.create_all(engine)
            stack.callback(engine.dispose)
            connections.append(stack.enter_context(engine.connect()))
        yield tuple(connections)


# Few values, so that rows tie; among them the ones that are easily spoilt on the way.
TEXTS = st.sampled_from(["", "a", "A", "b'\"\\", "é", "日", "😀", "\u2028", "z" * 60])
TIMES = st.sampled_from([0, 1, 10**6, 10**15 + 1]).map(
    lambda step: datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC) + timedelta(microseconds=step)
)
NUMBERS = st.sampled_from([0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63)])
SCORES = st.sampled_from([0.0, 0.1, 1 / 3, -1e300, 5e-324, 1.0])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(-20, 20) | NUMBERS,
            "name": TEXTS,
            "nickname": st.none() | TEXTS,
            "number": NUMBERS,
            "score": st.none() | SCORES,
            "made": TIMES,
            "seen": st.none() | TIMES,
        }
    ),
    max_size=14,
    unique_by=lambda row: row["id"],
)
ORDERS = st.lists(
    st.tuples(st.sampled_from(sorted(ALLOWED)), st.sampled_from(["", " desc"])),
    max_size=2,
    unique_by=lambda entry: entry[0],
).map(lambda entries: ", ".join("".join(entry) for entry in entries))


def in_order(rows: list[dict[str, Any]], order: Order) -> list[int]:
    """Ids, sorted by Python: the last key first, since sorting is stable."""
    rows = list(rows)
    for key in reversed(order.keys):
        name = key.name
        rows.sort(key=lambda row: (row[name] is not None, row[name]), reverse=key.descending)
    return [row["id"] for row in rows]


def pages(connection: sa.Connection, order: Order, size: int) -> Iterator[list[int]]:
    """The list as a client walks it, token by token."""
    token = ""
    for _ in range(50):
        query = sa.select(THINGS.c.id, *order.columns).order_by(*order.clauses).limit(size + 1)
        after = TOKENS.read(token, LISTING, order)
        if after is not None:
            query = query.where(keyset(order, after))
        found = connection.execute(query).all()
        yield [row[0] for row in found[:size]]
        if len(found) <= size:
            return
        token = TOKENS.issue(LISTING, order, found[size - 1][1:])
    raise AssertionError("the list has no end")


@given(rows=ROWS, text=ORDERS, size=st.integers(1, 5))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_pages_in_a_row_are_the_sorted_list(
    databases: Databases, rows: list[dict[str, Any]], text: str, size: int
) -> None:
    order = ordered(text)
    expected = in_order(rows, order)
    for connection in databases:
        with connection.begin() as transaction:
            if rows:
                connection.execute(THINGS.insert(), rows)
            walked = list(pages(connection, order, size))
            transaction.rollback()
        assert [row for page in walked for row in page] == expected
        assert all(len(page) == size for page in walked[:-1])
        assert walked[-1] or not rows


@given(rows=ROWS, others=ROWS, text=ORDERS, size=st.integers(1, 3), data=st.data())
@settings(max_examples=80, deadline=None, derandomize=True)
def test_rows_that_stay_are_seen_once_whatever_comes_and_goes(
    databases: Databases,
    rows: list[dict[str, Any]],
    others: list[dict[str, Any]],
    text: str,
    size: int,
    data: st.DataObject,
) -> None:
    order = ordered(text)
    taken = {row["id"] for row in rows}
    arriving = [row for row in others if row["id"] not in taken]
    leaving = data.draw(st.sets(st.sampled_from(sorted(taken))) if taken else st.just(set()))
    staying = [row for row in rows if row["id"] not in leaving]
    for connection in databases:
        with connection.begin() as transaction:
            if rows:
                connection.execute(THINGS.insert(), rows)
            coming, going = iter(arriving), iter(sorted(leaving))
            walked: list[int] = []
            for page in pages(connection, order, size):
                walked += page
                if (new := next(coming, None)) is not None:
                    connection.execute(THINGS.insert(), new)
                if (old := next(going, None)) is not None:
                    connection.execute(THINGS.delete().where(THINGS.c.id == old))
            transaction.rollback()
        assert len(walked) == len(set(walked))
        kept = {row["id"] for row in staying}
        assert [row for row in walked if row in kept] == in_order(staying, order)


class TestIndex:
    """A page is looked up where it begins, not searched for from the start of the list."""

    def plan(self, connection: sa.Connection, text: str, values: Sequence[KeyValue]) -> str:
        order = ordered(text)
        query = (
            sa.select(THINGS.c.id)
            .where(THINGS.c.parent == 7, keyset(order, values))
            .order_by(*order.clauses)
            .limit(51)
        )
        literal = query.compile(connection, compile_kwargs={"literal_binds": True})
        sqlite = connection.dialect.name == "sqlite"
        with connection.begin() as transaction:
            if not sqlite:  # a table of no rows would be read whole
                connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
                connection.execute(sa.text("SET LOCAL enable_bitmapscan = off"))
            explain = "EXPLAIN QUERY PLAN" if sqlite else "EXPLAIN"
            found = connection.exec_driver_sql(f"{explain} {literal}").all()
            transaction.rollback()
        return "\n".join(str(row[-1]) for row in found)

    @pytest.mark.parametrize(
        ("text", "values", "index"),
        [
            ("number", (5, 6), "things_by_number"),
            ("number desc", (5, 6), "things_by_number"),
            ("name", ("tom", 6), "things_by_name"),
            ("name desc", ("tom", 6), "things_by_name"),
        ],
    )
    def test_one_direction_is_one_range_of_an_index(
        self, databases: Databases, text: str, values: tuple[KeyValue, ...], index: str
    ) -> None:
        sqlite, postgres = (self.plan(connection, text, values) for connection in databases)
        sign = "<" if "desc" in text else ">"
        column = text.split()[0]
        assert f"{index} (parent=? AND ({column},id){sign}(?,?))" in sqlite
        assert "TEMP B-TREE" not in sqlite
        assert index in postgres
        assert "Sort" not in postgres
        (condition,) = (line for line in postgres.splitlines() if "Index Cond" in line)
        assert f"{sign} ROW(" in condition

    def test_mixed_directions_still_begin_at_the_first_key(self, databases: Databases) -> None:
        sqlite, postgres = (
            self.plan(connection, "number, name desc", (5, "tom", 6)) for connection in databases
        )
        assert "things_by_number (parent=? AND number>?)" in sqlite
        (condition,) = (line for line in postgres.splitlines() if "Index Cond" in line)
        assert "number >= " in condition


VALUES = st.tuples(
    st.none() | st.text(max_size=40),
    st.one_of(
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.datetimes(timezones=st.just(UTC)),
        st.none(),
    ),
    st.integers(-(2**63), 2**63 - 1),
)
THREE = ordered("nickname, number")


class TestToken:
    @given(values=VALUES)
    @settings(max_examples=200, deadline=None, derandomize=True)
    def test_it_gives_back_what_was_put_in(self, values: tuple[KeyValue, ...]) -> None:
        token = TOKENS.issue(LISTING, THREE, values)
        assert set(token) <= set(string.ascii_letters + string.digits + "-_")
        read = TOKENS.read(token, LISTING, THREE)
        assert read == values
        assert [type(value) for value in read] == [type(value) for value in values]

    def test_the_empty_token_is_the_first_page(self) -> None:
        assert TOKENS.read("", LISTING, THREE) is None

    def test_a_time_without_a_zone_is_utc(self) -> None:
        token = TOKENS.issue(LISTING, THREE, (None, datetime(2026, 1, 1), 1))
        assert TOKENS.read(token, LISTING, THREE) == (None, datetime(2026, 1, 1, tzinfo=UTC), 1)

    def test_every_changed_character_is_noticed(self) -> None:
        token = TOKENS.issue(LISTING, THREE, ("tom", 5, 6))
        alphabet = string.ascii_letters + string.digits + "-_+/=. \n\0é"
        for at in range(len(token)):
            for other in alphabet:
                if other != token[at]:
                    self.refused(token[:at] + other + token[at + 1 :])
        for at in range(1, len(token)):
            self.refused(token[:at])
            self.refused(token[at:])
        for end in "=\nA ":
            self.refused(token + end)
            self.refused(end + token)

    @given(text=st.text(min_size=1, max_size=80) | st.text(string.ascii_letters, min_size=1))
    @settings(max_examples=300, deadline=None, derandomize=True)
    def test_any_other_text_is_refused(self, text: str) -> None:
        self.refused(text)

    @pytest.mark.parametrize(
        "change",
        [
            {"tenant": "acme2"},
            {"method": "ListVersions"},
            {"parent": "tenants/acme/concepts/tom"},
            {"filter": ""},
            {"show_deleted": True},
            # What one field loses, the next gains: the same letters in a row.
            {"tenant": "acm", "method": "eListConcepts"},
        ],
        ids=lambda change: "+".join(change),
    )
    def test_another_listing_is_refused(self, change: dict[str, Any]) -> None:
        token = TOKENS.issue(LISTING, THREE, ("tom", 5, 6))
        self.refused(token, replace(LISTING, **change))

    @pytest.mark.parametrize("text", ["nickname", "nickname, number desc", "number, nickname", ""])
    def test_another_order_is_refused(self, text: str) -> None:
        self.refused(TOKENS.issue(LISTING, THREE, ("tom", 5, 6)), order=ordered(text))

    def test_another_key_is_refused(self) -> None:
        token = PageTokens(b"j" * 32).issue(LISTING, THREE, ("tom", 5, 6))
        self.refused(token)

    def test_another_spelling_of_the_order_is_not_another_order(self) -> None:
        token = TOKENS.issue(LISTING, ordered("nickname asc,number"), ("tom", 5, 6))
        assert TOKENS.read(token, LISTING, THREE) == ("tom", 5, 6)

    def test_its_length_is_bounded(self) -> None:
        longest = TOKENS.issue(LISTING, THREE, ("x" * 700, 5, 6))
        assert len(longest) <= MAX_TOKEN_LENGTH
        assert TOKENS.read(longest, LISTING, THREE) == ("x" * 700, 5, 6)
        with pytest.raises(ValueError, match="too long to order by"):
            TOKENS.issue(LISTING, THREE, ("x" * 800, 5, 6))
        self.refused("A" * (MAX_TOKEN_LENGTH + 1))
        self.refused("A" * 10_000_000)

    @pytest.mark.parametrize(
        ("attempt", "fault"),
        [
            (lambda: TOKENS.issue(LISTING, THREE, ("tom", 5)), ValueError),
            (lambda: TOKENS.issue(LISTING, THREE, ("tom", True, 6)), TypeError),
            (lambda: TOKENS.issue(LISTING, THREE, ("tom", b"5", 6)), TypeError),  # type: ignore[arg-type]
            (lambda: TOKENS.issue(LISTING, THREE, ("tom", float("nan"), 6)), ValueError),
            (lambda: keyset(THREE, ("tom", 5)), ValueError),
            (lambda: PageTokens(b"k" * 31), ValueError),
        ],
    )
    def test_our_own_faults_are_ours(
        self, attempt: Callable[[], object], fault: type[Exception]
    ) -> None:
        with pytest.raises(fault) as caught:
            attempt()
        assert not isinstance(caught.value, InvalidArgument)

    def refused(self, token: str, listing: Listing = LISTING, order: Order = THREE) -> None:
        with pytest.raises(InvalidArgument) as caught:
            TOKENS.read(token, listing, order)
        ((field, description),) = caught.value.violations
        assert field == "page_token"
        assert description.endswith("start again without a token.")


class TestPageSize:
    @given(requested=st.integers(-(2**31), 2**31 - 1))
    @settings(max_examples=100, deadline=None, derandomize=True)
    def test_it_lies_between_one_and_the_cap(self, requested: int) -> None:
        if requested < 0:
            with pytest.raises(InvalidArgument) as caught:
                page_size(requested)
            assert caught.value.violations[0][0] == "page_size"
        else:
            assert page_size(requested) == (min(requested, 1000) if requested else 50)

    def test_a_list_may_have_its_own(self) -> None:
        assert page_size(0, default=5, cap=7) == 5
        assert page_size(8, default=5, cap=7) == 7
        assert page_size(7, default=5, cap=7) == 7
