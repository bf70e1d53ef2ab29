"""One picture and its mask, decoded together: the rules that hold wherever pictures come in.

Nothing here has torch, so that a server can take pictures in without it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from perfuse.errors import PictureRefused
from perfuse_trainer.pictures.intake_process import KEPT_SIDE, DecodedPicture, IntakeProcess
from perfuse_trainer.pictures.picture_header import PictureFormat, PictureHeader, judge, shown

MAX_PICTURES = 64
"""Of one thing."""

# What a folder or a set may keep. Pictures up to four times as long as wide always fit; it takes
# dozens of long strips to reach it.
MAX_KEPT_PIXELS = MAX_PICTURES * 4 * KEPT_SIDE**2

MASK_SUFFIX = ".mask.png"

Judged = tuple[bytes, PictureHeader]
"""A file's content, and what `judge` or `judge_mask` said of it."""


def judge_mask(data: bytes, name: str) -> PictureHeader:
    """`picture_header.judge`, for the file of a mask.

    Raises:
        PictureRefused: as `judge`, or it is no PNG.
    """
    header = judge(data, name)
    if header.format is not PictureFormat.PNG:
        raise PictureRefused(
            f"{shown(name)} is a {header.format}; a mask is a PNG file, because its edges must be "
            "exact: save it as PNG"
        )
    return header


def mask_name(name: str) -> str:
    """What the mask of a picture is called in errors, as its file would be in a folder."""
    return f"{Path(name).stem}{MASK_SUFFIX}"


def decode_picture(
    intake: IntakeProcess,
    name: str,
    picture: Judged,
    mask: Judged | None = None,
    *,
    called: str | None = None,
) -> DecodedPicture:
    """Decode a picture, and its mask where it has one.

    Args:
        intake: Decodes.
        name: Of the picture's file.
        picture: Its content.
        mask: Its mask's content.
        called: What to call the mask in errors; by default `mask_name`.

    Returns:
        The picture; its `alpha` is the mask, or else its own alpha channel, or else None.

    Raises:
        PictureRefused: one of the files is damaged, costs more than the limits allow, shows
            nothing, or is not of the other's size.
    """
    decoded = intake.decode(picture[0], name, picture[1])
    if decoded.alpha is not None and _blank(decoded.alpha):
        raise PictureRefused(
            f"{shown(name)} is transparent everywhere; a training picture must show something: "
            "export it again, without its alpha channel if need be"
        )
    if mask is None:
        return decoded
    called = mask_name(name) if called is None else called
    drawn = intake.decode(mask[0], called, mask[1], is_mask=True)
    if drawn.full_size != decoded.full_size:
        raise PictureRefused(
            f"{shown(called)} is {_times(drawn.full_size)} pixels and {shown(name)} is "
            f"{_times(decoded.full_size)}; a mask has the size of its picture: draw it over "
            "the picture again"
        )
    if _blank(drawn.pixels):
        raise PictureRefused(
            f"{shown(called)} is black everywhere; a mask is bright where the subject is: "
            "draw it, or take it away"
        )
    return replace(decoded, alpha=drawn.pixels)


def _blank(marks: bytearray) -> bool:
    return marks.count(0) == len(marks)


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"
