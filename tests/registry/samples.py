"""Small adapters, pictures and a base model to store them on, made without torch."""

from __future__ import annotations

import struct
import zlib
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


def chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk of a PNG file."""
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def picture(seed: int = 0, *, side: int = 2, beside: bytes = b"") -> bytes:
    """A grey PNG file; another seed gives other bytes.

    Args:
        seed: Of its pixels.
        side: Pixels.
        beside: Chunks before the pixels.
    """
    rows = (bytes([0, *((seed + x + y) % 256 for x in range(side))]) for y in range(side))
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)),
            beside,
            chunk(b"IDAT", zlib.compress(b"".join(rows))),
            chunk(b"IEND", b""),
        )
    )


def previews(*pictures: bytes, caption: str = "a photo of a <>") -> list[wire.NewPreview]:
    """These pictures as a version brings them, drawn after 100, 200, ... steps."""
    return [
        wire.NewPreview(picture=data, digest=digest(data), step=100 * (index + 1), caption=caption)
        for index, data in enumerate(pictures)
    ]


def curve(*similarities: float) -> list[wire.CurvePoint]:
    """Points after 100, 200, ... steps."""
    return [
        wire.CurvePoint(step=100 * (index + 1), validation_loss=0.5, similarity=each)
        for index, each in enumerate(similarities)
    ]


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
