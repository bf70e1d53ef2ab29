"""The story that the demo's contact sheet tells, rendered through the Renderer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from perfuse.client import Client, ConceptSettings
from perfuse_toybox.concepts import SHADES, THRONE, TOM, Concept
from perfuse_toybox.sheet import Row, Sheet

SCENES = ("in the snow", "on the beach", "in the city", "on the moon", "in the forest")
BIASES = (0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
GUIDANCE = 3.0

CONCEPTS: tuple[Concept, ...] = (TOM, SHADES, THRONE)


@dataclass(frozen=True)
class Wanted:
    """One picture of a row: what is asked of `Client.render`, and the words under it."""

    prompt: str
    note: str = ""
    lock: str = "GLOBAL"
    bias: float | None = None

    def settings(self) -> dict[str, Any]:
        """Of the render."""
        named = [part.partition(">")[0] for part in self.prompt.split("<")[1:]]
        return {
            "concepts": {name: ConceptSettings(bias=self.bias) for name in named},
            # A version with keys of its own renders with them; that is no lock to ask for.
            "key_lock": self.lock if named and self.lock != "TRAINED_K" else None,
        }


class Story:
    """Renders rows of pictures, the pictures of a row side by side in the Renderer's batches.

    Args:
        perfuse: a client; the concepts have versions at the aliases `prod` and `trained-k`.
        pictures: a folder for each concept with what it was shown.
        seed: the same for every picture, so that they compare.
        steps: of denoising.
    """

    def __init__(self, perfuse: Client, pictures: Path, seed: int, steps: int) -> None:
        self._perfuse, self._pictures = perfuse, pictures
        self._seed, self._steps = seed, steps

    def sheet(self, progress: Callable[[int, int], None]) -> Sheet:
        """The whole story on one page; `progress` is told pictures done, and of how many."""
        sections = _sections()
        total = sum(len(row) for _, rows in sections for _, row in rows)
        sheet = Sheet(
            "Perfuse: three concepts from five pictures each, combined in new ones",
            "Every concept is one file of about four kilobytes; the base model is never changed.",
        )
        sheet.section("1. What it was shown", *map(self._shown, CONCEPTS))
        done = 0
        with ThreadPoolExecutor(
            max(len(row) for _, rows in sections for _, row in rows)
        ) as threads:
            for title, rows in sections:
                drawn = []
                for label, row in rows:
                    pictures = list(threads.map(self._render, row))
                    notes = [wanted.note for wanted in row]
                    drawn.append(Row(label, pictures, notes))
                    done += len(row)
                    progress(done, total)
                sheet.section(title, *drawn)
        return sheet

    def _render(self, wanted: Wanted) -> Image.Image:
        (image,) = self._perfuse.render(
            wanted.prompt,
            seeds=(self._seed,),
            steps=self._steps,
            guidance=GUIDANCE,
            **wanted.settings(),
        )
        return Image.open(BytesIO(image.picture)).convert("RGB")

    def _shown(self, concept: Concept) -> Row:
        paths = sorted((self._pictures / concept.name).glob("*.png"))
        label = f"<{concept.name}>, a kind of {concept.super_category}"
        return Row(label, [Image.open(path) for path in paths])


_Rows = list[tuple[str, list[Wanted]]]


def _sections() -> list[tuple[str, _Rows]]:
    plain = [Wanted(f"a photo of a cat {scene}", scene) for scene in SCENES]
    scenes: _Rows = [('the base alone\n"a photo of a cat ..."', plain)]
    for lock, alias in (("GLOBAL", "prod"), ("LOCAL", "prod"), ("TRAINED_K", "trained-k")):
        row = [Wanted(f"a photo of a <tom@{alias}> {scene}", scene, lock) for scene in SCENES]
        scenes.append((f'key lock {lock}\n"a photo of a <tom@{alias}> ..."', row))
    return [
        ("2. The concept in new scenes", scenes),
        ("3. One number moves a finished concept", _sweeps()),
        ("4. Concepts trained apart, in one picture", _blends()),
    ]


def _sweeps() -> _Rows:
    return [
        (
            f'LOCAL, likeness to editability\n"{prompt.replace("@prod", "")}"',
            [Wanted(prompt, f"bias {bias:g}", "LOCAL", bias) for bias in BIASES],
        )
        for prompt in (
            "a photo of a <tom@prod> on the beach",
            "a dog with <shades@prod> in a room",
        )
    ]


def _blends() -> _Rows:
    return [
        (
            f'"{prompt.format("...").replace("@prod", "")}"'.replace(" sitting", "\n sitting"),
            [Wanted(prompt.format(scene), scene) for scene in SCENES],
        )
        for prompt in (
            "a <tom@prod> wearing <shades@prod> {}",
            "a <tom@prod> sitting on a <throne@prod> {}",
            "a <tom@prod> wearing <shades@prod> sitting on a <throne@prod> {}",
        )
    ]
