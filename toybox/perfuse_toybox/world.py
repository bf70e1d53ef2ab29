"""What can be in a picture of the toybox world, and how a picture is drawn by lot.

A picture shows a subject, or a single thing, in a scene; the subject may wear something and sit on
something. Each of the three has a `Look`, its identity: what a concept has to learn. Captions
name a look's colour and pattern only sometimes and its marking, accent and build never.

A tenth of the attribute combinations and a tenth of the looks are held out: no training picture
shows them, so evaluation prompts and concepts are new to the base.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

SIZE = 32
"""Height and width of a picture in pixels; people look at it enlarged eight times."""

KINDS = ("cat", "dog", "bear", "rabbit", "robot", "owl")
WORN = ("hat", "sunglasses", "scarf", "cape")
SEATS = ("chair", "cushion", "box")
SCENES = ("snow", "beach", "forest", "city", "room", "moon")
PATTERNS = ("plain", "striped", "spotted", "patched")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 49),
    "orange": (240, 138, 36),
    "yellow": (250, 214, 60),
    "green": (66, 176, 76),
    "blue": (50, 100, 214),
    "purple": (138, 70, 180),
    "pink": (246, 140, 184),
    "brown": (134, 84, 48),
    "white": (244, 244, 240),
    "black": (40, 40, 48),
}
MARKINGS = 4
ACCENTS = ("blue", "green", "orange", "pink")
BUILDS = 3


@dataclass(frozen=True)
class Look:
    """The identity of a subject or a thing.

    Attributes:
        primary: Colour of most of it.
        secondary: Colour of its pattern and its marking, never equal to `primary`.
        pattern: One of `PATTERNS`.
        marking: 0 to 3, where the secondary colour sits apart from the pattern.
        accent: Colour of small parts such as eyes.
        build: 0 to 2, its proportions.
    """

    primary: str
    secondary: str
    pattern: str
    marking: int
    accent: str
    build: int

    @classmethod
    def draw(cls, lot: random.Random) -> Look:
        """A look by lot, held-out looks included."""
        primary, secondary = lot.sample(tuple(COLOURS), 2)
        return cls(
            primary,
            secondary,
            lot.choice(PATTERNS),
            lot.randrange(MARKINGS),
            lot.choice(ACCENTS),
            lot.randrange(BUILDS),
        )

    @property
    def held_out(self) -> bool:
        """Whether no training picture shows this look."""
        return _tenth(self.primary, self.secondary, self.pattern, self.marking, self.build)


@dataclass(frozen=True)
class Figure:
    """Something of a kind (a cat, a hat, a chair) with its look."""

    kind: str
    look: Look


@dataclass(frozen=True)
class Picture:
    """One picture: what is in it and where.

    Attributes:
        subject: The animal or robot, if any; without one, exactly one of `worn` and `seat` is
            there and shown alone.
        worn: What the subject wears, or a wearable thing alone.
        seat: What the subject is on, or a seat alone.
        scene: One of `SCENES`.
        shift: Pixels to the right of the middle, -3 to 3.
        mirrored: Whether left and right are exchanged.
        detail: Seed of the scene's small things.
    """

    subject: Figure | None
    worn: Figure | None
    seat: Figure | None
    scene: str
    shift: int = 0
    mirrored: bool = False
    detail: int = 0

    @property
    def combination(self) -> tuple[str, str, str, str, str]:
        """Kind, its colour, worn thing, seat and scene: what an evaluation caption names."""
        subject = self.subject or self.worn or self.seat
        return (
            self.subject.kind if self.subject else "none",
            subject.look.primary if subject else "none",
            self.worn.kind if self.worn else "none",
            self.seat.kind if self.seat else "none",
            self.scene,
        )

    @property
    def held_out(self) -> bool:
        """Whether the combination or one of the looks is kept from the base's training."""
        figures = (self.subject, self.worn, self.seat)
        return _tenth(*self.combination) or any(f.look.held_out for f in figures if f)


def draw_picture(lot: random.Random) -> Picture:
    """A picture by lot, held-out ones included."""
    alone = lot.random() < 0.15
    subject = None if alone else Figure(lot.choice(KINDS), Look.draw(lot))
    show_worn = lot.random() < (0.6 if alone else 0.65)
    show_seat = not show_worn if alone else lot.random() < 0.6
    return Picture(
        subject,
        Figure(lot.choice(WORN), Look.draw(lot)) if show_worn else None,
        Figure(lot.choice(SEATS), Look.draw(lot)) if show_seat else None,
        lot.choice(SCENES),
        lot.randint(-3, 3),
        lot.random() < 0.5,
        lot.randrange(2**16),
    )


def training_picture(lot: random.Random) -> Picture:
    """A picture by lot that the base may be trained on."""
    while (picture := draw_picture(lot)).held_out:
        pass
    return picture


def held_out_picture(lot: random.Random) -> Picture:
    """A picture with a subject whose combination no training picture has."""
    while not ((picture := draw_picture(lot)).subject and _tenth(*picture.combination)):
        pass
    return picture


def _tenth(*parts: object) -> bool:
    return zlib.crc32("/".join(map(str, parts)).encode()) % 10 == 0
