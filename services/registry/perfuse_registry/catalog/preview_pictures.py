"""The gate for previews: a whole picture file of a known kind, and nothing in it but the picture.

Nothing is decoded, so that no decoder is needed here and none can be led astray: the file is walked
from its first byte to its last, block by block. Every block must be of a kind that pictures consist
of. So no EXIF, no text, no profile and nothing behind the end comes along; what the pixels show is
for whoever looks at them, with whichever decoder.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from perfuse.errors import InvalidArgument

MAX_BYTES = 1 << 20
"""Of one preview."""

MAX_SIDE = 2048
"""Pixels."""

_MAX_BLOCKS = 4096
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_BLOCKS = {b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD", b"pHYs", b"IDAT"}
_WEBP_BLOCKS = {b"VP8 ", b"VP8L", b"ALPH"}
# Alpha; every other flag announces an animation, a profile or metadata.
_WEBP_FLAGS = 0x10
# What may stand in a JPEG: tables, scans, restarts, and the two notes that say how to read colours.
_TABLES = {0xC4, 0xDB, 0xDD}
_FRAMES = {0xC0, 0xC1, 0xC2}
_JFIF, _ADOBE, _SCAN, _END = 0xE0, 0xEE, 0xDA, 0xD9
_LONGEST_NOTE = 18
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7]")


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What a picture file is.

    Attributes:
        media_type: As HTTP calls its format.
        width, height: In pixels.
    """

    media_type: str
    width: int
    height: int


class _Unfit(Exception):
    """What is wrong with a file, as half a sentence."""


def judge_picture(data: bytes, field: str) -> PictureFacts:
    """Refuse a file that is no preview.

    Args:
        data: The whole file.
        field: Of the request, for the refusal.

    Raises:
        InvalidArgument: another format, broken off, more than a picture, or too large.
    """
    try:
        if len(data) > MAX_BYTES:
            raise _Unfit(f"has {len(data)} bytes, and at most {MAX_BYTES} are kept")
        facts = _facts(data)
        if not (0 < facts.width <= MAX_SIDE and 0 < facts.height <= MAX_SIDE):
            raise _Unfit(f"is {facts.width} x {facts.height}, and no side may be over {MAX_SIDE}")
    except _Unfit as unfit:
        raise InvalidArgument.in_field(
            field,
            f"the picture {unfit}. Send one PNG, JPEG or WebP picture without metadata, whole",
        ) from None
    except (struct.error, IndexError):
        raise InvalidArgument.in_field(
            field, "the picture breaks off. Read the file again and send all of it"
        ) from None
    return facts


def _facts(data: bytes) -> PictureFacts:
    for start, walk in _KINDS:
        if data.startswith(start):
            return walk(data)
    raise _Unfit("is of no format that is kept")


def _png(data: bytes) -> PictureFacts:
    length, kind, width, height = struct.unpack_from(">I4sII", data, 8)
    if (length, kind) != (13, b"IHDR"):
        raise _Unfit("is a PNG without a header")
    place, pixels = 8, False
    for _ in range(_MAX_BLOCKS):
        length, kind = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        (stated,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(data[place + 4 : end - 4]) != stated:
            raise _Unfit("is a damaged PNG")
        if kind == b"IEND":
            _ended(data, end, pixels)
            return PictureFacts("image/png", width, height)
        if kind not in _PNG_BLOCKS and place > 8:
            raise _Unfit(f"has a block {kind.decode('latin-1')!a} beside the picture")
        pixels = pixels or kind == b"IDAT"
        place = end
    raise _Unfit("has too many blocks")


def _jpeg(data: bytes) -> PictureFacts:
    size: tuple[int, int] | None = None
    place, scanned = 2, False
    for _ in range(_MAX_BLOCKS):
        mark, kind = data[place], data[place + 1]
        if mark != 0xFF:
            raise _Unfit("is a damaged JPEG")
        if kind == _END:
            _ended(data, place + 2, scanned and size is not None)
            width, height = size or (0, 0)
            return PictureFacts("image/jpeg", width, height)
        (length,) = struct.unpack_from(">H", data, place + 2)
        if kind in _FRAMES:
            if size is not None:
                raise _Unfit("has more than one frame")
            height, width = struct.unpack_from(">HH", data, place + 5)
            size = (width, height)
        elif kind in (_JFIF, _ADOBE):
            if length > _LONGEST_NOTE:
                raise _Unfit("has more in it than the picture")
        elif kind not in (*_TABLES, _SCAN):
            raise _Unfit(f"has a block {kind:#x} beside the picture")
        place += 2 + length
        if kind == _SCAN:
            scanned = True
            found = _NEXT_MARKER.search(data, place)
            if found is None:
                raise IndexError
            place = found.start()
    raise _Unfit("has too many blocks")


def _webp(data: bytes) -> PictureFacts:
    (stated,) = struct.unpack_from("<I", data, 4)
    if data[8:12] != b"WEBP":
        raise _Unfit("is of no format that is kept")
    if stated + 8 != len(data):
        raise IndexError
    size: tuple[int, int] | None = None
    place = 12
    for _ in range(_MAX_BLOCKS):
        if place == len(data):
            _ended(data, place, size is not None)
            width, height = size or (0, 0)
            return PictureFacts("image/webp", width, height)
        kind = data[place : place + 4]
        (length,) = struct.unpack_from("<I", data, place + 4)
        if kind == b"VP8X" and place == 12:
            if data[20] & ~_WEBP_FLAGS:
                raise _Unfit("has more in it than the picture")
        elif kind not in _WEBP_BLOCKS:
            raise _Unfit(f"has a block {kind.decode('latin-1')!a} beside the picture")
        elif kind != b"ALPH":
            if size is not None:
                raise _Unfit("has more than one frame")
            size = _webp_size(kind, data, place + 8)
        place += 8 + length + length % 2
        if place > len(data):
            raise IndexError
    raise _Unfit("has too many blocks")


def _webp_size(kind: bytes, data: bytes, place: int) -> tuple[int, int]:
    if kind == b"VP8L":
        if data[place] != 0x2F:
            raise _Unfit("is a damaged WebP")
        (bits,) = struct.unpack_from("<I", data, place + 1)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if data[place + 3 : place + 6] != b"\x9d\x01\x2a":
        raise _Unfit("is a damaged WebP")
    width, height = struct.unpack_from("<HH", data, place + 6)
    return width & 0x3FFF, height & 0x3FFF


def _ended(data: bytes, end: int, complete: bool) -> None:
    """See that a file ends where its picture does."""
    if not complete:
        raise _Unfit("has no pixels")
    if end != len(data):
        raise _Unfit("has something behind its end")


_KINDS: tuple[tuple[bytes, Callable[[bytes], PictureFacts]], ...] = (
    (_PNG, _png),
    (b"\xff\xd8\xff", _jpeg),
    (b"RIFF", _webp),
)
