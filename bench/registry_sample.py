"""An adapter of 30 KB: shaped as those of Stable Diffusion 1.5 are, its numbers made up."""

from __future__ import annotations

import struct

from perfuse.adapter import AdapterMetadata, Encoder, Layer, encode_header

FINGERPRINT = "sha256:" + "5" * 64
ARCHITECTURE = "sd-768"
WIDTH = 768
SUPER_CATEGORY = "cat"
ENCODERS = (Encoder("text_encoder", WIDTH),)
# Channels of the sixteen cross-attention layers in the order of a forward pass.
_CHANNELS = (320, 320, 640, 640, 1280, 1280, 1280, 1280, 1280, 1280, 640, 640, 640, 320, 320, 320)
LAYERS = tuple(Layer(f"block.{index}.attn2", width) for index, width in enumerate(_CHANNELS))


def adapter() -> bytes:
    """A valid adapter file in fp16."""
    metadata = AdapterMetadata(
        base_model=FINGERPRINT,
        architecture=ARCHITECTURE,
        layers=LAYERS,
        encoders=ENCODERS,
        conditioning_width=WIDTH,
        super_category=SUPER_CATEGORY,
        placeholder="tom",
        key_lock="LOCAL",
        bias=0.7,
        temperature=0.15,
        training={"steps": 400, "batch": 16},
    )
    parts = [encode_header(metadata)]
    for width in metadata.tensor_widths().values():
        parts.append(struct.pack(f"<{width}e", *(0.01 * (1 + i % 97) for i in range(width))))
    return b"".join(parts)


def altered(data: bytes, run: int, client: int, count: int) -> bytes:
    """The same adapter with other last numbers: another file for every upload."""
    # fp16 holds whole numbers to 2048 exactly.
    last = struct.pack("<4e", run % 2048, client, count // 2048, count % 2048)
    return data[: -len(last)] + last
