"""What a picture file says of itself, judged before anything is decoded.

A header costs nothing to read and a decoder allocates what the header asks for, so that every
limit on size is applied here. Only bytes are compared and no decoder is involved: this is safe in
any process, on anyone's bytes, in time bounded by `MAX_BLOCKS`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum

from perfuse.errors import PictureRefused

MAX_PICTURE_BYTES = 20_000_000
MAX_PIXELS = 25_000_000
MAX_SIDE = 16_384
# Chunks or segments that may stand before the picture proper; real files have some dozens.
MAX_BLOCKS = 4096

ALLOWED = "only PNG, JPEG and WebP are read"

_PNG = b"\x89PNG\r\n\x1a\n"
_FOREIGN = (
    # What people do put into such folders, so that the refusal can call it by its name.
    (0, b"GIF8", "a GIF"),
    (0, b"BM", "a BMP"),
    (0, b"II*\0", "a TIFF"),
    (0, b"MM\0*", "a TIFF"),
    (0, b"8BPS", "a Photoshop document"),
    (0, b"%PDF", "a PDF"),
    (4, b"ftypavif", "an AVIF"),
    (4, b"ftypavis", "an AVIF"),
    (4, b"ftyphe", "a HEIC"),
    (4, b"ftypmif1", "a HEIC or AVIF"),
    (0, b"<svg", "an SVG"),
    (0, b"<?xml", "an XML file"),
)
# Start-of-frame markers: C0 to CF without those of Huffman tables, extensions and arithmetic.
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})


class PictureFormat(StrEnum):
    """The formats that are read."""

    PNG = "PNG"
    JPEG = "JPEG"
    WEBP = "WebP"


@dataclass(frozen=True)
class PictureHeader:
    """A picture's own account of itself, within the limits.

    Attributes:
        format: by content, whatever the file is called.
        width: in pixels as stored, before any orientation is applied.
        height: likewise.
    """

    format: PictureFormat
    width: int
    height: int


def judge(data: bytes, name: str) -> PictureHeader:
    """Read a picture's header and hold it to the limits; no pixel is decoded or allocated.

    Args:
        data: the file's content.
        name: what to call it in an error.

    Raises:
        PictureRefused: another format, damaged, larger than a limit, or more than one frame.
    """
    judge_bytes(len(data), name)
    kind = _format(data, name)
    try:
        width, height, frames = _READERS[kind](data)
    except (struct.error, IndexError) as error:
        raise PictureRefused(_broken_off(data, kind, name)) from error
    if width < 1 or height < 1:
        raise PictureRefused(
            f"{shown(name)} says that it is {width} × {height} pixels; both sides must be at "
            "least 1: the file is damaged, export it again"
        )
    if max(width, height) > MAX_SIDE:
        raise PictureRefused(
            f"{shown(name)} is {width} × {height} pixels; no side may be over {MAX_SIDE}: crop it "
            "to its subject or shrink it"
        )
    if width * height > MAX_PIXELS:
        raise PictureRefused(
            f"{shown(name)} is {width} × {height} pixels, {width * height / 1e6:.1f} megapixels; "
            f"at most {MAX_PIXELS // 1_000_000} are read: shrink it"
        )
    if frames == 0:
        raise PictureRefused(_broken_off(data, kind, name))
    if frames > 1:
        raise PictureRefused(several_frames(name))
    return PictureHeader(kind, width, height)


def judge_bytes(count: int, name: str) -> None:
    """Hold a file's length to the limits, before the file is read.

    Raises:
        PictureRefused: it is empty or too long.
    """
    if count == 0:
        raise PictureRefused(
            f"{shown(name)} is empty (0 bytes); {ALLOWED}: copy it again or take it away"
        )
    if count > MAX_PICTURE_BYTES:
        raise PictureRefused(
            f"{shown(name)} has {count} bytes; a picture has at most {MAX_PICTURE_BYTES}: save it "
            "smaller, or as JPEG"
        )


def several_frames(name: str) -> str:
    """The refusal of an animation."""
    return (
        f"{shown(name)} is animated, with more than one frame; a training picture has one: save "
        "the frame that you want as a picture of its own"
    )


def shown(name: str) -> str:
    """A file's name as it may stand in a message or a log: one line, of bounded length."""
    name = name if name.isprintable() else ascii(name)
    return name if len(name) <= 120 else f"{name[:80]}...{name[-30:]}"


def _broken_off(data: bytes, kind: PictureFormat, name: str) -> str:
    return (
        f"{shown(name)} is a {kind} whose header breaks off or makes no sense (in {len(data)} "
        "bytes); a picture must be whole: copy or export it again"
    )


def _format(data: bytes, name: str) -> PictureFormat:
    if data.startswith(_PNG):
        return PictureFormat.PNG
    if data.startswith(b"\xff\xd8\xff"):
        return PictureFormat.JPEG
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return PictureFormat.WEBP
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    found = next(
        (words for place, mark, words in _FOREIGN if start[place:].startswith(mark)),
        "not a picture by its content",
    )
    raise PictureRefused(
        f"{shown(name)} is {found}; {ALLOWED}: save it as one of these, or take it away"
    )


def _read_png(data: bytes) -> tuple[int, int, int]:
    """Width, height and number of frames, 0 where no pixels follow.

    An animation declares itself before the pixels.
    """
    length, kind, width, height = struct.unpack_from(">I4sII", data, 8)
    if (length, kind) != (13, b"IHDR"):
        raise IndexError
    place = 8
    for _ in range(MAX_BLOCKS):
        if place + 12 > len(data):
            break
        length, kind = struct.unpack_from(">I4s", data, place)
        if kind == b"IDAT":
            return width, height, 1
        if kind == b"acTL":
            (frames,) = struct.unpack_from(">I", data, place + 8)
            if frames > 1:
                return width, height, frames
        place += 12 + length
    return width, height, 0


def _read_jpeg(data: bytes) -> tuple[int, int, int]:
    """Width, height and 1: previews and gain maps that follow the picture are never looked at."""
    place = 2
    for _ in range(MAX_BLOCKS):
        mark, kind = data[place], data[place + 1]
        if mark != 0xFF:
            raise IndexError
        if kind == 0xFF:  # padding
            place += 1
        elif kind in _STANDALONE:
            place += 2
        elif kind in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height, 1
        else:
            (length,) = struct.unpack_from(">H", data, place + 2)
            place += 2 + length
    raise IndexError


def _read_webp(data: bytes) -> tuple[int, int, int]:
    """Width, height and frames, 2 standing for any number over one."""
    kind = data[12:16]
    if kind == b"VP8X":
        flags = data[20]
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        if len(data) < 30:
            raise IndexError
        return width, height, 2 if flags & 0x02 else 1
    if kind == b"VP8L" and data[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, 1
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF, 1
    raise IndexError


_READERS = {
    PictureFormat.PNG: _read_png,
    PictureFormat.JPEG: _read_jpeg,
    PictureFormat.WEBP: _read_webp,
}
