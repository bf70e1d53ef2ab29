"""Adapters for tests: the layouts of real base models, and values that float16 holds exactly."""

from __future__ import annotations

import struct
from typing import Any

from perfuse.adapter.header import AdapterMetadata, Encoder, Layer, encode_header
from perfuse.adapter.metadata import BYTES_PER_VALUE

BASE = "sha256:" + "5d" * 32
OTHER_BASE = "sha256:" + "0e" * 32


def metadata(**changes: Any) -> AdapterMetadata:
    fields: dict[str, Any] = {
        "base_model": BASE,
        "architecture": "sd1",
        "layers": (Layer("down_blocks.0.attn2", 8), Layer("up_blocks.1.attn2", 12)),
        "encoders": (Encoder("text_encoder", 6),),
        "conditioning_width": 6,
        "super_category": "cat",
        "placeholder": "<tom>",
        "key_lock": "LOCAL",
        "bias": 0.7,
        "temperature": 0.15,
        "training": {"steps": 400, "mask": "alpha"},
    }
    return AdapterMetadata(**(fields | changes))


def file_bytes(described: AdapterMetadata) -> bytes:
    """A valid file made without torch: values 1/8, 2/8, ... 64 and over again, in file order."""
    size = BYTES_PER_VALUE[described.dtype] * sum(described.tensor_widths().values())
    code = "e" if described.dtype == "float16" else "f"
    values = struct.pack(f"<512{code}", *(i / 8 for i in range(1, 513)))
    return encode_header(described) + (values * (size // len(values) + 1))[:size]


def sd15_layers() -> tuple[Layer, ...]:
    """The 16 cross-attention layers of Stable Diffusion 1.x and 2.x, in diffusers' names."""
    blocks = [("down_blocks.0", 2, 320), ("down_blocks.1", 2, 640), ("down_blocks.2", 2, 1280)]
    blocks += [("up_blocks.1", 3, 1280), ("up_blocks.2", 3, 640), ("up_blocks.3", 3, 320)]
    blocks += [("mid_block", 1, 1280)]
    return tuple(
        Layer(f"{block}.attentions.{i}.transformer_blocks.0.attn2", width)
        for block, count, width in blocks
        for i in range(count)
    )


def sdxl_layers() -> tuple[Layer, ...]:
    """The 70 cross-attention layers of SDXL: depth 2 at width 640, depth 10 at 1280."""
    blocks = [("down_blocks.1", 2, 2, 640), ("down_blocks.2", 2, 10, 1280)]
    blocks += [("up_blocks.0", 3, 10, 1280), ("up_blocks.1", 3, 2, 640), ("mid_block", 1, 10, 1280)]
    return tuple(
        Layer(f"{block}.attentions.{i}.transformer_blocks.{j}.attn2", width)
        for block, count, depth, width in blocks
        for i in range(count)
        for j in range(depth)
    )


TRAINING = {
    "perfuse": "0.1.0",
    "steps": 400,
    "best_step": 350,
    "batch": 16,
    "images": 5,
    "seed": 0,
    "mask": "clipseg",
    "loss": 0.1234,
}


def sd15(**changes: Any) -> AdapterMetadata:
    fields = {
        "layers": sd15_layers(),
        "encoders": (Encoder("text_encoder", 768),),
        "conditioning_width": 768,
        "training": TRAINING,
    }
    return metadata(**(fields | changes))


def sd21(**changes: Any) -> AdapterMetadata:
    fields = {
        "architecture": "sd2",
        "encoders": (Encoder("text_encoder", 1024),),
        "conditioning_width": 1024,
    }
    return sd15(**(fields | changes))


def sdxl(**changes: Any) -> AdapterMetadata:
    fields = {
        "architecture": "sdxl",
        "layers": sdxl_layers(),
        "encoders": (Encoder("text_encoder", 768), Encoder("text_encoder_2", 1280)),
        "conditioning_width": 2048,
    }
    return sd15(**(fields | changes))
