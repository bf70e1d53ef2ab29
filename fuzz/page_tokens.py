"""Page tokens: what was never given is never taken.

An input's first byte says what it is: a token as a stranger sends it, a change of one that was
given, or values to give one for.

Laws: only InvalidArgument, naming the field; a token that is read is one that was given, for this
list; and what was given reads back as it was.
"""

from __future__ import annotations

import json

import sqlalchemy as sa

from perfuse.errors import InvalidArgument
from perfuse.storage.ordering import parse_order
from perfuse.storage.paging import KeyValue, Listing, PageTokens

_THINGS = sa.Table(
    "things",
    sa.MetaData(),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("size", sa.BigInteger),
    sa.Column("uid", sa.String, unique=True, nullable=False),
)
_TOKENS = PageTokens(b"k" * 32)
_ORDER = parse_order(
    "name, size desc", {"name": _THINGS.c.name, "size": _THINGS.c.size}, "", _THINGS.c.uid
)
_LISTING = Listing("acme", "ListThings", "tenants/acme", 'name = "tom"')
_OTHERS = (
    Listing("globex", "ListThings", "tenants/acme", 'name = "tom"'),
    Listing("acme", "ListOthers", "tenants/acme", 'name = "tom"'),
    Listing("acme", "ListThings", "tenants/acme", 'name = "tom"', show_deleted=True),
    Listing("acme", "ListThingstenants/acme", "", 'name = "tom"'),
)
_GIVEN = _TOKENS.issue(_LISTING, _ORDER, ("tom", 7, "u-1"))


def seeds() -> dict[str, bytes]:
    """A token that was given, its neighbours, and what is none."""
    return {
        "given": b"\0" + _GIVEN.encode(),
        "padded": b"\0" + _GIVEN.encode() + b"=",
        "other-alphabet": b"\0" + _GIVEN.encode().replace(b"_", b"/").replace(b"-", b"+"),
        "empty": b"\0",
        "long": b"\0" + b"A" * 1100,
        "not-base64": b"\0%00\xff",
        "changed": b"\1\x05\x41",
        "appended": b"\1\xff==",
        "values": b"\2\x00\x00\x00\x00\x00\x00\x00\x07tom\0u-1",
        "odd-values": b'\2\xff\xff\xff\xff\xff\xff\xff\xff\\"\xc3\xa9\xe2\x80\xa8\0\0',
    }


def one(data: bytes) -> None:
    """Read, change or give one token."""
    kind, rest = data[:1], data[1:]
    if kind == b"\2":
        _give(rest)
        return
    text = rest.decode(errors="replace")
    if kind == b"\1":
        place = (rest[0] if rest else 0) % (len(_GIVEN) + 1)
        text = _GIVEN[:place] + rest[1:].decode(errors="replace") + _GIVEN[place + 1 :]
    values = _read(text, _LISTING)
    assert values is None or text == _GIVEN, "a token that was never given was read"
    assert all(_read(text, other) is None for other in _OTHERS), "a token of another list was read"


def _give(rest: bytes) -> None:
    size, texts = int.from_bytes(rest[:8], "big", signed=True), rest[8:].decode(errors="replace")
    name, _, uid = texts.partition("\0")
    values: tuple[KeyValue, ...] = (name, size if len(rest) % 2 else None, uid)
    try:
        token = _TOKENS.issue(_LISTING, _ORDER, values)
    except ValueError:
        # What `issue` promises: 700 bytes fit, as JSON writes them.
        assert len(json.dumps([name, uid], ensure_ascii=False).encode()) > 700
        return
    assert _TOKENS.read(token, _LISTING, _ORDER) == values
    assert all(_read(token, other) is None for other in _OTHERS)


def _read(token: str, listing: Listing) -> tuple[KeyValue, ...] | None:
    try:
        return _TOKENS.read(token, listing, _ORDER)
    except InvalidArgument as refusal:
        assert [field for field, _ in refusal.violations] == ["page_token"]
        assert token not in str(refusal) or len(token) < 8
        return None
