"""The gate before an adapter file: its header, its base model, its values.

An input's first byte says how the rest becomes a file, so that lengths that agree need not be found
by chance: the file itself, the header's text, the metadata's text, or the tensors' values.

Laws: only refusals, whose messages are short and printable; and of a file that passes, the header
is the only one that says what it says, and the whole reader takes it and writes the same bytes.
"""

from __future__ import annotations

import json

from adapter import samples

from perfuse.adapter import check_finite, encode_header, read_header
from perfuse.adapter.tensors import Adapter
from perfuse.errors import AdapterRefused, BaseModelMismatch

VALID = samples.file_bytes(samples.metadata())
_HEADER = read_header(VALID)
_TEXT = VALID[8 : _HEADER.payload_offset]
_PAYLOAD = VALID[_HEADER.payload_offset :]
_DOCUMENT = json.loads(_TEXT)
_MESSAGE = 600


def seeds() -> dict[str, bytes]:
    """Valid files, and one of each hostile kind."""
    from hostile.catalogue import HOSTILE

    trained = samples.metadata(key_lock="TRAINED_K", dtype="float32")
    found = {
        "file": b"\0" + VALID,
        "trained": b"\0" + samples.file_bytes(trained),
        "header": b"\1" + _TEXT.rstrip(b" "),
        "metadata": b"\2" + _DOCUMENT["__metadata__"]["perfuse"].encode(),
        "values": b"\3" + _PAYLOAD,
    }
    hostile = {case.name: case.data() for case in HOSTILE}
    return found | {name: b"\0" + data for name, data in hostile.items() if len(data) < 2048}


def one(data: bytes) -> None:
    """Judge one file."""
    offered = _file(data)
    try:
        header = read_header(offered)
        header.require_base(samples.BASE)
        check_finite(header, offered)
    except (AdapterRefused, BaseModelMismatch) as refusal:
        message = str(refusal)
        assert len(message) <= _MESSAGE, message
        assert message.isascii(), message
        assert message.isprintable(), message
        return
    assert encode_header(header.metadata) == offered[: header.payload_offset]
    assert Adapter.from_bytes(offered, expect_base=samples.BASE).to_bytes() == offered


def _file(data: bytes) -> bytes:
    kind, rest = data[:1], data[1:]
    if kind == b"\1":
        return _packed(rest)
    if kind == b"\2":
        # What is not UTF-8 reaches the header in kind 1; here the metadata is text in any case.
        text = rest.decode(errors="replace")
        document = _DOCUMENT | {"__metadata__": {"perfuse": text}}
        return _packed(json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode())
    if kind == b"\3":
        return VALID[: _HEADER.payload_offset] + rest
    return rest


def _packed(header: bytes) -> bytes:
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + _PAYLOAD
