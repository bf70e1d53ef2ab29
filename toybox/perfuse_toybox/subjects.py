"""The six kinds of subject, each with a silhouette of its own."""

from __future__ import annotations

from perfuse_toybox.canvas import Canvas, box, ellipse, outline, polygon
from perfuse_toybox.world import COLOURS, Figure, Look

_WHITE = (255, 255, 255)
_DARK = (24, 24, 30)


def paint_subject(canvas: Canvas, subject: Figure, x: int, y: int) -> None:
    """Paint a subject from the front, the middle of its head at column `x`, row `y`."""
    painter = {
        "cat": _cat,
        "dog": _dog,
        "bear": _bear,
        "rabbit": _rabbit,
        "robot": _robot,
        "owl": _owl,
    }[subject.kind]
    painter(canvas, subject.look, x, y)


def _body(canvas: Canvas, look: Look, x: int, y: int, wide: float) -> None:
    canvas.part(ellipse(x, y + 9, wide, 6), look, (x, y))
    if look.marking == 0:
        canvas.paint(ellipse(x, y + 10, wide - 2.4, 3.6), COLOURS[look.secondary])
    for foot in (x - 4, x + 4):
        colour = look.secondary if look.marking == 1 else look.primary
        canvas.flat(box(foot - 1, y + 14, foot + 1, y + 14), colour)


def _head(canvas: Canvas, look: Look, x: int, y: int, rx: float = 6.6, ry: float = 5.4) -> None:
    canvas.part(ellipse(x, y, rx, ry), look, (x, y))
    if look.marking == 2:
        canvas.paint(box(x - 1, y - 5, x + 1, y - 2), COLOURS[look.secondary])
    if look.marking == 3:
        canvas.paint(ellipse(x - 4, y, 2.6, 2.6), COLOURS[look.secondary])


def _eyes(canvas: Canvas, look: Look, x: int, y: int) -> None:
    for side in (-1, 1):
        canvas.paint(box(x + 3 * side - 1, y - 1, x + 3 * side + 1, y + 1), _WHITE)
        canvas.paint(box(x + 3 * side, y - 1, x + 3 * side, y + 1), COLOURS[look.accent])
        canvas.paint(box(x + 3 * side, y, x + 3 * side, y), _DARK)


def _muzzle(canvas: Canvas, x: int, y: int, rx: float, colour: tuple[int, int, int]) -> None:
    canvas.paint(ellipse(x, y + 3, rx, 1.6), colour)
    canvas.paint(box(x - 1, y + 2, x + 1, y + 2), _DARK)


def _cat(canvas: Canvas, look: Look, x: int, y: int) -> None:
    tall = 8 + look.build
    tail = [(x + 5, y + 13), (x + 9, y + 10), (x + 10, y + 5), (x + 8, y + 5), (x + 7, y + 9)]
    canvas.part(polygon(tail), look, (x, y))
    for side in (-1, 1):
        ear = [(x + 6 * side, y - 1), (x + 6 * side, y - tall), (x + 2 * side, y - 4)]
        canvas.part(polygon(ear), look, (x, y))
        canvas.paint(box(x + 5 * side, y - tall + 3, x + 5 * side, y - 4), COLOURS["pink"])
    _body(canvas, look, x, y, 4.6 + look.build)
    _head(canvas, look, x, y)
    _eyes(canvas, look, x, y)
    canvas.paint(box(x, y + 2, x, y + 2), COLOURS["pink"])
    for side in (-1, 1):
        canvas.paint(
            box(min(x + 5 * side, x + 8 * side), y + 3, max(x + 5 * side, x + 8 * side), y + 3),
            _DARK,
        )


def _dog(canvas: Canvas, look: Look, x: int, y: int) -> None:
    _body(canvas, look, x, y, 5.0 + look.build)
    _head(canvas, look, x, y, 5.8)
    for side in (-1, 1):
        ear = ellipse(x + 6 * side, y + 1 + look.build / 2, 2.2, 4.6 + look.build / 2)
        canvas.flat(ear, look.secondary)
    _eyes(canvas, look, x, y)
    _muzzle(canvas, x, y, 2.6, _WHITE)
    canvas.paint(box(x, y + 4, x, y + 5), (232, 92, 110))


