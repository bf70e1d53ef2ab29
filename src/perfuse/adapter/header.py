"""The head of an adapter file, judged from its bytes alone: neither torch nor numpy is needed.

An adapter is a safetensors file: 8 bytes of header length (little-endian), the header as JSON,
then the tensors. An adapter's metadata fixes its whole header, byte for byte, so two files of
the same adapter cannot differ and a digest is an identity. `docs/adapter-format.md` is the rule.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from os import PathLike

from perfuse.adapter import limits, strict_json
from perfuse.adapter.errors import (
    FileTooLarge,
    HeaderTooLarge,
    MalformedHeader,
    MetadataInvalid,
    NotCanonical,
    TrailingBytes,
    Truncated,
    shown,
)
from perfuse.adapter.file import read_prefix
from perfuse.adapter.layout import TensorSpec, check_tensors, layout
from perfuse.adapter.metadata import AdapterMetadata, Encoder, Layer, Scalar
from perfuse.errors import AdapterRefused, BaseModelMismatch

__all__ = [
    "AdapterHeader",
    "AdapterMetadata",
    "Encoder",
    "Layer",
    "Scalar",
    "TensorSpec",
    "digest",
    "encode_header",
    "read_header",
]

METADATA_KEY = "perfuse"
_RESERVED = "__metadata__"
# Made once, as `json.dumps` does not.
_to_text = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True)
class AdapterHeader:
    """A header that has passed every rule.

    Attributes:
        metadata: what the adapter says about itself.
        tensors: the tensors in file order, without gap or overlap.
        payload_offset: bytes before the first tensor.
        total_size: bytes of the whole file.
    """

    metadata: AdapterMetadata
    tensors: tuple[TensorSpec, ...]
    payload_offset: int
    total_size: int

    @classmethod
    def parse(cls, prefix: bytes, total_size: int) -> AdapterHeader:
        """Judges a file by its first bytes and its size.

        Args:
            prefix: the file's beginning; `limits.PREFIX_BYTES` always suffice, and more is ignored.
            total_size: bytes of the whole file.

        Raises:
            AdapterRefused: as one of the cases of `perfuse.adapter.errors`.
        """
        text, payload_offset = _header_text(prefix, total_size)
        metadata = _of_canonical(text, prefix[:payload_offset])
        if metadata is None:
            _refuse_faulty(text, payload_offset, total_size)
            raise NotCanonical(
                "the header says the right thing in other bytes than the format prescribes (order "
                "of keys, spaces, escapes or spelling of numbers), so the digest would not "
                "identify the adapter. Write the file with perfuse"
            )
        tensors = layout(metadata)
        _check_size(tensors, payload_offset, total_size)
        return cls(metadata, tensors, payload_offset, total_size)

    def span(self, name: str) -> slice:
        """The bytes of the tensor `name` within the file."""
        for tensor in self.tensors:
            if tensor.name == name:
                return slice(self.payload_offset + tensor.begin, self.payload_offset + tensor.end)
        raise KeyError(name)

    def require_base(self, fingerprint: str) -> None:
        """Refuses an adapter that was made for another base model than `fingerprint`.

        Raises:
            BaseModelMismatch: naming both.
        """
        if self.metadata.base_model != fingerprint:
            raise BaseModelMismatch(
                f"the adapter was made for base model {self.metadata.base_model} "
                f"({self.metadata.architecture}), and the base model at hand is "
                f"{shown(fingerprint)}. Load that base model, or train the concept on this one"
            )


def encode_header(metadata: AdapterMetadata) -> bytes:
    """The only header for `metadata`: length, JSON, and spaces up to a multiple of 8 bytes.

    Keys, their order and the padding are those of safetensors' own writer.

    Raises:
        HeaderTooLarge, FileTooLarge: the adapter would exceed the format's limits.
    """
    tensors = layout(metadata)
    document: dict[str, object] = {_RESERVED: {METADATA_KEY: metadata.to_json()}}
    for tensor in tensors:
        document[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [tensor.begin, tensor.end],
        }
    header = _to_text(document).encode()
    header += b" " * (-len(header) % limits.HEADER_ALIGNMENT)
    if len(header) > limits.MAX_HEADER_BYTES:
        raise HeaderTooLarge(_too_large("the header", len(header), limits.MAX_HEADER_BYTES))
    total = limits.LENGTH_BYTES + len(header) + tensors[-1].end
    if total > limits.MAX_FILE_BYTES:
        raise FileTooLarge(_too_large("the adapter", total, limits.MAX_FILE_BYTES))
    return len(header).to_bytes(limits.LENGTH_BYTES, "little") + header


def read_header(source: bytes | str | PathLike[str]) -> AdapterHeader:
    """Judges a file's header; of a path, no more than `limits.PREFIX_BYTES` are read.

    Raises:
        NotFound: no file at this path.
        AdapterRefused: as one of the cases of `perfuse.adapter.errors`.
    """
    if isinstance(source, bytes):
        return AdapterHeader.parse(source[: limits.PREFIX_BYTES], len(source))
    return AdapterHeader.parse(*read_prefix(source))


def digest(data: bytes) -> str:
    """The identity of bytes: "sha256:" and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _too_large(what: str, size: int, limit: int) -> str:
    return f"{what} has {size} bytes; at most {limit} are allowed. It is no adapter of one concept"


