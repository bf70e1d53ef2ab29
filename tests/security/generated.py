"""Requests of every shape, drawn from the descriptors: nearly right, at the rules' borders, wild.

A request begins as one that keeps all rules (`security.requests.about`); then some of its fields
take other values. What is drawn last are the bytes: sometimes with fields that no proto has, cut
off, or altered.
"""

from __future__ import annotations

import math
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st
from registry import samples

from perfuse.adapter import digest
from security.requests import METHODS, about, empty

_DEPTH = 3
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
# Lengths and numbers on either side of the borders that the protos' rules draw.
_LENGTHS = (0, 1, 32, 33, 63, 64, 65, 128, 129, 200, 256, 257, 512, 1024, 1025, 4096, 4097, 8193)
_NUMBERS = (-1, 0, 1, 2, 15, 16, 17, 50, 51, 64, 65, 100, 200, 201, 1000, 1001, 2048, 2049, 20001)
_REALS = (0.0, -0.0, 1.0, 50.0, 50.000001, 1e-320, -1e308, math.inf, -math.inf, math.nan)
_ODD = (
    *("\0", "\x01", "\x7f", "\0tom", "e\u0301\u0301\u0301", "\u202etom", "\ufeff", "\ud7ff"),
    *("\uffff", "\U0010ffff", "\U0001f468\u200d", "\ufb03", "\u0130", "ß", "\\", '"', "'", "*"),
    *("%s%n", "${x}", "../..", "tenants/-", "tenants/fuzzer//", "<", "<<a>>", "<tom", "\\<"),
    *("' OR 1=1 --", "name = ", "(" * 200, "NOT " * 100, "a=1 OR " * 60, "create_time desc, "),
    *("A" * 1024, "9" * 40, "-infinity"),
)
_MILD = (
    *("cat", "tom", "tim", "prod", "latest", "1", "2", "a photo of <tom>", "ddim", "labels:note"),
    *("concept_id", "create_time desc", 'concept_id = "tom"', "name:*", "display_name", "labels"),
    *("create_time > 2026-01-01T00:00:00Z", "description", "6f1f2f9e-52bb-4a34-8d5c-2a2f3a3c8d11"),
    *("tenants/fuzzer", "tenants/fuzzer/concepts/tom", "tenants/fuzzer/concepts/tom/versions/1"),
    *("tenants/fuzzer/concepts/tom/aliases/prod", "tenants/fuzzer/imageSets/tom"),
    *("baseModels/small", "sha256:" + "0" * 64),
    "tenants/fuzzer/concepts/tom/versions/999999999999999999",
)


def texts() -> st.SearchStrategy[str]:
    """Odd texts, names, any text, and long ones."""
    return st.one_of(
        st.sampled_from(_MILD),
        st.sampled_from(_MILD),
        st.sampled_from(_ODD),
        st.text(st.characters(codec="utf-8"), max_size=40),
        st.builds(
            lambda letter, length: letter * length,
            st.sampled_from(("a", "é", "\U0001f600", "\x01", " ", "9", "<a>", '"')),
            st.sampled_from(_LENGTHS),
        ),
    )


@st.composite
def requests(draw: st.DrawFn, rpc: str, tenant: str) -> bytes:
    """The bytes of a request."""
    request = whole(rpc, tenant) if draw(st.integers(0, 7)) else empty(rpc)
    for _ in range(draw(st.integers(0, 3))):
        _change(draw, request, _DEPTH)
    _spare(request)
    raw: bytes = request.SerializeToString()
    kind = draw(st.integers(0, 15))
    if kind == 0:
        # Fields that no proto has, whole and as a group.
        raw += draw(st.sampled_from((b"\xfa\x7f\x02\xff\xff", b"\xf8\x7f\x01", b"\x0b\x0c")))
    elif kind == 1:
        raw = raw[: draw(st.integers(0, len(raw)))]
    elif kind == 2:
        raw += draw(st.binary(max_size=24))
    return raw


def whole(rpc: str, tenant: str) -> Any:
    """A request that does something, for what the rules ask for beyond the proto."""
    request = about(rpc, tenant)
    _fill(request)
    if "adapter" in request.DESCRIPTOR.fields_by_name:
        request.adapter = samples.adapter(5)
        request.digest = digest(request.adapter)
    return request


def _fill(message: Any) -> None:
    if "super_category" in message.DESCRIPTOR.fields_by_name:
        message.super_category = "cat"
    for field, value in message.ListFields():
        if field.message_type is not None and not field.is_repeated:
            _fill(value)


def streams(rpc: str, tenant: str) -> st.SearchStrategy[list[bytes]]:
    """The bytes of a stream's requests."""
    return st.lists(requests(rpc, tenant), max_size=4)


def of(rpc: str, tenant: str) -> st.SearchStrategy[Any]:
    """What a call of the rpc sends."""
    return (streams if METHODS[rpc].client_streaming else requests)(rpc, tenant)


def _change(draw: st.DrawFn, message: Message, depth: int) -> None:
    """Give one field of a message, or of one within it, another value."""
    fields = message.DESCRIPTOR.fields
    if not fields:
        return
    field = draw(st.sampled_from(list(fields)))
    holder: Any = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        # Maps of ours are texts by texts.
        holder[draw(texts())] = draw(texts())
        for index in range(draw(st.sampled_from((0, 3, 65)))):
            holder[f"a{index}"] = "b"
        return
    if field.is_repeated:
        count = draw(st.sampled_from((1, 2, 17, 101)))
        if field.message_type is None:
            holder.extend([draw(_values(field))] * count)
        else:
            _change(draw, holder.add(), depth - 1)
            holder.extend([holder[-1]] * (count - 1))
        return
    if field.message_type is None:
        setattr(message, field.name, draw(_values(field)))
    elif draw(st.integers(0, 5)) == 0:
        message.ClearField(field.name)
    else:
        holder.SetInParent()
        if depth:
            _change(draw, holder, depth - 1)


def _values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.type == FieldDescriptor.TYPE_STRING:
        return texts()
    if field.type == FieldDescriptor.TYPE_BYTES:
        begun = st.sampled_from((b"\0" * 4096, b"\x89PNG\r\n\x1a\n"))
        return st.one_of(st.binary(max_size=64), begun)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_ENUM:
        return st.sampled_from((0, 1, 2, 3, 99, -1, 2**31 - 1))
    if field.cpp_type in _INTEGERS:
        lowest, highest = _INTEGERS[field.cpp_type]
        borders = [each for each in (*_NUMBERS, lowest, highest) if lowest <= each <= highest]
        return st.one_of(st.sampled_from(borders), st.integers(lowest, highest))
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return st.floats(width=32)
    return st.one_of(st.sampled_from(_REALS), st.floats())


def _spare(request: Any) -> None:
    """Let a render that keeps all rules be a small one: the calls are many, the cores are few."""
    settings = getattr(request, "settings", None)
    if settings is None or "image_count" not in settings.DESCRIPTOR.fields_by_name:
        return
    if 0 <= settings.steps <= 200:
        settings.steps = 1
    for side in ("width", "height"):
        if 64 < getattr(settings, side) <= 2048:
            setattr(settings, side, 64 + getattr(settings, side) % 8)
    if settings.image_count in range(2, 17):
        settings.image_count = 1
    if len(settings.seeds) in range(2, 17):
        del settings.seeds[1:]
