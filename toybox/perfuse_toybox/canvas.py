"""A small canvas: Pillow's shapes as masks, filled with flat colours or a look's pattern."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from perfuse_toybox.world import COLOURS, SIZE, Look

Mask = npt.NDArray[np.bool_]
Colour = tuple[int, int, int]

_ROWS, _COLUMNS = np.mgrid[0:SIZE, 0:SIZE]


class Canvas:
    """A picture in the making.

    Attributes:
        pixels: `[SIZE, SIZE, 3]` uint8, RGB.
    """

    def __init__(self) -> None:
        self.pixels: npt.NDArray[np.uint8] = np.zeros((SIZE, SIZE, 3), np.uint8)

    def paint(self, mask: Mask, colour: Colour) -> None:
        """Fill `mask` with one colour."""
        self.pixels[mask] = colour

    def part(self, mask: Mask, look: Look, origin: tuple[float, float]) -> None:
        """Fill `mask` with the look's pattern, outlined; the pattern moves with `origin`."""
        self.paint(grown(mask) & ~mask, outline(look.primary))
        self.paint(mask, COLOURS[look.primary])
        self.paint(mask & _pattern(look.pattern, origin), COLOURS[look.secondary])

    def flat(self, mask: Mask, colour: str) -> None:
        """Fill `mask` with a named colour, outlined."""
        self.paint(grown(mask) & ~mask, outline(colour))
        self.paint(mask, COLOURS[colour])


def ellipse(x: float, y: float, rx: float, ry: float) -> Mask:
    """Pixels whose middle lies in the ellipse around (x, y)."""
    inside: Mask = ((_COLUMNS - x) / rx) ** 2 + ((_ROWS - y) / ry) ** 2 <= 1.0
    return inside


def box(x0: float, y0: float, x1: float, y1: float) -> Mask:
    """Pixels from (x0, y0) to (x1, y1), both included."""
    inside: Mask = (x0 <= _COLUMNS) & (_COLUMNS <= x1) & (y0 <= _ROWS) & (_ROWS <= y1)
    return inside


def polygon(points: Sequence[tuple[float, float]]) -> Mask:
    """Pixels inside a polygon, its border included."""
    image = Image.new("1", (SIZE, SIZE))
    ImageDraw.Draw(image).polygon(list(points), fill=1, outline=1)
    return np.asarray(image).copy()


def grown(mask: Mask) -> Mask:
    """The mask and its four-neighbours."""
    out = mask.copy()
    out[1:] |= mask[:-1]
    out[:-1] |= mask[1:]
    out[:, 1:] |= mask[:, :-1]
    out[:, :-1] |= mask[:, 1:]
    return out


def outline(colour: str) -> Colour:
    """A darker tone of a named colour."""
    red, green, blue = COLOURS[colour]
    return red * 45 // 100, green * 45 // 100, blue * 45 // 100


def _pattern(pattern: str, origin: tuple[float, float]) -> Mask:
    x, y = _COLUMNS - round(origin[0]), _ROWS - round(origin[1])
    match pattern:
        case "striped":
            mask = y % 4 < 2
        case "spotted":
            mask = ((x + 2 * (y // 4 % 2)) % 4 < 2) & (y % 4 < 2)
        case "patched":
            mask = x > 0
        case _:
            mask = np.zeros((SIZE, SIZE), bool)
    return np.asarray(mask, bool)
