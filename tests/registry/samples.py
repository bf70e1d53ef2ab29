"""Small adapters and a base model to store them on, made without torch."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from perfuse.adapter import AdapterMetadata, Encoder, Layer, digest, encode_header
from perfuse.v1 import registry_pb2 as wire

FINGERPRINT = "sha256:" + "a" * 64
LAYERS = (Layer("down.0.attn2", 8), Layer("up.0.attn2", 16))
ENCODERS = (Encoder("text_encoder", 12),)
WIDTH = 12


def adapter(
    seed: int = 0,
    *,
    super_category: str = "cat",
    fingerprint: str = FINGERPRINT,
    target_input: Sequence[float] | None = None,
    layers: Sequence[Layer] = LAYERS,
    key_lock: str = "LOCAL",
    training: dict[str, str | int | float | bool | None] | None = None,
) -> bytes:
    """A valid adapter file; another seed gives other bytes."""
    metadata = AdapterMetadata(
        base_model=fingerprint,
        architecture="sd-12",
        layers=tuple(layers),
        encoders=ENCODERS,
        conditioning_width=WIDTH,
        super_category=super_category,
        placeholder="tom",
        key_lock=key_lock,
        bias=0.7,
        temperature=0.15,
        training=training or {"seed": seed},
    )
    parts = [encode_header(metadata)]
    for name, width in metadata.tensor_widths().items():
        values = [1.0 + 0.25 * ((seed + index) % 7) for index in range(width)]
        if name == "target_input" and target_input is not None:
            values = list(target_input)
        parts.append(struct.pack(f"<{width}e", *values))
    return b"".join(parts)


def base_model(fingerprint: str = FINGERPRINT) -> wire.BaseModel:
    """The base model that these adapters stand on, as a caller describes it."""
    return wire.BaseModel(
        fingerprint=fingerprint,
        architecture="sd-12",
        conditioning_width=WIDTH,
        layers=[wire.Layer(name=layer.name, width=layer.width) for layer in LAYERS],
        encoders=[wire.Encoder(name=encoder.name, width=encoder.width) for encoder in ENCODERS],
    )


def upload(parent: str, data: bytes, **fields: object) -> wire.CreateVersionRequest:
    """The request that stores these bytes as a version of the concept `parent`."""
    return wire.CreateVersionRequest(parent=parent, adapter=data, digest=digest(data), **fields)  # type: ignore[arg-type]
