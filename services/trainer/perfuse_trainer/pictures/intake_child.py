"""The program that decodes pictures, run in a process of its own with little to lose.

It reads requests from its standard input and answers on its standard output, one after the other,
until the input ends. It is started by path and imports the standard library and Pillow, nothing of
ours and never torch: what a broken decoder could reach is then one process without secrets, whose
memory and time are limited. Everything that it says is checked by `intake_process`.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
import sys
import time
from enum import IntEnum
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from PIL.Image import Image

# Length of the file, width and height that its header says, width and height to send, is a mask.
REQUEST = struct.Struct("<IIIII?")
# Verdict; whether a quarter turn was applied; whether a mask follows the pixels.
REPLY = struct.Struct("<B??")
# After any other verdict than READ: length of the decoder's own words.
DETAIL = struct.Struct("<H")
READY = b"ready\n"

ORIENTATION = 0x0112
PNG_END = b"\0\0\0\0IEND\xaeB\x60\x82"


class Verdict(IntEnum):
    """What became of a picture."""

    READ = 0
    DAMAGED = 1
    TOO_MUCH_MEMORY = 2
    SEVERAL_FRAMES = 3


class _SeveralFrames(Exception):
    pass


class _Faulty(Exception):
    """Its text is ours, for whoever sent the picture."""


def main() -> None:
    memory, seconds = int(sys.argv[1]), int(sys.argv[2])
    # A library that prints must not print into the answers.
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _limit(memory)
    # Loaded before the first hostile byte, so that no file needs to be opened after it.
    from PIL import Image, JpegImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: F401

    source = sys.stdin.buffer
    sink.write(READY)
    sink.flush()
    while len(head := source.read(REQUEST.size)) == REQUEST.size:
        length, width, height, kept_width, kept_height, is_mask = REQUEST.unpack(head)
        data = source.read(length)
        _grant(seconds)
        try:
            turned, pixels, mask = decode(
                data, (width, height), (kept_width, kept_height), is_mask=is_mask
            )
        except MemoryError:
            _refuse(sink, Verdict.TOO_MUCH_MEMORY, "")
        except _SeveralFrames:
            _refuse(sink, Verdict.SEVERAL_FRAMES, "")
        except _Faulty as fault:
            _refuse(sink, Verdict.DAMAGED, str(fault))
        except Exception:
            # Decoders raise whatever they like on broken files, and say what they like.
            _refuse(sink, Verdict.DAMAGED, "its decoder finds it broken")
        else:
            sink.write(REPLY.pack(Verdict.READ, turned, mask is not None))
            sink.write(pixels)
            sink.write(mask or b"")
        sink.flush()


def decode(
    data: bytes, size: tuple[int, int], kept: tuple[int, int], *, is_mask: bool
) -> tuple[bool, bytes, bytes | None]:
    """Decode one file that the caller has judged.

    Args:
        data: the file.
        size: width and height that its header says.
        kept: width and height to shrink it to, before any turn.
        is_mask: give one channel of marks rather than colours.

    Returns:
        Whether width and height have changed places, the pixels row by row (three bytes each, one
        for a mask), and the alpha channel likewise, unless it is opaque everywhere.
    """
    image = _open(data)
    if image.size != size:
        raise _Faulty("its header and its pixels disagree about their size")
    if getattr(image, "n_frames", 1) != 1:
        raise _SeveralFrames
    image.load()
    orientation = _orientation(image)
    colour, alpha = _flatten(image, data, "black" if is_mask else "white")
    if is_mask:
        colour, alpha = colour.convert("L"), None
    colour = _turned(_shrunk(colour, kept), orientation)
    if alpha is not None:
        alpha = _turned(_shrunk(alpha, kept), orientation)
    return orientation > 4, colour.tobytes(), alpha.tobytes() if alpha is not None else None


def _open(data: bytes) -> Image:
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
    from PIL.WebPImagePlugin import WebPImageFile

    # The classes themselves and not Image.open, which takes phone pictures with a preview or gain
    # map behind the picture for a collection of several.
    if data.startswith(b"\x89PNG"):
        # Loading alone looks neither at the checksums nor for the end.
        if PNG_END not in data:
            raise _Faulty("its end is missing")
        PngImageFile(BytesIO(data)).verify()
        return PngImageFile(BytesIO(data))
    if data.startswith(b"\xff\xd8"):
        return JpegImageFile(BytesIO(data))
    return WebPImageFile(BytesIO(data))


def _orientation(image: Image) -> int:
    """EXIF's orientation, 1 to 8; a picture with a broken EXIF block is taken as stored."""
    with contextlib.suppress(Exception):
        found = image.getexif().get(ORIENTATION, 1)
        if found in range(1, 9):
            return int(found)
    return 1


def _flatten(image: Image, data: bytes, ground: str) -> tuple[Image, Image | None]:
    """RGB of 8 bit over `ground`, and the alpha channel where something shines through.

    What was erased stays erased: colours that still lie under transparent pixels are not looked at.
    """
    from PIL import Image as pillow

    if data.startswith(b"\x89PNG") and data[24] == 16:
        # A transparent colour of 16 bits names no colour of 8.
        image.info.pop("transparency", None)
    if image.mode == "I;16":
        # Conversion would clip at 255; the upper bytes are what Pillow takes of 16-bit colours.
        image = pillow.frombytes("L", image.size, image.tobytes()[1::2])
    if not image.has_transparency_data:
        return image.convert("RGB"), None
    image = image.convert("RGBA")
    alpha = image.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return image.convert("RGB"), None
    flat = pillow.new("RGB", image.size, ground)
    flat.paste(image.convert("RGB"), mask=alpha)
    return flat, alpha


def _shrunk(image: Image, kept: tuple[int, int]) -> Image:
    from PIL.Image import Resampling

    if image.size == kept:
        return image
    factor, rest = divmod(image.width, kept[0])
    if rest == 0 and image.height == factor * kept[1]:
        return image.reduce(factor)
    return image.resize(kept, Resampling.HAMMING)


def _turned(image: Image, orientation: int) -> Image:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _limit(memory: int) -> None:
    import resource

    limits = [
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CORE, 0),
        # For the error stream, in case that a library fills it.
        (resource.RLIMIT_FSIZE, 1 << 16),
    ]
    for which, amount in limits:
        _, hard = resource.getrlimit(which)
        if hard != resource.RLIM_INFINITY:
            amount = min(amount, hard)
        # Not every system knows every limit; the caller's clock stands in any case.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(which, (amount, amount))


def _grant(seconds: int) -> None:
    """Allow so many seconds of computing from now."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    until = math.ceil(time.process_time()) + seconds
    if hard != resource.RLIM_INFINITY:
        until = min(until, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (until, hard))


def _refuse(sink: BinaryIO, verdict: Verdict, detail: str) -> None:
    words = detail.encode(errors="replace")[:200]
    sink.write(REPLY.pack(verdict, False, False) + DETAIL.pack(len(words)) + words)


if __name__ == "__main__":
    main()
