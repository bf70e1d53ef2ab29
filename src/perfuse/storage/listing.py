"""Pages of any list: filter, order and token applied to a query, one row more than shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select, bindparam

from perfuse.storage.database import AnyRow, Database
from perfuse.storage.filters import Field, compile_filter
from perfuse.storage.ordering import Order, parse_order
from perfuse.storage.paging import KeyValue, Listing, PageTokens, keyset, page_size
from perfuse.storage.prepared import Prepared

Item = TypeVar("Item")

# Four bytes of UTF-8 each at most, which leaves half of a message to all else.
_MOST_CHARACTERS = 1 << 20


@dataclass(frozen=True)
class Page(Generic[Item]):
    """One page of a list; `next_page_token` is empty on the last."""

    items: list[Item]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class Query:
    """What a list call asks for, as the caller wrote it."""

    page_size: int = 0
    page_token: str = ""
    filter: str = ""
    order_by: str = ""
    show_deleted: bool = False


class Lists:
    """What lists share: the database and the key that signs page tokens."""

    def __init__(self, database: Database, tokens: PageTokens) -> None:
        self._database = database
        self._tokens = tokens
        self._prepared: dict[tuple[Select[Any], str, bool], Prepared] = {}

    def page(
        self,
        chosen: Select[Any],
        query: Query,
        listing: Listing,
        filters: Mapping[str, Field],
        orders: Mapping[str, Any],
        default_order: str,
        unique: Any,
        item_of: Callable[[AnyRow], Item],
        values: Mapping[str, Any] | None = None,
    ) -> Page[Item]:
        """One page of the rows that `chosen` selects.

        Args:
            chosen: All rows that the caller may see under the parent.
            query: As asked.
            listing: What a page token of this list is bound to.
            filters: Fields that a filter may name.
            orders: Columns that `order_by` may name.
            default_order: Where the query names none.
            unique: A unique column, which makes the order total.
            item_of: A row's item.
            values: Of the `bindparam`s in `chosen`. With them `chosen` must be one and the same
                object in every call, of which there are few: its pages are prepared.

        Raises:
            InvalidArgument: filter, order, token or size.
        """
        size = page_size(query.page_size)
        order = parse_order(query.order_by, orders, default_order, unique)
        condition = compile_filter(query.filter, filters)
        after = self._tokens.read(query.page_token, listing, order)
        # A missing value makes another condition, and a filter any.
        if values is not None and condition is None and None not in (after or ()):
            rows = self._rows(chosen, order, after, size + 1, values)
        else:
            if condition is not None:
                chosen = chosen.where(condition)
            statement = _page(chosen, order, after).limit(size + 1)
            rows = self._database.read(
                lambda connection: connection.execute(statement, dict(values or {})).all()
            )
        token = ""
        size = _fitting(rows, size)
        if len(rows) > size:
            rows = rows[:size]
            last = [getattr(rows[-1], f"key_{index}") for index in range(len(order.keys))]
            token = self._tokens.issue(listing, order, last)
        return Page([item_of(row) for row in rows], token)

    def _rows(
        self,
        chosen: Select[Any],
        order: Order,
        after: Sequence[KeyValue] | None,
        limit: int,
        values: Mapping[str, Any],
    ) -> Sequence[AnyRow]:
        key = chosen, str(order), after is None
        prepared = self._prepared.get(key)
        if prepared is None:
            names = [
                bindparam(f"after_{index}", type_=key.column.type)
                for index, key in enumerate(order.keys)
            ]
            statement = _page(chosen, order, None if after is None else names)
            prepared = self._prepared[key] = Prepared(statement.limit(bindparam("page_limit")))
        bound = {f"after_{index}": value for index, value in enumerate(after or ())}
        return self._database.read(
            lambda connection: prepared.all(connection, page_limit=limit, **bound, **values)
        )


def _fitting(rows: Sequence[AnyRow], size: int) -> int:
    """How many of the rows a page takes: `size`, or fewer where they are large; never none."""
    characters = 0
    for count, row in enumerate(rows[:size]):
        characters += sum(map(_characters, row))
        if characters > _MOST_CHARACTERS and count:
            return count
    return size


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(key) + _characters(each) for key, each in value.items())
    if isinstance(value, list):
        return sum(map(_characters, value))
    return 8


def _page(chosen: Select[Any], order: Order, after: Sequence[Any] | None) -> Select[Any]:
    """The rows after the one with these values of the order's columns, and those values of each."""
    if after is not None:
        chosen = chosen.where(keyset(order, after))
    keys = [column.label(f"key_{index}") for index, column in enumerate(order.columns)]
    return chosen.add_columns(*keys).order_by(*order.clauses)
