"""Pictures to send, made without torch."""

from __future__ import annotations

import io
import random
from functools import cache

from PIL import Image


@cache
def noise(seed: int, side: int = 32) -> bytes:
    """A PNG of random pixels."""
    pixels = random.Random(seed).randbytes(3 * side * side)
    file = io.BytesIO()
    Image.frombytes("RGB", (side, side), pixels).save(file, "PNG")
    return file.getvalue()