def _header_text(prefix: bytes, total_size: int) -> tuple[str, int]:
    if total_size > limits.MAX_FILE_BYTES:
        raise FileTooLarge(_too_large("the file", total_size, limits.MAX_FILE_BYTES))
    if min(total_size, len(prefix)) < limits.LENGTH_BYTES:
        raise Truncated(
            f"the file has {min(total_size, len(prefix))} bytes; its header's length alone takes "
            f"{limits.LENGTH_BYTES}. Fetch it again"
        )
    length = int.from_bytes(prefix[: limits.LENGTH_BYTES], "little")
    if length > limits.MAX_HEADER_BYTES:
        raise HeaderTooLarge(_too_large("the header", length, limits.MAX_HEADER_BYTES))
    end = limits.LENGTH_BYTES + length
    if min(total_size, len(prefix)) < end:
        raise Truncated(
            f"the header ends at byte {end} and only {min(total_size, len(prefix))} are there. "
            "Fetch the file again"
        )
    try:
        text = prefix[limits.LENGTH_BYTES : end].decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedHeader(
            f"the header is not UTF-8 at its byte {error.start}. The file is damaged, or not an "
            "adapter"
        ) from None
    if not text.startswith("{"):
        raise MalformedHeader(f"the header begins with {shown(text[:8])}; it must begin with '{{'")
    return text, end


def _of_canonical(text: str, header: bytes) -> AdapterMetadata | None:
    """The metadata of a header in its one form, None for any other.

    What `encode_header` writes keeps every rule, so a header that is byte for byte what it writes
    needs no other judgement, and Python's own reader of JSON will do: whatever it lets pass that
    the strict one does not, `encode_header` would not have written.
    """
    try:
        metadata = AdapterMetadata.from_document(
            json.loads(json.loads(text)[_RESERVED][METADATA_KEY])
        )
        return metadata if encode_header(metadata) == header else None
    except (ValueError, LookupError, TypeError, RecursionError, AdapterRefused):
        return None


def _refuse_faulty(text: str, payload_offset: int, total_size: int) -> None:
    """Refuses a header by the first rule that it breaks; returns where its form alone is wrong."""
    document = strict_json.parse(text, "the header", MalformedHeader)
    if not isinstance(document, dict):
        raise MalformedHeader(f"the header is {shown(document)}; it must be a JSON object")
    metadata = AdapterMetadata.from_json(_metadata_text(document.pop(_RESERVED, None)))
    tensors = layout(metadata)
    check_tensors(document, tensors)
    _check_size(tensors, payload_offset, total_size)
    encode_header(metadata)


def _metadata_text(metadata: object) -> str:
    if not isinstance(metadata, dict):
        raise MetadataInvalid(
            f"__metadata__ is {shown(metadata)}; it must be an object with the one key "
            f"'{METADATA_KEY}'. A safetensors file without it is not an adapter"
        )
    if metadata.keys() != {METADATA_KEY}:
        raise MetadataInvalid(
            f"__metadata__ has the keys {shown(sorted(metadata))}; it must have '{METADATA_KEY}' "
            "and no other"
        )
    text = metadata[METADATA_KEY]
    if not isinstance(text, str):
        raise MetadataInvalid(f"__metadata__['{METADATA_KEY}'] is {shown(text)}; it must be text")
    return text


def _check_size(tensors: tuple[TensorSpec, ...], payload_offset: int, total_size: int) -> None:
    end = payload_offset + tensors[-1].end
    if total_size < end:
        raise Truncated(
            f"the file has {total_size} bytes and its tensors end at byte {end}. Fetch it again"
        )
    if total_size > end:
        raise TrailingBytes(
            f"the file has {total_size} bytes and its tensors end at byte {end}; nothing may "
            "follow them"
        )
