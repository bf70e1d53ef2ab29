"""Pixels to files; a PNG carries the record of its render in the text chunk `perfuse`."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

CHUNK = "perfuse"
FORMATS = ("PNG", "JPEG", "WEBP")


def encode(pixels: torch.Tensor, form: str, record: Mapping[str, Any] | None = None) -> bytes:
    """A picture file.

    Args:
        pixels: [3, h, w] uint8 on the CPU.
        form: one of `FORMATS`.
        record: for PNG: what made the picture.
    """
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    file = io.BytesIO()
    if form == "PNG":
        notes = PngInfo()
        if record is not None:
            notes.add_itxt(CHUNK, json.dumps(record, ensure_ascii=False, sort_keys=True))
        image.save(file, "PNG", pnginfo=notes)
    elif form == "WEBP":
        image.save(file, "WEBP", lossless=True)
    else:
        image.save(file, "JPEG", quality=92)
    return file.getvalue()
