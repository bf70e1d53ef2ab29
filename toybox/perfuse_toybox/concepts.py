"""Concepts of the toybox world: one identity each, never seen by the base, with its pictures."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from perfuse_toybox.drawing import paint
from perfuse_toybox.world import KINDS, SCENES, WORN, Figure, Look, Picture


@dataclass(frozen=True)
class Concept:
    """Something to teach.

    Attributes:
        name: The placeholder's word.
        figure: What it is: its kind is the super-category, its look the identity.
    """

    name: str
    figure: Figure

    @property
    def super_category(self) -> str:
        """The everyday noun."""
        return self.figure.kind

    def picture(self, scene: str, lot: random.Random) -> Picture:
        """The concept by itself in a scene."""
        kind = self.figure.kind
        return Picture(
            subject=self.figure if kind in KINDS else None,
            worn=self.figure if kind in WORN else None,
            seat=self.figure if kind not in KINDS + WORN else None,
            scene=scene,
            shift=lot.randint(-3, 3),
            mirrored=False,
            detail=lot.randrange(2**16),
        )

    def pictures(self, count: int, seed: int) -> tuple[Picture, ...]:
        """`count` pictures in scenes that differ as long as there are any left."""
        lot = random.Random(f"{self.name}/{seed}")
        scenes = lot.sample(SCENES, len(SCENES))
        return tuple(self.picture(scenes[index % len(scenes)], lot) for index in range(count))

    def write_pictures(self, folder: Path, count: int = 5, seed: int = 1) -> tuple[Path, ...]:
        """Write the pictures as PNG files of 32 × 32, as a person would hand them over."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for index, picture in enumerate(self.pictures(count, seed)):
            paths.append(folder / f"{self.name}-{index + 1}.png")
            Image.fromarray(paint(picture)).save(paths[-1])
        return tuple(paths)


def held_out_look(seed: int, primary: str, secondary: str, pattern: str) -> Look:
    """A look with these colours and pattern that no training picture of the base has."""
    lot = random.Random(seed)
    while True:
        drawn = Look.draw(lot)
        look = Look(primary, secondary, pattern, drawn.marking, drawn.accent, drawn.build)
        if look.held_out:
            return look
        seed += 1
        if seed > 10_000:
            raise ValueError(f"no held-out look is {primary}, {secondary} and {pattern}")


TOM = Concept("tom", Figure("cat", held_out_look(0, "orange", "white", "striped")))
SHADES = Concept("shades", Figure("sunglasses", held_out_look(0, "yellow", "pink", "plain")))
THRONE = Concept("throne", Figure("chair", held_out_look(0, "purple", "yellow", "spotted")))
