"""The filter of a list: a subset of AIP-160, compiled to SQLAlchemy expressions.

    state = READY AND labels.team = "blue"
    create_time >= 2026-01-01T00:00:00Z AND super_category = cat OR super_category = dog
    NOT labels:archived -name = tmp*

- `OR` binds tighter than `AND`, as in AIP-160; restrictions side by side are joined by `AND`.
  `NOT`, or `-` right before it, denies one restriction or parenthesis.
- A restriction is a field, a comparator (`=` `!=` `<` `<=` `>` `>=` `:`) and a value, in this
  order. A value is a bare word, or quoted with `"` or `'`; inside quotes a backslash goes before
  a quote, a backslash or a star that stands for itself.
- `field:*` holds where the field is there, `labels:key` where the label is; else `:` means `=`.
- A `*` at either end of a text stands for anything: `name = tom*`.
- A label is `labels.key`, or `labels."a.b/c"` if the key has more than letters, digits, `_`, `-`.
- Nothing equals what is missing, nor is it smaller or larger than anything: of a missing label
  `=` and `<` are false, `!=` is true, and `NOT` turns these round. A restriction is true or false,
  never unknown.
- Text compares by its bytes, upper case apart from lower, on every database.

Values reach the database as bound parameters only, and no field but the allowed ones reaches it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, cast

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    SQLColumnExpression,
    String,
    and_,
    func,
    literal,
    not_,
    or_,
)

from perfuse.errors import InvalidArgument
from perfuse.storage.filter_grammar import (
    All,
    Literal,
    Node,
    Not,
    Refused,
    Restriction,
    parse,
)
from perfuse.storage.ordering import Bytewise

_INTEGER = re.compile(r"-?[0-9]{1,19}")
_NUMBER = re.compile(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})"
    r"(?:\.([0-9]{1,6})0{0,3})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
# SQLite finds a JSON key by its spelling in the stored text, so a key that JSON may spell in two
# ways, or that would end the quotes around it in a path, must not get there.
_KEY = re.compile(r"[ !#-\[\]-~]+")

_BIGGEST = 2**63 - 1


class Kind(Enum):
    """What a field holds, and so which values and comparators suit it."""

    TEXT = "text"
    INTEGER = "a whole number"
    NUMBER = "a number"
    TIMESTAMP = "a time like 2026-01-31T12:00:00Z"
    ENUM = "one of its words"
    LABELS = "a set of labels"


@dataclass(frozen=True)
class Field:
    """A field that filters may name.

    Attributes:
        column: Where it is found. Text for TEXT and ENUM; for NUMBER double precision; for
            TIMESTAMP what takes an aware datetime in UTC; for LABELS a JSON object of strings.
        words: Of an ENUM, all that it can be.
    """

    column: SQLColumnExpression[Any]
    kind: Kind
    words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """An ENUM has words, and nothing else has."""
        if (self.kind is Kind.ENUM) != bool(self.words):
            raise ValueError(f"a field of kind {self.kind.name} with the words {self.words}")


Fields = Mapping[str, Field]


def compile_filter(text: str, fields: Fields) -> ColumnElement[bool] | None:
    """The condition that a request's `filter` puts on rows; None if it is blank.

    Raises:
        InvalidArgument: It is no filter, names a field that `fields` lacks, compares a field with
            what it cannot be, or passes a limit of `perfuse.storage.filter_grammar`.
    """
    if not text.strip():
        return None
    try:
        return _compile(parse(text), fields, holds=True)
    except Refused as refusal:
        names = (
            f"{name}.KEY" if field.kind is Kind.LABELS else name for name, field in fields.items()
        )
        listed = ", ".join(sorted(names)) or "none"
        raise InvalidArgument.in_field("filter", f"{refusal}. Fields: {listed}.") from refusal


def _compile(node: Node, fields: Fields, holds: bool) -> ColumnElement[bool]:
    """The condition that a node holds, or that it doesn't.

    Denial is carried down to the restrictions: SQL's own NOT would leave unknown what is unknown.
    """
    if isinstance(node, Restriction):
        return _restrict(node, fields, holds)
    if isinstance(node, Not):
        return _compile(node.node, fields, not holds)
    conditions = [_compile(child, fields, holds) for child in node.nodes]
    return and_(*conditions) if isinstance(node, All) is holds else or_(*conditions)


def _restrict(node: Restriction, fields: Fields, holds: bool) -> ColumnElement[bool]:
    field, value = _subject(node, fields)
    column, comparator = field.column, node.comparator
    if comparator == ":" and value.wild and not value.text:
        return column.is_not(None) if holds else column.is_(None)
    if comparator in "=:":
        return _equal(field, value, holds)
    if comparator == "!=":
        return _equal(field, value, not holds)
    if field.kind is Kind.ENUM:
        raise Refused(node.position, f"the words of {node.field} have no order; use = or !=")
    if field.kind is Kind.TEXT:
        column = Bytewise(column)
    bound = _bind(field, value)
    condition = {
        "<": column < bound,
        "<=": column <= bound,
        ">": column > bound,
        ">=": column >= bound,
    }[comparator]
    return condition if holds else or_(column.is_(None), not_(condition))


def _subject(node: Restriction, fields: Fields) -> tuple[Field, Literal]:
    """What is compared with what; a label is a TEXT, and `labels:key` is `labels.key:*`."""
    field = fields.get(node.field)
    if field is None:
        raise Refused(node.position, f"no field {node.field!r} to filter by")
    key, value = node.key, node.value
    if field.kind is not Kind.LABELS:
        if key is None:
            return field, value
        raise Refused(key.position, f"{node.field} has no parts; write {node.field} alone")
    if key is None and node.comparator == ":":
        key, value = value, Literal("", head=True, tail=False, position=value.position)
    if key is None:
        remedy = f"{node.field}.KEY {node.comparator} VALUE, or {node.field}:KEY"
        raise Refused(node.position, f"{node.field} is a set of labels; write {remedy}")
    if key.wild or not _KEY.fullmatch(key.text):
        rule = "a label's key is ASCII without wildcards, quotes, backslashes or control characters"
        raise Refused(key.position, rule)
    # Mapped attributes and columns are both indexed like this, but declare it differently.
    return Field(cast(Any, field.column)[key.text].as_string(), Kind.TEXT), value


def _equal(field: Field, value: Literal, holds: bool) -> ColumnElement[bool]:
    column = field.column
    if not value.wild:
        bound = _bind(field, value)
        return column == bound if holds else column.is_distinct_from(bound)
    if field.kind is not Kind.TEXT:
        raise _no_wildcard(field, value)
    # Not LIKE, which in SQLite takes upper for lower case. Lengths are in characters on both
    # databases, as in Python; a text shorter than `tail` never equals it, wherever substr begins.
    text, length = literal(value.text, String()), len(value.text)
    condition: ColumnElement[bool]
    if not value.text:
        condition = column.is_not(None)
    elif value.head and value.tail:
        condition = func.replace(column, text, literal("", String())) != column
    elif value.head:
        condition = func.substr(column, func.length(column) - (length - 1)) == text
    else:
        condition = func.substr(column, 1, length) == text
    return condition if holds else or_(column.is_(None), not_(condition))


def _bind(field: Field, value: Literal) -> ColumnElement[Any]:
    """The value as a parameter, of a type wide enough for any that could be written."""
    if value.wild:
        raise _no_wildcard(field, value)
    kind, written = field.kind, value.text
    if kind is Kind.TEXT:
        return literal(written, String())
    if kind is Kind.ENUM:
        if written in field.words:
            return literal(written, String())
        raise Refused(value.position, f"{_short(written)} is none of {', '.join(field.words)}")
    if kind is Kind.INTEGER and _INTEGER.fullmatch(written) and abs(int(written)) <= _BIGGEST:
        return literal(int(written), BigInteger())
    if kind is Kind.NUMBER and _NUMBER.fullmatch(written) and math.isfinite(float(written)):
        return literal(float(written), Double())
    if kind is Kind.TIMESTAMP and (moment := _timestamp(written)) is not None:
        return literal(moment, cast(Any, field.column).type)
    raise Refused(value.position, f"expected {kind.value}, found {_short(written)}")


def _timestamp(written: str) -> datetime | None:
    """An RFC 3339 time in UTC, to the microsecond; None if it is none, or finer."""
    parts = _TIMESTAMP.fullmatch(written)
    if parts is None:
        return None
    day, clock, fraction, zone = parts.groups()
    try:
        return datetime.fromisoformat(
            f"{day}T{clock}.{(fraction or '').ljust(6, '0')}{zone.upper()}"
        ).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _no_wildcard(field: Field, value: Literal) -> Refused:
    place = "stands in = and !=" if field.kind is Kind.TEXT else "stands in text"
    return Refused(value.position, f'a wildcard {place} only; quote it as "\\*" for a star')


def _short(written: str) -> str:
    return repr(written if len(written) <= 40 else written[:40] + "...")
