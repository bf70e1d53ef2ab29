"""Pages of a list (AIP-158): where one ends, the next begins, whatever came or went meanwhile.

    size = page_size(request.page_size)
    after = tokens.read(request.page_token, listing, order)
    query = select(Concept, *order.columns).order_by(*order.clauses).limit(size + 1)
    if after is not None:
        query = query.where(keyset(order, after))

A page token holds the order's values in the last row shown, not an offset: a page costs the same
however deep it lies, and a row is neither shown twice nor skipped when others are made or deleted.
A token can be read by who holds it but not made or altered: it is signed together with everything
else that the list was asked for, so it continues that list and no other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, and_, false, literal, or_, true, tuple_

from perfuse.errors import InvalidArgument
from perfuse.storage.ordering import Key, Order

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
MAX_TOKEN_LENGTH = 1024
MIN_KEY_LENGTH = 32

KeyValue = str | int | float | datetime | None

_VERSION = b"\x01"
_MAC_LENGTH = 16
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def page_size(requested: int, default: int = DEFAULT_PAGE_SIZE, cap: int = MAX_PAGE_SIZE) -> int:
    """How many rows to give: `default` for 0, never more than `cap`; a negative is refused."""
    if requested < 0:
        raise InvalidArgument.in_field(
            "page_size", f"{requested} is negative; give 0 for {default}, or 1 to {cap}."
        )
    return min(requested or default, cap)


@dataclass(frozen=True)
class Listing:
    """What a page token continues, beside the order: everything that chooses the rows.

    Attributes:
        tenant: The caller's tenant, from the credentials.
        method: The rpc, so that two lists under one parent stay apart.
        parent: As in the request, as is `filter`.
    """

    tenant: str
    method: str
    parent: str
    filter: str = ""
    show_deleted: bool = False


class PageTokens:
    """Makes page tokens and reads them back."""

    def __init__(self, key: bytes) -> None:
        """
        Args:
            key: The secret that signs, at least `MIN_KEY_LENGTH` bytes; the same in every replica.
        """
        if len(key) < MIN_KEY_LENGTH:
            raise ValueError(
                f"a page-token key has {MIN_KEY_LENGTH} bytes or more, this one {len(key)}; "
                f"make one with secrets.token_bytes({MIN_KEY_LENGTH})"
            )
        self._key = key

    def issue(self, listing: Listing, order: Order, values: Sequence[KeyValue]) -> str:
        """The token of the page that begins after the row with these values of `order.columns`.

        A time without a zone is taken as UTC, as SQLite gives it back.

        Raises:
            ValueError: The values don't fit the order, or fill more than a token may hold: 700
                bytes of text in all fit, quotes and backslashes counting twice and control
                characters six times. A list must not allow longer columns in its `order_by`.
        """
        if len(values) != len(order.keys):
            raise ValueError(f"{len(values)} values for the {len(order.keys)} keys of {order}")
        payload = _canonical([_to_json(value) for value in values])
        body = _VERSION + self._mac(listing, order, payload) + payload
        token = base64.urlsafe_b64encode(body).rstrip(b"=").decode()
        if len(token) > MAX_TOKEN_LENGTH:
            raise ValueError(
                f"a page token of {len(token)} characters, over {MAX_TOKEN_LENGTH}: "
                f"the values of {order} are too long to order by"
            )
        return token

    def read(self, token: str, listing: Listing, order: Order) -> tuple[KeyValue, ...] | None:
        """The values after which the page begins; None for the first page's empty token.

        Raises:
            InvalidArgument: We did not make this token, or not for this listing in this order.
        """
        if not token:
            return None
        if len(token) > MAX_TOKEN_LENGTH:
            raise _refusal()
        try:
            body = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise _refusal() from error
        # Bits beyond the last whole byte are dropped in decoding; a token has one spelling only.
        if base64.urlsafe_b64encode(body).rstrip(b"=").decode() != token:
            raise _refusal()
        version, mac, payload = body[:1], body[1 : 1 + _MAC_LENGTH], body[1 + _MAC_LENGTH :]
        expected = self._mac(listing, order, payload)
        if version != _VERSION or not hmac.compare_digest(mac, expected):
            raise _refusal()
        return tuple(_from_json(value) for value in json.loads(payload))

    def _mac(self, listing: Listing, order: Order, payload: bytes) -> bytes:
        # The listing's length goes first, so that no byte can move between the two parts.
        bound = _canonical(["perfuse.page_token", *astuple(listing), str(order)])
        message = _VERSION + len(bound).to_bytes(4, "big") + bound + payload
        return hmac.new(self._key, message, hashlib.sha256).digest()[:_MAC_LENGTH]


def keyset(order: Order, values: Sequence[KeyValue | BindParameter[Any]]) -> ColumnElement[bool]:
    """The condition that a row comes after the one with these values of `order.columns`.

    A `bindparam` may stand for a value that is not missing.

    Keys of one direction become one row comparison, `(a, b) > (x, y)`, which both databases look
    up in an index on (a, b). Otherwise it is spelled out, key by key, with the first key's range
    ahead of it, which an index on that key can serve.
    """
    if len(values) != len(order.keys):
        raise ValueError(f"{len(values)} values for the {len(order.keys)} keys of {order}")
    pairs = list(zip(order.keys, values, strict=True))
    first = order.keys[0]
    if all(key.descending == first.descending and not key.nullable for key in order.keys):
        if len(pairs) == 1:
            return _beyond(*pairs[0])
        columns = tuple_(*(key.column for key in order.keys))
        row = tuple_(*(_bound(key, value) for key, value in pairs))
        return columns < row if first.descending else columns > row
    after = _beyond(*pairs[-1])
    for key, value in reversed(pairs[:-1]):
        after = or_(_beyond(key, value), and_(_at(key, value), after))
    return and_(_at_or_beyond(*pairs[0]), after)


def _bound(key: Key, value: KeyValue | BindParameter[Any]) -> BindParameter[Any]:
    return value if isinstance(value, BindParameter) else literal(value, key.column.type)


def _at(key: Key, value: KeyValue | BindParameter[Any]) -> ColumnElement[bool]:
    return key.column.is_(None) if value is None else key.column == _bound(key, value)


def _beyond(key: Key, value: KeyValue | BindParameter[Any]) -> ColumnElement[bool]:
    """The key comes later than the value; a missing one is smaller than any other."""
    if value is None:
        return false() if key.descending else key.column.is_not(None)
    bound = _bound(key, value)
    if not key.descending:
        return key.column > bound
    return or_(key.column < bound, key.column.is_(None)) if key.nullable else key.column < bound


def _at_or_beyond(key: Key, value: KeyValue | BindParameter[Any]) -> ColumnElement[bool]:
    # One comparison, not the `or` of two: PostgreSQL makes no index range of that.
    if value is None:
        return key.column.is_(None) if key.descending else true()
    bound = _bound(key, value)
    if not key.descending:
        return key.column >= bound
    return or_(key.column <= bound, key.column.is_(None)) if key.nullable else key.column <= bound


def _to_json(value: KeyValue) -> object:
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return [(moment - _EPOCH) // timedelta(microseconds=1)]  # whole: a float would round it
    if value is None or (isinstance(value, str | int | float) and not isinstance(value, bool)):
        return value
    raise TypeError(f"a page token holds text, numbers, times and None, not {type(value).__name__}")


def _from_json(value: Any) -> KeyValue:
    if isinstance(value, list):
        return _EPOCH + timedelta(microseconds=value[0])
    known: KeyValue = value
    return known


def _canonical(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _refusal() -> InvalidArgument:
    return InvalidArgument.in_field(
        "page_token",
        "not a token of this list, or another parent, filter, order_by or show_deleted than in "
        "the call that gave it; start again without a token.",
    )
