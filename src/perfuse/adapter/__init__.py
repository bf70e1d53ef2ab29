"""The adapter file: one concept on one base model, as bytes that anyone may be handed.

Everything here but `Adapter` works without torch and numpy; to name `Adapter` loads torch and
needs the extra `perfuse[engine]`. The cases of refusal are in `perfuse.adapter.errors`, the
limits in `perfuse.adapter.limits`, the rules in `docs/adapter-format.md`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perfuse.adapter.finite import check_finite
from perfuse.adapter.header import (
    AdapterHeader,
    AdapterMetadata,
    Encoder,
    Layer,
    TensorSpec,
    digest,
    encode_header,
    read_header,
)

if TYPE_CHECKING:
    from perfuse.adapter.tensors import Adapter

__all__ = [
    "Adapter",
    "AdapterHeader",
    "AdapterMetadata",
    "Encoder",
    "Layer",
    "TensorSpec",
    "check_finite",
    "digest",
    "encode_header",
    "read_header",
]


def __getattr__(name: str) -> object:
    if name != "Adapter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from perfuse.adapter.tensors import Adapter
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in {"torch", "safetensors"}:
            raise
        raise ImportError(
            f"perfuse.adapter.Adapter needs {error.name}: pip install 'perfuse[engine]'"
        ) from error
    return Adapter
