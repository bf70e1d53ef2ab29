"""From a `Picture` to pixels: subjects, worn things and seats as pixel art of 32 × 32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from perfuse_toybox.canvas import Canvas, box, ellipse, outline, polygon
from perfuse_toybox.scenes import paint_scene
from perfuse_toybox.subjects import paint_subject
from perfuse_toybox.world import COLOURS, Figure, Look, Picture

_HEAD = {None: 13, "chair": 10, "cushion": 10, "box": 9}
"""Height of the head's middle in rows from the top, by what the subject is on."""


def paint(picture: Picture) -> npt.NDArray[np.uint8]:
    """The picture's pixels, `[32, 32, 3]` uint8."""
    canvas = Canvas()
    paint_scene(canvas, picture.scene, picture.detail)
    seat, worn = picture.seat, picture.worn
    x, y = 16 + picture.shift, _HEAD[seat.kind if seat else None]
    if picture.subject is None:
        if seat is not None:
            _paint_seat(canvas, seat, x, y)
        if worn is not None:
            _paint_worn(
                canvas, worn, x, {"hat": 22, "sunglasses": 17, "scarf": 12}.get(worn.kind, 11)
            )
    else:
        if seat is not None:
            _paint_seat(canvas, seat, x, y)
        if worn is not None and worn.kind == "cape":
            _paint_worn(canvas, worn, x, y)
        paint_subject(canvas, picture.subject, x, y)
        if worn is not None and worn.kind != "cape":
            _paint_worn(canvas, worn, x, y)
    return np.ascontiguousarray(canvas.pixels[:, ::-1]) if picture.mirrored else canvas.pixels


def _paint_seat(canvas: Canvas, seat: Figure, x: int, y: int) -> None:
    look, wide = seat.look, 8 + seat.look.build
    match seat.kind:
        case "chair":
            canvas.part(box(x - wide, y - 5, x + wide, y + 12), look, (x, y))
            _mark_chair(canvas, look, x, y, wide)
            canvas.flat(box(x - wide - 1, y + 13, x + wide + 1, y + 15), look.secondary)
            for leg in (x - wide, x + wide - 1):
                canvas.flat(box(leg, y + 17, leg + 1, y + 20), look.primary)
        case "cushion":
            canvas.part(ellipse(x, y + 17, wide + 3.3, 3.3), look, (x, y))
            for end in (x - wide - 3, x + wide + 3):
                canvas.flat(box(end, y + 17, end, y + 18), look.secondary)
            if look.marking % 2:
                canvas.paint(box(x - 1, y + 16, x + 1, y + 18), COLOURS[look.secondary])
        case _:
            canvas.part(box(x - wide, y + 14, x + wide, y + 21), look, (x, y))
            canvas.flat(box(x - wide - 1, y + 13, x + wide + 1, y + 14), look.secondary)
            if look.marking % 2:
                canvas.paint(ellipse(x, y + 18, 2.2, 2.2), COLOURS[look.secondary])


def _mark_chair(canvas: Canvas, look: Look, x: int, y: int, wide: int) -> None:
    for top in (x - wide, x + wide - 1):
        if look.marking % 2:
            canvas.flat(box(top, y - 8, top + 1, y - 6), look.secondary)
    if look.marking >= 2:
        canvas.paint(box(x - wide, y - 5, x + wide, y - 5), COLOURS[look.secondary])


def _paint_worn(canvas: Canvas, worn: Figure, x: int, y: int) -> None:
    look = worn.look
    match worn.kind:
        case "hat":
            tall = 4 + look.build
            crown = box(x - 4, y - 6 - tall, x + 4, y - 6)
            if look.marking % 2:
                crown = polygon(
                    [(x - 4, y - 6), (x - 1, y - 7 - tall), (x + 1, y - 7 - tall), (x + 4, y - 6)]
                )
            canvas.part(crown, look, (x, y))
            canvas.flat(box(x - 7, y - 5, x + 7, y - 4), look.secondary)
        case "sunglasses":
            round_lens = look.marking % 2 == 1
            canvas.paint(box(x - 8, y - 1, x + 8, y - 1), COLOURS[look.primary])
            for middle in (x - 4, x + 4):
                lens = (
                    ellipse(middle, y, 3.2, 3.2)
                    if round_lens
                    else box(middle - 3, y - 2, middle + 3, y + 2)
                )
                glass = (
                    ellipse(middle, y, 2.2, 2.2)
                    if round_lens
                    else box(middle - 2, y - 1, middle + 2, y + 1)
                )
                canvas.paint(lens, COLOURS[look.primary])
                canvas.paint(glass, COLOURS[look.secondary])
                canvas.paint(box(middle - 1, y - 1, middle - 1, y - 1), (255, 255, 255))
        case "scarf":
            canvas.part(box(x - 6, y + 4, x + 6, y + 6), look, (x, y))
            side = x + 3 if look.marking % 2 else x - 4
            end = y + 10 + look.build
            canvas.part(box(side - 1, y + 7, side + 1, end), look, (x, y))
            canvas.paint(box(side - 1, end, side + 1, end), COLOURS[look.secondary])
        case _:
            wide = 9 + look.build
            canvas.part(
                polygon([(x - 4, y + 4), (x + 4, y + 4), (x + wide, y + 15), (x - wide, y + 15)]),
                look,
                (x, y),
            )
            canvas.paint(box(x - wide, y + 15, x + wide, y + 15), COLOURS[look.secondary])
            canvas.paint(box(x - 3, y + 4, x + 3, y + 4), outline(look.secondary))
