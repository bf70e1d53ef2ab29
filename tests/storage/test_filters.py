"""Filters choose the same rows on SQLite, on PostgreSQL and in a few lines of Python."""

from __future__ import annotations

import operator
import string
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from perfuse.errors import InvalidArgument
from perfuse.storage.filter_grammar import MAX_BYTES, MAX_DEPTH, MAX_RESTRICTIONS
from perfuse.storage.filters import Field, Kind, compile_filter
from perfuse.storage.moments import Moment
from storage.databases import DIALECTS, fresh_database

METADATA = sa.MetaData()
THINGS = sa.Table(
    "things",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String),
    sa.Column("size", sa.Integer),
    sa.Column("score", sa.Double),
    sa.Column("made", Moment),
    sa.Column("seen", sa.DateTime(timezone=True)),
    sa.Column("state", sa.String),
    sa.Column("labels", sa.JSON),
)
STATES = ("READY", "FAILED", "AND")
FIELDS = {
    "name": Field(THINGS.c.name, Kind.TEXT),
    "size": Field(THINGS.c.size, Kind.INTEGER),
    "score": Field(THINGS.c.score, Kind.NUMBER),
    "made": Field(THINGS.c.made, Kind.TIMESTAMP),
    "seen": Field(THINGS.c.seen, Kind.TIMESTAMP),
    "state": Field(THINGS.c.state, Kind.ENUM, STATES),
    "labels": Field(THINGS.c.labels, Kind.LABELS),
}

HOSTILE = (
    "'; DROP TABLE things; --",
    "' OR '1'='1",
    '" OR 1=1 --',
    "$1",
    "%(param_1)s",
    "%s",
    ":param_1",
    "?",
    "%",
    "_",
    "%om",
    "t_m",
    "[a-z]",
    "\\",
    "\\' OR 1=1",
    "NULL",
    "a) OR (1=1",
    "/* */",
)
TEXTS = (
    "",
    "tom",
    "Tom",
    "TOM",
    "tomtom",
    "atom",
    "*",
    "to*m",
    "é",
    "É",
    "日本",
    "😀tom",
    " ",
    "x\ny",
)
KEYS = ("team", "a.b/c", "x-y", "0", "$", "[0]", "it's", "a b", "AND")
SIZES = (0, 1, -1, 7)
INTEGERS = (*SIZES, 2**31, -(2**62))  # a filter may name what the column could not hold
NUMBERS = (0.0, 0.1, -2.5, 1e300, 3.0)
TIMES = tuple(
    datetime(2026, 1, 1, tzinfo=UTC) + step
    for step in (timedelta(0), timedelta(microseconds=1), timedelta(hours=5), timedelta(days=-800))
)


