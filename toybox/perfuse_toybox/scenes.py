"""The six scenes behind a picture, painted over the whole canvas."""

from __future__ import annotations

import random

from perfuse_toybox.canvas import Canvas, Colour, box, ellipse, polygon
from perfuse_toybox.world import SIZE

_HORIZON = 21
_FULL = SIZE - 1


def paint_scene(canvas: Canvas, scene: str, detail: int) -> None:
    """Paint one of `world.SCENES`; `detail` seeds where its small things lie."""
    lot = random.Random(detail)
    match scene:
        case "snow":
            _snow(canvas, lot)
        case "beach":
            _beach(canvas, lot)
        case "forest":
            _forest(canvas, lot)
        case "city":
            _city(canvas, lot)
        case "room":
            _room(canvas, lot)
        case "moon":
            _moon(canvas, lot)
        case _:
            raise ValueError(f"no scene {scene!r} in the toybox world")


def _ground(canvas: Canvas, sky: Colour, ground: Colour) -> None:
    canvas.paint(box(0, 0, _FULL, _FULL), sky)
    canvas.paint(box(0, _HORIZON, _FULL, _FULL), ground)


def _snow(canvas: Canvas, lot: random.Random) -> None:
    _ground(canvas, (168, 200, 226), (232, 240, 248))
    for _ in range(2):
        x = lot.choice((3, 5, 26, 28)) + lot.randint(-2, 2)
        canvas.paint(polygon([(x, 9), (x - 4, 21), (x + 4, 21)]), (86, 132, 128))
        canvas.paint(polygon([(x, 9), (x - 1, 12), (x + 1, 12)]), (232, 240, 248))
    for _ in range(10):
        x, y = lot.randrange(SIZE), lot.randrange(_HORIZON)
        canvas.paint(box(x, y, x, y), (255, 255, 255))


def _beach(canvas: Canvas, lot: random.Random) -> None:
    _ground(canvas, (120, 206, 244), (242, 220, 156))
    canvas.paint(box(0, 15, _FULL, _HORIZON), (30, 136, 196))
    canvas.paint(box(0, _HORIZON, _FULL, _HORIZON), (214, 240, 246))
    canvas.paint(ellipse(lot.choice((4, 27)), 4, 3, 3), (255, 236, 120))
    for _ in range(4):
        x, y = lot.randrange(SIZE), lot.randrange(24, SIZE)
        canvas.paint(box(x, y, x + 1, y), (214, 184, 118))


def _forest(canvas: Canvas, lot: random.Random) -> None:
    _ground(canvas, (32, 84, 52), (72, 128, 58))
    for x in (2, 10, 21, 29):
        x += lot.randint(-2, 2)
        canvas.paint(box(x - 1, 0, x + 1, _HORIZON), (86, 60, 40))
    for _ in range(5):
        canvas.paint(ellipse(lot.randrange(SIZE), lot.randint(0, 3), 4, 3), (24, 62, 40))
    for _ in range(5):
        x, y = lot.randrange(SIZE), lot.randrange(23, SIZE)
        canvas.paint(box(x, y, x, y + 1), (104, 168, 74))


def _city(canvas: Canvas, lot: random.Random) -> None:
    _ground(canvas, (24, 26, 62), (78, 80, 92))
    for left in (0, 8, 17, 25):
        top = lot.randint(3, 9)
        canvas.paint(box(left, top, left + 6, _HORIZON - 1), (52, 54, 92))
        for y in range(top + 2, _HORIZON - 1, 3):
            for x in (left + 1, left + 4):
                if lot.random() < 0.7:
                    canvas.paint(box(x, y, x + 1, y), (252, 216, 110))
    canvas.paint(box(0, 27, _FULL, 27), (206, 206, 190))


def _room(canvas: Canvas, lot: random.Random) -> None:
    _ground(canvas, (238, 206, 180), (164, 106, 66))
    for x in range(lot.randrange(4), SIZE, 4):
        canvas.paint(box(x, 0, x, _HORIZON - 1), (226, 184, 156))
    canvas.paint(box(0, _HORIZON, _FULL, _HORIZON), (112, 66, 40))
    left = lot.choice((1, 2, 22, 23))
    canvas.paint(box(left, 3, left + 7, 11), (250, 250, 250))
    canvas.paint(box(left + 1, 4, left + 6, 10), (146, 208, 244))
    canvas.paint(box(left + 3, 4, left + 4, 10), (250, 250, 250))


def _moon(canvas: Canvas, lot: random.Random) -> None:
    _ground(canvas, (10, 10, 20), (150, 150, 156))
    for _ in range(12):
        x, y = lot.randrange(SIZE), lot.randrange(_HORIZON)
        canvas.paint(box(x, y, x, y), (240, 240, 255))
    x = lot.choice((4, 27))
    canvas.paint(ellipse(x, 5, 3.4, 3.4), (70, 130, 200))
    canvas.paint(ellipse(x - 1, 4, 1.5, 1.2), (90, 180, 110))
    for _ in range(3):
        canvas.paint(
            ellipse(lot.randrange(SIZE), lot.randrange(24, SIZE), 2.4, 1.1), (112, 112, 120)
        )
