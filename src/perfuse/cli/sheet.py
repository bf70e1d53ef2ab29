"""A contact sheet: rows of pictures of any size, with words above, beside and under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SMALLEST_TILE, LARGEST_TILE = 128, 384

_GAP, _EDGE, _HEADING = 8, 24, 52
_LARGEST_LABEL = 270
_LABEL, _NOTE = 15, 13
_PAPER, _INK, _FAINT, _LINE = (252, 251, 248), (34, 34, 40), (120, 118, 124), (222, 220, 214)


@dataclass(frozen=True)
class Row:
    """Pictures under one label.

    Attributes:
        label: What the row shows, one or more lines.
        pictures: Of any size.
        notes: Under each picture, one or more lines; or none.
    """

    label: str
    pictures: Sequence[Image.Image]
    notes: Sequence[str] = ()


@dataclass
class Sheet:
    """A page of sections.

    Small pictures are enlarged by a whole number, so that their pixels stay square; large ones
    are made smaller.

    Attributes:
        title: Of the page; long ones take several lines.
        subtitle: Under it, one or more lines.
        width: Pixels at least, so that few pictures leave the title room.
    """

    title: str
    subtitle: str
    width: int = 0
    sections: list[tuple[str, list[Row]]] = field(default_factory=list)

    def section(self, title: str, *rows: Row) -> None:
        """Add a section below the others; without a title it has no heading."""
        self.sections.append((title, list(rows)))

    def draw(self) -> Image.Image:
        """The page as a picture.

        Raises:
            ValueError: it has no pictures.
        """
        rows = [row for _, section in self.sections for row in section if row.pictures]
        if not rows:
            raise ValueError("a sheet has at least one picture")
        pictures = [picture for row in rows for picture in row.pictures]
        frame = _frame(pictures)
        beside = _EDGE
        if any(row.label for row in rows):
            widest = max(_extent(row.label, _LABEL)[0] for row in rows)
            beside = _EDGE + min(widest, _LARGEST_LABEL) + 2 * _GAP
        columns = max(len(row.pictures) for row in rows)
        width = max(beside + columns * (frame[0] + _GAP) - _GAP + _EDGE, self.width)
        title = wrapped(self.title, _font(26), width - 2 * _EDGE)
        subtitle = wrapped(self.subtitle, _font(_LABEL), width - 2 * _EDGE)
        top = _EDGE + _extent(title, 26)[1] + 10
        below = top + (_extent(subtitle, _LABEL)[1] + 16 if subtitle else 4)
        height = below + sum(
            (_HEADING if heading else 0) + sum(_height(row, frame) for row in section)
            for heading, section in self.sections
        )
        page = Image.new("RGB", (width, height + _EDGE - _GAP), _PAPER)
        pen = ImageDraw.Draw(page)
        pen.multiline_text((_EDGE, _EDGE - 4), title, _INK, _font(26))
        pen.multiline_text((_EDGE, top), subtitle, _FAINT, _font(_LABEL))
        for heading, section in self.sections:
            if heading:
                pen.line((_EDGE, below + 8, width - _EDGE, below + 8), _LINE, 1)
                pen.text((_EDGE, below + 18), heading, _INK, _font(18))
                below += _HEADING
            for row in section:
                _draw_row(page, pen, row, below, beside, frame)
                below += _height(row, frame)
        return page

    def save(self, path: Path) -> Path:
        """Write the page as a PNG, in a folder that is made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.draw().save(path, optimize=True)
        return path


def tile(size: tuple[int, int]) -> tuple[int, int]:
    """The size in which a picture stands on a sheet."""
    longest = max(size)
    if longest > LARGEST_TILE:
        return _scaled(size, LARGEST_TILE / longest)
    return _scaled(size, max(1, -(-SMALLEST_TILE // longest)))


def wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """A text with line ends where it would be wider than `width` pixels."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if line and font.getlength(longer) > width:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    return "\n".join(lines)


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _frame(pictures: Sequence[Image.Image]) -> tuple[int, int]:
    """The room that each picture of a page gets."""
    sizes = [tile(picture.size) for picture in pictures]
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _height(row: Row, frame: tuple[int, int]) -> int:
    notes = max((_extent(note, _NOTE)[1] for note in row.notes), default=0)
    return max(frame[1] + (notes + 8 if notes else 0), _extent(row.label, _LABEL)[1] + 8) + _GAP


def _draw_row(
    page: Image.Image,
    pen: ImageDraw.ImageDraw,
    row: Row,
    top: int,
    beside: int,
    frame: tuple[int, int],
) -> None:
    label = wrapped(row.label, _font(_LABEL), _LARGEST_LABEL)
    pen.multiline_text((_EDGE, top + 2), label, _INK, _font(_LABEL), spacing=5)
    for index, picture in enumerate(row.pictures):
        left = beside + index * (frame[0] + _GAP)
        size = tile(picture.size)
        enlarged = size[0] >= picture.width
        how = Image.Resampling.NEAREST if enlarged else Image.Resampling.LANCZOS
        page.paste(picture.convert("RGB").resize(size, how), (left, top))
        if index < len(row.notes):
            pen.multiline_text((left, top + frame[1] + 3), row.notes[index], _FAINT, _font(_NOTE))


def _extent(text: str, size: int) -> tuple[int, int]:
    """Width and height of a text, in pixels."""
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    _, _, right, bottom = pen.multiline_textbbox((0, 0), text, font=_font(size), spacing=5)
    return int(right), int(bottom)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
