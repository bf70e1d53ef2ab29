"""Pictures in a terminal: by its own protocol where it has one, else as blocks of colour.

kitty (https://sw.kovidgoyal.net/kitty/graphics-protocol) and iTerm2
(https://iterm2.com/documentation-images.html) take PNG files. Elsewhere, where the terminal has
24-bit colour, half a character is a pixel. `PERFUSE_PICTURES` says `kitty`, `iterm2`, `blocks` or
`none` where this module guesses wrong.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator, Mapping
from typing import IO, Literal, get_args

from rich.text import Text

Way = Literal["kitty", "iterm2", "blocks", "none"]
Pixel = tuple[int, int, int]
WAYS: tuple[Way, ...] = get_args(Way)

_HALF = "\N{UPPER HALF BLOCK}"
_KITTY_CHUNK = 4096


def way_of(environment: Mapping[str, str], *, is_terminal: bool) -> Way:
    """How a terminal shows pictures, as its environment says.

    Args:
        environment: of the process.
        is_terminal: whether the output goes to one at all.
    """
    if not is_terminal:
        return "none"
    for way in WAYS:
        if environment.get("PERFUSE_PICTURES") == way:
            return way
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if term in ("", "dumb"):
        return "none"
    # A multiplexer swallows the protocols, whatever terminal it runs in.
    multiplexed = "TMUX" in environment or term.startswith(("screen", "tmux"))
    if not multiplexed:
        if "KITTY_WINDOW_ID" in environment or "kitty" in term or program.lower() == "ghostty":
            return "kitty"
        if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
            return "iterm2"
    true_colour = environment.get("COLORTERM", "").lower() in ("truecolor", "24bit")
    return "blocks" if true_colour and not environment.get("NO_COLOR") else "none"


def show(picture: bytes, file: IO[str], *, columns: int = 80, rows: int = 40) -> bool:
    """Show a picture in the terminal that a file is, as well as it can.

    Args:
        picture: a file that PIL reads.
        file: the standard output or error.
        columns, rows: characters that it may take.

    Returns:
        Whether anything was shown.
    """
    way = way_of(os.environ, is_terminal=file.isatty())
    if way == "none":
        return False
    if way == "blocks":
        file.write(ansi_blocks(picture, columns, rows))
    else:
        width, height = fitting(picture, columns, rows)
        encode = kitty if way == "kitty" else iterm2
        file.write(encode(_png(picture), width, height) + "\n")
    file.flush()
    return True


def kitty(png: bytes, columns: int, rows: int) -> str:
    """The kitty graphics protocol: the file in base64, in commands of 4096 characters."""
    data = base64.standard_b64encode(png).decode("ascii")
    chunks = [data[at : at + _KITTY_CHUNK] for at in range(0, len(data), _KITTY_CHUNK)] or [""]
    return "".join(
        "\x1b_G"
        + (f"f=100,a=T,q=2,c={columns},r={rows}," if at == 0 else "")
        + f"m={int(at < len(chunks) - 1)};{chunk}\x1b\\"
        for at, chunk in enumerate(chunks)
    )


def iterm2(png: bytes, columns: int, rows: int) -> str:
    """iTerm2's inline pictures: one command with the whole file in base64."""
    data = base64.standard_b64encode(png).decode("ascii")
    return (
        f"\x1b]1337;File=inline=1;size={len(png)};width={columns};height={rows};"
        f"preserveAspectRatio=1:{data}\x07"
    )


def blocks(picture: bytes, columns: int, rows: int) -> Text:
    """Half a character for a pixel, as text that rich can place anywhere."""
    made = Text(no_wrap=True)
    for index, line in enumerate(_pairs(picture, columns, rows)):
        made.append("\n" if index else "")
        for upper, lower in line:
            made.append(_HALF, f"rgb({_commas(upper)}) on rgb({_commas(lower)})")
    return made


def ansi_blocks(picture: bytes, columns: int, rows: int) -> str:
    """Half a character for a pixel, as 24-bit escape sequences."""
    return "".join(
        "".join(
            f"\x1b[38;2;{_commas(upper, ';')};48;2;{_commas(lower, ';')}m{_HALF}"
            for upper, lower in line
        )
        + "\x1b[0m\n"
        for line in _pairs(picture, columns, rows)
    )


def fitting(picture: bytes, columns: int, rows: int) -> tuple[int, int]:
    """Columns and rows of a picture that keeps its shape; a character is twice as high as wide."""
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as opened:
        width, height = opened.size
    scale = min(columns / width, 2 * rows / height)
    return max(1, round(width * scale)), max(1, round(height * scale / 2))


def _pairs(picture: bytes, columns: int, rows: int) -> Iterator[list[tuple[Pixel, Pixel]]]:
    """Lines of characters, each an upper and a lower pixel."""
    from PIL import Image

    wide, high = fitting(picture, columns, rows)
    with Image.open(io.BytesIO(picture)) as opened:
        enlarged = wide >= opened.width
        how = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
        pixels = opened.convert("RGB").resize((wide, 2 * high), how).tobytes()
    for row in range(high):
        upper, lower = 2 * row * wide * 3, (2 * row + 1) * wide * 3
        yield [(_pixel(pixels, upper + 3 * x), _pixel(pixels, lower + 3 * x)) for x in range(wide)]


def _pixel(pixels: bytes, at: int) -> Pixel:
    return pixels[at], pixels[at + 1], pixels[at + 2]


def _commas(pixel: Pixel, between: str = ",") -> str:
    return between.join(map(str, pixel))


def _png(picture: bytes) -> bytes:
    """The picture as PNG, the one format that every protocol takes."""
    from PIL import Image

    if picture.startswith(b"\x89PNG"):
        return picture
    with Image.open(io.BytesIO(picture)) as opened:
        kept = io.BytesIO()
        opened.save(kept, "PNG")
    return kept.getvalue()
