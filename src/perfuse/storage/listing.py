"""Pages of any list: filter, order and token applied to a query, one row more than shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select

from perfuse.storage.database import AnyRow, Database
from perfuse.storage.filters import Field, compile_filter
from perfuse.storage.ordering import parse_order
from perfuse.storage.paging import Listing, PageTokens, keyset, page_size

Item = TypeVar("Item")


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

        Raises:
            InvalidArgument: filter, order, token or size.
        """
        size = page_size(query.page_size)
        order = parse_order(query.order_by, orders, default_order, unique)
        condition = compile_filter(query.filter, filters)
        after = self._tokens.read(query.page_token, listing, order)
        if condition is not None:
            chosen = chosen.where(condition)
        if after is not None:
            chosen = chosen.where(keyset(order, after))
        keys = [column.label(f"key_{index}") for index, column in enumerate(order.columns)]
        chosen = chosen.add_columns(*keys).order_by(*order.clauses).limit(size + 1)
        rows = self._database.read(lambda connection: connection.execute(chosen).all())
        token = ""
        if len(rows) > size:
            rows = rows[:size]
            values = [getattr(rows[-1], key.name) for key in keys]
            token = self._tokens.issue(listing, order, values)
        return Page([item_of(row) for row in rows], token)
