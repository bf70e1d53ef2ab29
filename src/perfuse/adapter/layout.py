"""Where an adapter's tensors lie: its metadata leaves a header nothing to choose."""

from __future__ import annotations

from dataclasses import dataclass

from perfuse.adapter.errors import (
    MalformedHeader,
    MissingTensor,
    OffsetsInvalid,
    UnexpectedTensor,
    WrongDtype,
    WrongTensorShape,
    shown,
)
from perfuse.adapter.metadata import BYTES_PER_VALUE, AdapterMetadata

_DTYPE_CODES = {"float16": "F16", "float32": "F32"}
_SPEC_FIELDS = frozenset({"dtype", "shape", "data_offsets"})


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Where a tensor's values lie: bytes `begin` to `end`, counted from the end of the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def layout(metadata: AdapterMetadata) -> tuple[TensorSpec, ...]:
    """The tensors that an adapter with this metadata has, in file order, without gap or overlap."""
    tensors: list[TensorSpec] = []
    begin = 0
    for name, width in metadata.tensor_widths().items():
        end = begin + width * BYTES_PER_VALUE[metadata.dtype]
        tensors.append(TensorSpec(name, _DTYPE_CODES[metadata.dtype], (width,), begin, end))
        begin = end
    return tuple(tensors)


def check_tensors(document: dict[str, object], expected: tuple[TensorSpec, ...]) -> None:
    """Refuses a header's tensors by the first rule that they break.

    Args:
        document: The header's JSON without its metadata.
        expected: The layout that the metadata demands.

    Raises:
        AdapterRefused: as one of the cases of `perfuse.adapter.errors`.
    """
    names = {tensor.name for tensor in expected}
    if unexpected := sorted(document.keys() - names):
        raise UnexpectedTensor(
            f"the header names {len(unexpected)} tensors that this adapter does not have, first "
            f"{shown(unexpected[0])}; allowed are {', '.join(sorted(names))}"
        )
    if missing := sorted(names - document.keys()):
        raise MissingTensor(
            f"the header lacks {', '.join(missing)}, which an adapter with this metadata has"
        )
    for tensor in expected:
        found = document[tensor.name]
        if not isinstance(found, dict) or found.keys() != _SPEC_FIELDS:
            raise MalformedHeader(
                f"tensor {tensor.name!r} is described by {shown(found)}; it must be an object of "
                "dtype, shape and data_offsets"
            )
        if found["dtype"] != tensor.dtype:
            raise WrongDtype(
                f"tensor {tensor.name!r} is stored as {shown(found['dtype'])}; the metadata "
                f"declares {tensor.dtype}"
            )
        if not _same_integers(found["shape"], tensor.shape):
            raise WrongTensorShape(
                f"tensor {tensor.name!r} has the shape {shown(found['shape'])}; the metadata "
                f"declares {list(tensor.shape)}"
            )
        if not _same_integers(found["data_offsets"], (tensor.begin, tensor.end)):
            raise OffsetsInvalid(
                f"tensor {tensor.name!r} lies at {shown(found['data_offsets'])}; tensors follow "
                f"one another in order of name, which puts it at {[tensor.begin, tensor.end]}"
            )


def _same_integers(found: object, expected: tuple[int, ...]) -> bool:
    # 1.0 and true equal 1 in Python and are neither a width nor an offset.
    return (
        isinstance(found, list)
        and all(type(value) is int for value in found)
        and tuple(found) == expected
    )
