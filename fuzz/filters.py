"""The filter of lists: its grammar, its compilation, and the database that it reaches.

Laws: only InvalidArgument, naming the field; a filter that is read runs on SQLite and is spelled
for PostgreSQL without a value in its text; and a row is chosen by a filter or by its denial, never
by both or neither.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from perfuse.errors import InvalidArgument
from perfuse.storage.filters import Field, Kind, compile_filter
from perfuse.storage.moments import Moment

_METADATA = sa.MetaData()
_THINGS = sa.Table(
    "things",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String),
    sa.Column("size", sa.BigInteger),
    sa.Column("score", sa.Double),
    sa.Column("made", Moment),
    sa.Column("state", sa.String),
    sa.Column("labels", sa.JSON),
)
_FIELDS = {
    "name": Field(_THINGS.c.name, Kind.TEXT),
    "size": Field(_THINGS.c.size, Kind.INTEGER),
    "score": Field(_THINGS.c.score, Kind.NUMBER),
    "made": Field(_THINGS.c.made, Kind.TIMESTAMP),
    "state": Field(_THINGS.c.state, Kind.ENUM, ("READY", "FAILED")),
    "labels": Field(_THINGS.c.labels, Kind.LABELS),
}
_MADE = datetime(2026, 1, 31, 12, tzinfo=UTC)
_ROWS = (
    {"id": 1, "name": "tom", "size": 7, "score": 0.5, "made": _MADE, "state": "READY",
     "labels": {"team": "blue", "a.b/c": "*"}},
    {"id": 2, "name": "tomé\"'\\%_", "size": -(2**63), "score": -1e308, "made": _MADE,
     "state": "FAILED", "labels": {"team": ""}},
    {"id": 3, "name": "", "size": 2**63 - 1, "score": 0.0, "made": _MADE, "state": "READY",
     "labels": {}},
    {"id": 4, "name": None, "size": None, "score": None, "made": None, "state": None,
     "labels": {}},
)  # fmt: skip


def seeds() -> dict[str, bytes]:
    """Filters of every rule, and slips."""
    texts = (
        'state = READY AND labels.team = "blue"',
        "made >= 2026-01-01T00:00:00Z AND name = cat OR name = dog",
        "NOT labels:team -name = tmp*",
        "((size<=7 OR size>-9223372036854775808) score!=.5e-3)",
        'labels."a.b/c" = "\\*" labels.team:*',
        "name:* name='it\\'s' name=*o* name=*",
        "made < 2026-02-30T00:00:00+25:00",
        "made = 0001-01-01T00:00:00+23:59",
        "score = 1e999", "size = 99999999999999999999", "state < READY", "((((((((name=a))))))))",
        "name = a\0b", "name = \\", "'", "name = 'a", "AND", "name = AND", "-", "labels",
        "name = sha256:ab", "x = 1", "name = é\u2028\u00a0z", "(" * 2000,
    )  # fmt: skip
    return {f"filter-{index}": text.encode() for index, text in enumerate(texts)}


def one(data: bytes) -> None:
    """Compile one filter, and run it with its denial."""
    text = data.decode(errors="replace")
    condition = _compiled(text)
    if condition is None:
        return
    spelled = str(sa.select(_THINGS.c.id).where(condition).compile(dialect=postgresql.dialect()))
    assert spelled.isascii()
    denial = _compiled(f"NOT ({text})")
    if denial is None:  # A parenthesis too deep, or a length too long.
        _ids(condition)
        return
    assert sorted([*_ids(condition), *_ids(denial)]) == [row["id"] for row in _ROWS]


def _compiled(text: str) -> sa.ColumnElement[bool] | None:
    try:
        return compile_filter(text, _FIELDS)
    except InvalidArgument as refusal:
        assert [field for field, _ in refusal.violations] == ["filter"]
        assert len(str(refusal)) < 1000
        return None


def _ids(condition: sa.ColumnElement[bool]) -> list[int]:
    return list(_connection().execute(sa.select(_THINGS.c.id).where(condition)).scalars())


@cache
def _connection() -> sa.Connection:
    connection = sa.create_engine("sqlite://").connect()
    _METADATA.create_all(connection)
    connection.execute(_THINGS.insert(), _ROWS)
    return connection
