"""The gate before a training picture: the judgement of its header, then the decoding.

Laws: only PictureRefused, its message short; a picture that is decoded has exactly the pixels that
its header promised, which the parent counts on; and the process that decodes says the same as the
same decoder here, and goes on after what it refused.
"""

from __future__ import annotations

import atexit
import warnings
from functools import cache
from io import BytesIO

from PIL import Image

from perfuse.errors import PictureRefused
from perfuse_trainer.pictures.intake import judge_mask
from perfuse_trainer.pictures.intake_child import decode
from perfuse_trainer.pictures.intake_process import IntakeProcess, kept_size
from perfuse_trainer.pictures.picture_header import PictureHeader, judge

NAME = "tom.png"
# Larger pictures are judged and not decoded: the search gains nothing from their pixels.
_PIXELS = 1 << 16


def seeds() -> dict[str, bytes]:
    """Small pictures of every format and mode, and what is none."""
    found = {"gif": b"GIF89a", "empty": b"", "svg": b"<svg>"}
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        found[f"png-{mode}"] = _file(mode, "PNG")
    for mode in ("L", "RGB", "CMYK"):
        found[f"jpeg-{mode}"] = _file(mode, "JPEG")
    found["jpeg-progressive"] = _file("RGB", "JPEG", progressive=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    found["jpeg-turned"] = _file("RGB", "JPEG", exif=exif)
    found["png-turned"] = _file("RGBA", "PNG", exif=exif)
    found["webp"] = _file("RGB", "WEBP")
    found["webp-lossless"] = _file("RGBA", "WEBP", lossless=True)
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    for kind in ("PNG", "WEBP"):
        animated = BytesIO()
        frames[0].save(animated, kind, save_all=True, append_images=frames[1:])
        found[f"animated-{kind}"] = animated.getvalue()
    return found


def one(data: bytes) -> None:
    """Judge one file and decode it."""
    try:
        header = judge(data, NAME)
    except PictureRefused as refusal:
        assert len(str(refusal)) < 600
        return
    if header.width * header.height > _PIXELS:
        return
    for is_mask in (False, True):
        if is_mask:
            try:
                judge_mask(data, NAME)
            except PictureRefused:
                return
        here = _here(data, header, is_mask)
        try:
            there = _intake().decode(data, NAME, header, is_mask=is_mask)
        except PictureRefused as refusal:
            assert "made the decoder stop" not in str(refusal), refusal
            assert here is None, "the process refuses what is decoded here"
            assert len(str(refusal)) < 600
            continue
        assert here is not None, "the process decodes what is refused here"
        assert (bytes(there.pixels), there.alpha and bytes(there.alpha)) == here


def _here(data: bytes, header: PictureHeader, is_mask: bool) -> tuple[bytes, bytes | None] | None:
    kept = kept_size(header.width, header.height)
    try:
        # Pillow remarks on broken EXIF data, which the program takes as said by nobody.
        with warnings.catch_warnings(action="ignore"):
            _, pixels, alpha = decode(data, (header.width, header.height), kept, is_mask=is_mask)
    except Exception:
        # Decoders raise whatever they like; the program answers all of it with one verdict.
        return None
    count = kept[0] * kept[1]
    assert len(pixels) == count * (1 if is_mask else 3)
    assert alpha is None or len(alpha) == count
    return pixels, alpha


@cache
def _intake() -> IntakeProcess:
    intake = IntakeProcess()
    atexit.register(intake.close)
    return intake


def _file(mode: str, kind: str, **options: object) -> bytes:
    width, height = 6, 4
    image = Image.new("RGBA", (width, height))
    image.putdata(
        [(x * 40, y * 60, 90, 255 if x else 0) for y in range(height) for x in range(width)]
    )
    converted = image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)
    file = BytesIO()
    converted.save(file, kind, **options)
    return file.getvalue()
