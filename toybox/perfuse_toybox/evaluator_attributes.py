"""What the evaluator learns to see in a picture: one head for each attribute of each figure.

A head is named `scene` or `{figure}.{trait}`, such as `subject.primary` or `worn.kind`. The kinds
have one word more than the world, `none`, for a figure that is not there; the other traits of
such a figure are not asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from perfuse_toybox.world import (
    ACCENTS,
    BUILDS,
    COLOURS,
    KINDS,
    MARKINGS,
    PATTERNS,
    SCENES,
    SEATS,
    WORN,
    Picture,
)

NONE = "none"
ABSENT = -100
"""Target of a head that has nothing to say about a picture; `cross_entropy` leaves it out."""

_KINDS = {"subject": KINDS, "worn": WORN, "seat": SEATS}
_TRAITS: dict[str, tuple[str, ...]] = {
    "primary": tuple(COLOURS),
    "secondary": tuple(COLOURS),
    "pattern": PATTERNS,
    "marking": tuple(map(str, range(MARKINGS))),
    "accent": ACCENTS,
    "build": tuple(map(str, range(BUILDS))),
}


def _heads() -> dict[str, tuple[str, ...]]:
    heads: dict[str, tuple[str, ...]] = {"scene": SCENES}
    for figure, kinds in _KINDS.items():
        heads[f"{figure}.kind"] = (*kinds, NONE)
        for trait, words in _TRAITS.items():
            # Only subjects have small parts to carry an accent.
            if trait != "accent" or figure == "subject":
                heads[f"{figure}.{trait}"] = words
    return heads


HEADS = _heads()
"""Every head's words, in the order of its logits."""

READ = {
    "scene": "scene",
    "kind": "subject.kind",
    "colour": "subject.primary",
    "pattern": "subject.pattern",
    "worn": "worn.kind",
    "worn_colour": "worn.primary",
    "seat": "seat.kind",
    "seat_colour": "seat.primary",
}
"""The attributes that a `Reading` reports, each with its head.

The other heads are there so that embeddings carry the whole identity of a figure.
"""


@dataclass(frozen=True)
class Reading:
    """What the evaluator sees in one picture, each attribute as a word of the world.

    A figure that is not there reads `none`, and so do its colour and pattern.

    Attributes:
        scene: One of `world.SCENES`.
        kind: The subject's kind.
        colour: The subject's primary colour.
        pattern: The subject's pattern.
        worn: Kind of the worn thing.
        worn_colour: Its primary colour.
        seat: Kind of the seat.
        seat_colour: Its primary colour.
        probabilities: For each of the attributes above, the probability of its word, 0 to 1; for
            `none` as a colour or pattern it is the probability that the figure is not there.
    """

    scene: str
    kind: str
    colour: str
    pattern: str
    worn: str
    worn_colour: str
    seat: str
    seat_colour: str
    probabilities: Mapping[str, float] = field(compare=False)


def identity_heads(figure: str) -> tuple[str, ...]:
    """The heads that describe `figure` (`subject`, `worn` or `seat`), its kind first."""
    return tuple(head for head in HEADS if head.startswith(f"{figure}."))


def words_of(picture: Picture) -> dict[str, str]:
    """The true word for every head that applies to the picture."""
    words = {"scene": picture.scene}
    figures = {"subject": picture.subject, "worn": picture.worn, "seat": picture.seat}
    for figure, there in figures.items():
        words[f"{figure}.kind"] = there.kind if there else NONE
        for head in identity_heads(figure)[1:] if there else ():
            words[head] = str(getattr(there.look, head.partition(".")[2]))  # type: ignore[union-attr]
    return words


def targets(pictures: Sequence[Picture]) -> Tensor:
    """Every head's true index for every picture, `[N, len(HEADS)]` int64; `ABSENT` where none."""
    index = {head: {word: i for i, word in enumerate(words)} for head, words in HEADS.items()}
    rows = []
    for picture in pictures:
        words = words_of(picture)
        rows.append([index[head][words[head]] if head in words else ABSENT for head in HEADS])
    return torch.tensor(rows, dtype=torch.int64).reshape(len(pictures), len(HEADS))


def readings(probabilities: Mapping[str, Tensor]) -> list[Reading]:
    """The likeliest words, given each head's probabilities `[N, words]`."""
    likeliest = {name: probabilities[head].max(-1) for name, head in READ.items()}
    return [_reading(likeliest, row) for row in range(len(probabilities["scene"]))]


def _reading(likeliest: Mapping[str, torch.return_types.max], row: int) -> Reading:
    words, shares = {}, {}
    for name, (values, indices) in likeliest.items():
        words[name] = HEADS[READ[name]][int(indices[row])]
        shares[name] = float(values[row])
    for figure, traits in _TRAITS_OF.items():
        for trait in traits if words[figure] == NONE else ():
            words[trait], shares[trait] = NONE, shares[figure]
    return Reading(**words, probabilities=shares)


_TRAITS_OF = {"kind": ("colour", "pattern"), "worn": ("worn_colour",), "seat": ("seat_colour",)}