def rows() -> list[dict[str, Any]]:
    """Every interesting value, beside missing ones, in combinations that differ from row to row."""

    def pick(values: tuple[Any, ...], index: int) -> Any:
        return (*values, None)[index % (len(values) + 1)]

    texts = TEXTS + HOSTILE
    return [
        {
            "id": index,
            "name": pick(texts, index),
            "size": pick(SIZES, index // 2),
            "score": pick(NUMBERS, index // 3),
            "made": pick(TIMES, index // 2),
            "seen": pick(TIMES, index),
            "state": pick(STATES, index // 5),
            "labels": {
                key: texts[(index * 7 + place) % len(texts)]
                for place, key in enumerate(KEYS)
                if (index // 4 + place) % 5
            }
            if index % 11
            else None,
        }
        for index in range(70)
    ]


ROWS = rows()


def fill(url: str) -> None:
    engine = sa.create_engine(url)
    METADATA.create_all(engine)
    with engine.begin() as connection:
        connection.execute(THINGS.insert(), ROWS)
    engine.dispose()


Databases = dict[str, sa.Connection]
Draw = Callable[[st.SearchStrategy[Any]], Any]


@pytest.fixture(scope="module")
def databases() -> Iterator[Databases]:
    with ExitStack() as stack:
        connections: Databases = {}
        for dialect in DIALECTS:
            engine = sa.create_engine(stack.enter_context(fresh_database(dialect, fill)))
            stack.callback(engine.dispose)
            connection = stack.enter_context(engine.connect())
            connections[dialect] = connection.execution_options(isolation_level="AUTOCOMMIT")
        yield connections


def chosen(connection: sa.Connection, text: str) -> list[int]:
    condition = compile_filter(text, FIELDS)
    query = sa.select(THINGS.c.id).order_by(THINGS.c.id)
    return list(connection.scalars(query if condition is None else query.where(condition)))


def everywhere(databases: Databases, text: str) -> list[int]:
    """What a filter chooses, once both databases agree."""
    sqlite, postgres = (chosen(connection, text) for connection in databases.values())
    assert sqlite == postgres, text
    return sqlite


# The reference: expressions as plain values, what they mean of a row, and how they are written.


@dataclass(frozen=True)
class Compare:
    field: str
    comparator: str
    value: Any
    """A row's value, or text with its wildcards in `head` and `tail`; None for presence."""
    key: str | None = None
    head: bool = False
    tail: bool = False


@dataclass(frozen=True)
class Deny:
    part: Expression


@dataclass(frozen=True)
class Join:
    every: bool
    parts: tuple[Expression, ...]


Expression = Compare | Deny | Join

ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def holds(expression: Expression, row: dict[str, Any]) -> bool:
    if isinstance(expression, Deny):
        return not holds(expression.part, row)
    if isinstance(expression, Join):
        return (all if expression.every else any)(holds(part, row) for part in expression.parts)
    found = row[expression.field]
    if expression.field == "labels":
        found = (found or {}).get(expression.key)
    if expression.value is None:
        return found is not None
    if expression.comparator in ORDERINGS:
        return found is not None and ORDERINGS[expression.comparator](found, expression.value)
    same = found is not None and (
        expression.value in found
        if expression.head and expression.tail
        else found.endswith(expression.value)
        if expression.head
        else found.startswith(expression.value)
        if expression.tail
        else found == expression.value
    )
    return same is (expression.comparator != "!=")


def spelled(value: Any, draw: Draw) -> str:
    """A value's text, before quoting."""
    if isinstance(value, datetime):
        zone = draw(st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]))
        text = value.astimezone(zone).isoformat(timespec="microseconds")
        return text.replace("+00:00", draw(st.sampled_from(["Z", "z", "+00:00", "-00:00"])))
    return repr(value) if isinstance(value, int | float) else str(value)


BARE = set(string.ascii_letters + string.digits + "_")


def quoted(text: str, draw: Draw, head: str, tail: str) -> str:
    if text and set(text) <= BARE and text not in ("AND", "OR", "NOT") and draw(st.booleans()):
        return f"{head}{text}{tail}"
    quote = draw(st.sampled_from("\"'"))
    escaped = "".join(f"\\{char}" if char in ("\\", "*", quote) else char for char in text)
    return f"{quote}{head}{escaped}{tail}{quote}"


def written(expression: Expression, draw: Draw) -> str:
    """The expression in one of its spellings; only parentheses that are needed are sure."""
    space = st.sampled_from(["", " ", " \n\t"])
    if isinstance(expression, Deny):
        denied = written(expression.part, draw)
        simple = isinstance(expression.part, Compare)
        return str(draw(st.sampled_from(["-", "NOT "]))) + (denied if simple else f"({denied})")
    if isinstance(expression, Join):
        parts = []
        for part in expression.parts:
            # OR is the tightest: a list of any may stand bare among all, never the other way.
            loose = isinstance(part, Join) and (part.every or not expression.every)
            text = written(part, draw)
            parts.append(f"({text})" if loose or draw(st.integers(0, 9)) == 0 else text)
        joint = draw(st.sampled_from([" AND ", " "])) if expression.every else " OR "
        return str(joint).join(parts)
    subject = expression.field
    if expression.key is not None:
        key = expression.key
        bare = set(key) <= BARE | {"-"} and key != "AND"
        key = key if bare and draw(st.booleans()) else quoted(key, draw, "", "")
        if expression.value is None and draw(st.booleans()):
            return f"{subject}:{key}"
        subject = f"{subject}.{key}"
    comparator = f"{draw(space)}{expression.comparator}{draw(space)}"
    if expression.value is None:
        return f"{subject}{comparator}*"
    head, tail = "*" * expression.head, "*" * expression.tail
    return f"{subject}{comparator}{quoted(spelled(expression.value, draw), draw, head, tail)}"


def comparisons() -> st.SearchStrategy[Expression]:
    texts = st.sampled_from(TEXTS + HOSTILE)
    fields: list[st.SearchStrategy[Expression]] = [
        st.builds(Compare, st.just(field), st.sampled_from([*ORDERINGS, "=", "!=", ":"]), values)
        for field, values in {
            "name": texts,
            "size": st.sampled_from(INTEGERS),
            "score": st.sampled_from(NUMBERS),
            "made": st.sampled_from(TIMES),
            "seen": st.sampled_from(TIMES),
        }.items()
    ]
    keys = st.sampled_from(KEYS)
    equalities = st.sampled_from(["=", "!=", ":"])
    pieces = st.sampled_from(["t", "tom", "m", "O", "%", "_", "é", "😀", "本", "1=1", "\\"])
    return st.one_of(
        *fields,
        st.builds(Compare, st.just("state"), equalities, st.sampled_from(STATES)),
        st.builds(
            Compare, st.sampled_from(sorted(set(FIELDS) - {"labels"})), st.just(":"), st.none()
        ),
        st.builds(Compare, st.just("labels"), st.just(":"), st.none(), keys),
        st.builds(
            Compare, st.just("labels"), st.sampled_from([*ORDERINGS, "=", "!="]), texts, keys
        ),
        st.builds(
            Compare, st.just("name"), equalities, pieces, st.none(), st.booleans(), st.booleans()
        ),
        st.builds(
            Compare, st.just("labels"), equalities, pieces, keys, st.booleans(), st.booleans()
        ),
    )


EXPRESSIONS = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        st.builds(Deny, inner),
        st.builds(Join, st.booleans(), st.lists(inner, min_size=2, max_size=4).map(tuple)),
    ),
    max_leaves=8,
)


@given(expression=EXPRESSIONS, data=st.data())
@settings(max_examples=250, deadline=None, derandomize=True)
def test_a_filter_means_what_the_reference_says(
    databases: Databases, expression: Expression, data: st.DataObject
) -> None:
    text = written(expression, data.draw)
    expected = [row["id"] for row in ROWS if holds(expression, row)]
    assert everywhere(databases, text) == expected, text


@given(expression=EXPRESSIONS, data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_filter_and_its_denial_part_the_rows(
    databases: Databases, expression: Expression, data: st.DataObject
) -> None:
    text = written(expression, data.draw)
    within = everywhere(databases, text)
    without = everywhere(databases, f"NOT ({text})")
    assert sorted(within + without) == [row["id"] for row in ROWS]


PIECES = (
    *FIELDS,
    *"()=<>:-.,*\"'\\ ",
    *("!=", "<=", " AND ", " OR ", "NOT ", "labels.team", "labels.'", "name=tom", "size > 1"),
    *("READY", "1", "-1", "1e999", "1e-400", "9223372036854775807", "99999999999999999999"),
    *("2026-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "\0", "é", "😀"),
)
FRAGMENTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


@given(text=st.one_of(FRAGMENTS, st.text(max_size=60), st.text(st.characters(), max_size=20)))
@settings(max_examples=1500, deadline=None, derandomize=True)
def test_any_text_is_answered_or_refused(databases: Databases, text: str) -> None:
    try:
        compile_filter(text, FIELDS)
    except InvalidArgument as refusal:
        ((field, description),) = refusal.violations
        assert field == "filter"
        assert description.startswith("position ")
        assert "Fields: labels.KEY, made, name, score, seen, size, state." in description
        assert len(description) < 500
    else:
        everywhere(databases, text)


BITS = {
    name: Field(THINGS.c.id.op("/")(2**place).op("%")(2), Kind.INTEGER)
    for place, name in enumerate("cba")
}


class TestPrecedence:
    """`a`, `b` and `c` are the binary digits of a row's id."""

    def chosen(self, databases: Databases, text: str) -> set[str]:
        condition = compile_filter(text, BITS)
        assert condition is not None
        query = sa.select(THINGS.c.id).where(THINGS.c.id < 8, condition)
        sqlite, postgres = (set(database.scalars(query)) for database in databases.values())
        assert sqlite == postgres
        return {f"{bits:03b}" for bits in sqlite}

    @pytest.mark.parametrize(
        ("text", "same"),
        [
            ("a=1 AND b=1 OR c=1", "a=1 AND (b=1 OR c=1)"),
            ("a=1 OR b=1 AND c=1", "(a=1 OR b=1) AND c=1"),
            ("a=1 b=1 OR c=1", "a=1 AND (b=1 OR c=1)"),
            ("NOT a=1 OR b=1", "(NOT a=1) OR b=1"),
            ("NOT a=1 AND b=1", "(NOT a=1) AND b=1"),
            ("-a=1 -b=1", "(NOT a=1) AND (NOT b=1)"),
            ("a=1 -b=1 OR c=1", "a=1 AND ((NOT b=1) OR c=1)"),
            ("NOT (a=1 AND b=1)", "a!=1 OR b!=1"),
            ("NOT (a=1 OR b=1)", "a!=1 AND b!=1"),
        ],
    )
    def test_one_reads_as_the_other(self, databases: Databases, text: str, same: str) -> None:
        assert self.chosen(databases, text) == self.chosen(databases, same)

    def test_or_binds_tighter_than_and(self, databases: Databases) -> None:
        assert self.chosen(databases, "a=1 AND b=1 OR c=1") == {"101", "110", "111"}
        either = self.chosen(databases, "(a=1 AND b=1) OR c=1")
        assert either == {"001", "011", "101", "110", "111"}


class TestMissing:
    def test_a_missing_label_differs_from_everything(self, databases: Databases) -> None:
        bare = [row["id"] for row in ROWS if "team" not in (row["labels"] or {})]
        assert bare
        assert set(bare) <= set(everywhere(databases, "labels.team != blue"))
        assert set(bare) <= set(everywhere(databases, "NOT labels.team = blue"))
        assert set(bare) <= set(everywhere(databases, "NOT labels.team < blue"))
        assert set(bare).isdisjoint(everywhere(databases, "labels.team = *"))
        assert set(bare).isdisjoint(everywhere(databases, "labels.team >= ''"))
        assert bare == everywhere(databases, "NOT labels:team")

    @pytest.mark.parametrize("blank", ["", " ", "\n\t "])
    def test_a_blank_filter_asks_nothing(self, blank: str) -> None:
        assert compile_filter(blank, FIELDS) is None


class TestHostileValues:
    @pytest.mark.parametrize("value", HOSTILE)
    @pytest.mark.parametrize("subject", ["name", "labels.team"])
    def test_they_are_data(self, databases: Databases, subject: str, value: str) -> None:
        text = value.replace("\\", "\\\\").replace('"', '\\"').replace("*", "\\*")
        found = everywhere(databases, f'{subject} = "{text}"')
        assert found == [
            row["id"]
            for row in ROWS
            if value == (row["name"] if subject == "name" else (row["labels"] or {}).get("team"))
        ]
        assert found, "a value that no row has would prove nothing"
        assert everywhere(databases, "") == [row["id"] for row in ROWS]

    def test_only_parameters_carry_them(self) -> None:
        text = "name = canary OR name = *canary* OR labels.canary = canary OR name < canary"
        condition = compile_filter(text, FIELDS)
        assert condition is not None
        for dialect in ("sqlite", "postgresql"):
            sql = str(
                condition.compile(dialect=sa.create_mock_engine(f"{dialect}://", print).dialect)
            )
            assert "canary" not in sql


class TestSpelling:
    @pytest.mark.parametrize(
        ("text", "same"),
        [
            ("name=tom", 'name = "tom"'),
            ("name:tom", "name = tom"),
            ("name = 'it\\'s'", 'name = "it\'s"'),
            (r'name = "\*"', r"name = '\*'"),
            ("labels:team", "labels.team:*"),
            ("labels:'a.b/c'", 'labels."a.b/c":*'),
            ("labels.team:*", "labels.team = *"),
            ("name = **", "name:*"),
            ("seen = 2026-01-01T05:30:00+05:30", "seen = '2026-01-01T00:00:00.000000000Z'"),
            ("score = 3", "score = .3e1"),
            ("-name=tom", "NOT name = tom"),
        ],
    )
    def test_two_spellings_of_one_filter(self, databases: Databases, text: str, same: str) -> None:
        found = everywhere(databases, text)
        assert found == everywhere(databases, same)
        assert len(found) < len(ROWS)

    def test_a_starred_text_is_found_by_an_escaped_star(self, databases: Databases) -> None:
        names = [ROWS[index]["name"] for index in everywhere(databases, r'name = "to\*m"')]
        assert set(names) == {"to*m"}

    def test_case_counts(self, databases: Databases) -> None:
        for text in ("name = tom", "name = tom*", "name = *tom", "name = *tom*"):
            for index in everywhere(databases, text):
                assert "tom" in ROWS[index]["name"]

    def test_a_digest_needs_no_quotes(self) -> None:
        assert compile_filter("name = sha256:00ff", FIELDS) is not None


REFUSALS = {
    "color = red": "position 1: no field 'color'",
    "size = 1 AND color = red": "position 14: no field 'color'",
    "name": "position 5: expected one of = != < <= > >= :, found the end",
    "tom tom": "position 5: expected one of",
    "name =": "position 7: expected a value, found the end",
    "name = AND size = 1": "position 8: expected a value, found 'AND size = 1'",
    "name == tom": "position 7: expected a value",
    "size = 1 AND": "expected (, NOT, -, a field, found the end",
    "size = 1)": "position 9: expected the end, found ')'",
    "(size = 1": "position 10: expected ), found the end",
    "()": "position 2: expected",
    "NOT NOT size = 1": "position 5: expected (, a field, found 'NOT size = 1'",
    "size = 5 - size = 3": "found '- size = 3'",
    'name = "tom': "position 8: expected a value",
    r'name = "\n"': r"\n means nothing",
    "name = t*m": "position 8: * is a wildcard only at either end",
    "name < tom*": "a wildcard stands in = and != only",
    "size = 1*": "a wildcard stands in text only",
    "size != *": "a wildcard stands in text only",
    "state = R*": "a wildcard stands in text only",
    "size = tom": "position 8: expected a whole number, found 'tom'",
    "size = 1.5": "expected a whole number",
    "size = 9223372036854775808": "expected a whole number",
    "size = ٣": "expected a whole number",
    "score = nan": "expected a number",
    "score = 1e999": "expected a number",
    "made > 2026-01-01": "expected a time like 2026-01-31T12:00:00Z",
    "made > 2026-02-30T00:00:00Z": "expected a time",
    "made > 2026-01-01T00:00:00": "expected a time",
    "made > 2026-01-01T00:00:00.0000001Z": "expected a time",
    "made > 0001-01-01T00:00:00+01:00": "expected a time",
    "state = GONE": "'GONE' is none of READY, FAILED, AND",
    "state < READY": "the words of state have no order",
    "labels = tom": "write labels.KEY = VALUE, or labels:KEY",
    "labels:*": "a label's key is",
    "labels.team.blue = x": "expected one of",
    'labels."a\'\\"b" = x': "a label's key is",
    'labels."\\\\" = x': "a label's key is",
    'labels."é" = x': "a label's key is",
    'labels."" = x': "a label's key is",
    "labels.'te*' = x": "a label's key is",
    "name.first = tom": "position 6: name has no parts",
    "exists(name)": "position 7: expected",
    "name = tom,size = 1": "found ',size = 1'",
    "name = \0": "a NUL character",
    "name = \ud800": "position 8: half of a surrogate pair",
}


@pytest.mark.parametrize("text", REFUSALS, ids=ascii)
def test_a_refusal_says_where_and_what(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        compile_filter(text, FIELDS)
    ((field, description),) = caught.value.violations
    assert field == "filter"
    assert REFUSALS[text] in description
    assert description.startswith("position ")


class TestLimits:
    def test_length_is_counted_in_bytes(self) -> None:
        room = MAX_BYTES - len("name = ")
        assert compile_filter("name = " + "x" * room, FIELDS) is not None
        for long in ("x" * (room + 1), "é" * (room // 2 + 1)):
            with pytest.raises(InvalidArgument, match=f"at most {MAX_BYTES}"):
                compile_filter("name = " + long, FIELDS)

    def test_depth(self) -> None:
        deepest = "(" * MAX_DEPTH + "size = 1" + ")" * MAX_DEPTH
        assert compile_filter(deepest, FIELDS) is not None
        for deeper in (f"({deepest})", f"NOT ({deepest})", "(" * 400 + "size = 1" + ")" * 400):
            with pytest.raises(InvalidArgument, match=f"more than {MAX_DEPTH} deep"):
                compile_filter(deeper, FIELDS)

    @pytest.mark.parametrize("joint", [" AND ", " OR ", " "])
    def test_restrictions(self, joint: str) -> None:
        assert compile_filter(joint.join(["size=1"] * MAX_RESTRICTIONS), FIELDS) is not None
        with pytest.raises(InvalidArgument, match=f"more than {MAX_RESTRICTIONS} restrictions"):
            compile_filter(joint.join(["size=1"] * (MAX_RESTRICTIONS + 1)), FIELDS)
        with pytest.raises(InvalidArgument, match="restrictions"):
            compile_filter(joint.join([f"({joint.join(['size=1'] * 11)})"] * 3), FIELDS)


def test_words_and_their_kind_go_together() -> None:
    with pytest.raises(ValueError, match="ENUM"):
        Field(THINGS.c.state, Kind.ENUM)
    with pytest.raises(ValueError, match="TEXT"):
        Field(THINGS.c.name, Kind.TEXT, ("a",))
