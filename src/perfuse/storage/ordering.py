"""The order of a list: `order_by` (AIP-132) on an allow-list of fields, and always total.

    order = parse_order("create_time desc", {"create_time": Concept.create_time}, "", Concept.uid)
    select(Concept).order_by(*order.clauses)

Two rows never tie, because a unique column closes every order; so a page can begin right after
the last row of the one before it (`perfuse.storage.paging`). An order means the same on SQLite
and PostgreSQL: text goes by its bytes, and a missing value is smaller than any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import ColumnElement, Enum, SQLColumnExpression, String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from perfuse.errors import InvalidArgument

MAX_FIELDS = 2
MAX_LENGTH = 128

_FIELD = re.compile(r"\s*(?P<name>[A-Za-z_][A-Za-z0-9_.]*)(?:\s+(?P<direction>asc|desc))?\s*")


class Bytewise(FunctionElement[str]):
    """Text that sorts and compares by its UTF-8 bytes, whatever the database's locale.

    SQLite does so by itself; PostgreSQL is told to. An index serves such a comparison if its
    column has `String().with_variant(String(collation="C"), "postgresql")`.
    """

    name = "bytewise"
    type = String()
    inherit_cache = True


@compiles(Bytewise)
def _as_it_is(element: Bytewise, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(Bytewise, "postgresql")
def _collated(element: Bytewise, compiler: Any, **options: Any) -> str:
    return f'({compiler.process(element.clauses, **options)}) COLLATE "C"'


@dataclass(frozen=True)
class Key:
    """One column of an order.

    Attributes:
        name: As in `order_by`.
        column: What is compared: the column itself, text as `Bytewise`.
        nullable: Whether rows may lack it.
    """

    name: str
    column: ColumnElement[Any]
    descending: bool
    nullable: bool

    @property
    def clause(self) -> ColumnElement[Any]:
        """For ORDER BY; where nulls go is said only if there can be any, for the index's sake."""
        clause = self.column.desc() if self.descending else self.column.asc()
        if not self.nullable:
            return clause
        return clause.nulls_last() if self.descending else clause.nulls_first()


@dataclass(frozen=True)
class Order:
    """A total order of rows; the last key is unique."""

    keys: tuple[Key, ...]

    @property
    def clauses(self) -> tuple[ColumnElement[Any], ...]:
        """What goes into `select(...).order_by(*clauses)`."""
        return tuple(key.clause for key in self.keys)

    @property
    def columns(self) -> tuple[ColumnElement[Any], ...]:
        """What to select beside the row, so that a page token can be made of its values."""
        return tuple(key.column for key in self.keys)

    def __str__(self) -> str:
        """The order in one spelling, e.g. `create_time desc, uid desc`."""
        return ", ".join(f"{key.name} desc" if key.descending else key.name for key in self.keys)


def parse_order(
    text: str,
    allowed: Mapping[str, SQLColumnExpression[Any]],
    default: str,
    unique: SQLColumnExpression[Any],
) -> Order:
    """The order that a request asks for.

    Args:
        text: The request's `order_by`, e.g. `create_time desc, name`; at most `MAX_FIELDS` fields.
        allowed: The columns that it may name.
        default: The `order_by` of a request that gives none.
        unique: A column that no two rows share and none lacks. It closes the order, in the
            direction of the key before it, so that one index can serve both.

    Raises:
        InvalidArgument: `text` names an unknown field, one field twice, too many, or no order.
    """
    text = text if text.strip() else default
    if len(text) > MAX_LENGTH:
        raise _refusal(f"{len(text)} characters long; at most {MAX_LENGTH} are read", allowed)
    entries = text.split(",") if text.strip() else []
    if len(entries) > MAX_FIELDS:
        raise _refusal(f"{len(entries)} fields; at most {MAX_FIELDS} are taken", allowed)
    keys: list[Key] = []
    for entry in entries:
        field = _FIELD.fullmatch(entry)
        if field is None:
            raise _refusal(f"{entry.strip()!r} is not a field, alone or with asc or desc", allowed)
        name = field["name"]
        if name not in allowed:
            raise _refusal(f"{name!r} is not a field to order by", allowed)
        if any(key.name == name for key in keys):
            raise _refusal(f"{name!r} is given twice; name it once", allowed)
        key = _key(name, allowed[name], field["direction"] == "desc")
        if allowed[name] is unique:  # what follows a unique column decides nothing
            return Order((*keys, Key(name, key.column, key.descending, nullable=False)))
        keys.append(key)
    closing = _key(str(getattr(unique, "key", "")), unique, bool(keys) and keys[-1].descending)
    return Order((*keys, Key(closing.name, closing.column, closing.descending, nullable=False)))


def _key(name: str, column: SQLColumnExpression[Any], descending: bool) -> Key:
    # Columns and mapped attributes both have it, but SQLAlchemy declares it on neither's base.
    expression: ColumnElement[Any] = cast(Any, column).expression
    kind = expression.type
    while isinstance(kind, TypeDecorator):
        kind = kind.impl_instance
    nullable = bool(getattr(expression, "nullable", True))
    if isinstance(kind, String) and not isinstance(kind, Enum):
        expression = Bytewise(expression)
    return Key(name, expression, descending, nullable)


def _refusal(what: str, allowed: Mapping[str, object]) -> InvalidArgument:
    fields = ", ".join(sorted(allowed)) or "none"
    return InvalidArgument.in_field("order_by", f"{what}. Fields: {fields}.")
