"""A contact sheet: rows of enlarged pictures with words beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from perfuse_toybox.drawing import enlarge

_TILE = 128
_GAP = 8
_LABEL = 270
_PAPER, _INK, _FAINT = (252, 251, 248), (34, 34, 40), (120, 118, 124)


@dataclass(frozen=True)
class Row:
    """Pictures under one label.

    Attributes:
        label: What the row shows, one or more lines.
        pictures: 32 × 32 pictures.
        notes: Under each picture, as many lines as the first has; or none.
    """

    label: str
    pictures: Sequence[Image.Image]
    notes: Sequence[str] = ()


@dataclass
class Sheet:
    """A page of titled sections.

    Attributes:
        title: Of the page.
        subtitle: A sentence under it.
    """

    title: str
    subtitle: str
    sections: list[tuple[str, list[Row]]] = field(default_factory=list)

    def section(self, title: str, *rows: Row) -> None:
        """Add a section below the others."""
        self.sections.append((title, list(rows)))

    def draw(self) -> Image.Image:
        """The page as a picture."""
        rows = [row for _, section in self.sections for row in section]
        columns = max(len(row.pictures) for row in rows)
        label = _LABEL if any(row.label for row in rows) else 24
        width = label + columns * (_TILE + _GAP) + 3 * _GAP
        height = 108 + sum(52 for _ in self.sections) + sum(_height(row) for row in rows) + 12
        page = Image.new("RGB", (width, height), _PAPER)
        pen = ImageDraw.Draw(page)
        pen.text((24, 20), self.title, _INK, _font(34))
        pen.text((24, 66), self.subtitle, _FAINT, _font(17))
        top = 108
        for title, section in self.sections:
            pen.line((24, top + 8, width - 24, top + 8), (222, 220, 214), 1)
            pen.text((24, top + 18), title, _INK, _font(20))
            top += 52
            for row in section:
                _draw_row(page, pen, row, top, label)
                top += _height(row)
        return page

    def save(self, path: Path) -> None:
        """Write the page as a PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.draw().save(path, optimize=True)


def _height(row: Row) -> int:
    lines = 1 + row.notes[0].count("\n") if row.notes else 0
    return _TILE + _GAP + (4 + 16 * lines if lines else 0)


def _draw_row(page: Image.Image, pen: ImageDraw.ImageDraw, row: Row, top: int, label: int) -> None:
    pen.multiline_text((24, top + 6), row.label, _INK, _font(15), spacing=5)
    for index, picture in enumerate(row.pictures):
        left = label + index * (_TILE + _GAP)
        pixels = np.asarray(picture.convert("RGB"))
        page.paste(enlarge(pixels, _TILE // pixels.shape[0]), (left, top))
        if row.notes:
            pen.multiline_text((left, top + _TILE + 2), row.notes[index], _FAINT, _font(13))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