def _bear(canvas: Canvas, look: Look, x: int, y: int) -> None:
    for side in (-1, 1):
        canvas.part(ellipse(x + 5 * side, y - 5, 2.8, 2.8), look, (x, y))
        canvas.paint(ellipse(x + 5 * side, y - 5, 1.2, 1.2), COLOURS[look.secondary])
    for side in (-1, 1):
        canvas.part(ellipse(x + (6 + look.build) * side, y + 9, 2.2, 3.6), look, (x, y))
    _body(canvas, look, x, y, 6.2 + look.build)
    _head(canvas, look, x, y, 7.2, 5.8)
    _eyes(canvas, look, x, y)
    _muzzle(canvas, x, y, 3.2, (226, 196, 156))


def _rabbit(canvas: Canvas, look: Look, x: int, y: int) -> None:
    tall = 4.6 + 0.7 * look.build
    for side in (-1, 1):
        canvas.part(ellipse(x + 3 * side, y - 3 - tall, 2.1, tall), look, (x, y))
        canvas.paint(ellipse(x + 3 * side, y - 3 - tall, 0.9, tall - 1.6), COLOURS["pink"])
    _body(canvas, look, x, y, 4.4 + 0.8 * look.build)
    _head(canvas, look, x, y, 6.0, 5.0)
    _eyes(canvas, look, x, y)
    canvas.paint(box(x, y + 2, x, y + 2), COLOURS["pink"])
    canvas.paint(box(x - 1, y + 4, x + 1, y + 5), _WHITE)
    canvas.paint(box(x, y + 4, x, y + 5), outline(look.primary))


def _robot(canvas: Canvas, look: Look, x: int, y: int) -> None:
    wide = 4 + look.build
    canvas.paint(box(x, y - 9, x, y - 5), (120, 124, 136))
    canvas.flat(box(x - 1, y - 10, x + 1, y - 9), look.accent)
    for side in (-1, 1):
        arm = x + (wide + 3) * side
        canvas.flat(box(arm - 1, y + 6, arm + 1, y + 12), look.secondary)
    canvas.part(box(x - wide - 1, y + 5, x + wide + 1, y + 13), look, (x, y))
    if look.marking in (0, 1):
        canvas.flat(box(x - 2, y + 8, x + 2, y + 10), look.secondary)
    for foot in (x - 3, x + 3):
        canvas.flat(box(foot - 1, y + 14, foot + 1, y + 14), look.secondary)
    canvas.part(box(x - 6, y - 5, x + 6, y + 3), look, (x, y))
    if look.marking in (2, 3):
        canvas.paint(box(x - 6, y - 5, x + 6, y - 4), COLOURS[look.secondary])
    for side in (-1, 1):
        canvas.paint(box(x + 3 * side - 1, y - 2, x + 3 * side + 1, y), _DARK)
        canvas.paint(box(x + 3 * side, y - 1, x + 3 * side, y - 1), (120, 250, 250))
    canvas.paint(box(x - 3, y + 2, x + 3, y + 2), (200, 204, 214))
    canvas.paint(box(x - 1, y + 2, x - 1, y + 2), _DARK)
    canvas.paint(box(x + 1, y + 2, x + 1, y + 2), _DARK)


def _owl(canvas: Canvas, look: Look, x: int, y: int) -> None:
    wide = 6.4 + 0.8 * look.build
    for side in (-1, 1):
        tuft = [(x + 6 * side, y - 7), (x + 6 * side, y - 2), (x + 2 * side, y - 4)]
        canvas.part(polygon(tuft), look, (x, y))
    canvas.part(ellipse(x, y + 5, wide, 9.6), look, (x, y))
    if look.marking in (0, 2):
        canvas.paint(ellipse(x, y + 9, wide - 2.8, 4.0), COLOURS[look.secondary])
    for side in (-1, 1):
        wing = ellipse(x + (wide - 0.4) * side, y + 7, 2.0, 4.8)
        canvas.flat(wing, look.secondary if look.marking in (1, 3) else look.primary)
    for side in (-1, 1):
        canvas.paint(ellipse(x + 3 * side, y, 3.3, 3.3), outline(look.primary))
        canvas.paint(ellipse(x + 3 * side, y, 2.4, 2.4), _WHITE)
        canvas.paint(ellipse(x + 3 * side, y, 1.5, 1.5), COLOURS[look.accent])
        canvas.paint(box(x + 3 * side, y, x + 3 * side, y), _DARK)
    canvas.paint(polygon([(x - 1, y + 2), (x + 1, y + 2), (x, y + 4)]), COLOURS["orange"])
    for foot in (x - 3, x + 3):
        canvas.paint(box(foot - 1, y + 15, foot + 1, y + 15), COLOURS["orange"])
