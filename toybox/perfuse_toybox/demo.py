"""`python -m perfuse_toybox.demo`: learn three concepts from pictures and combine them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from perfuse.adapter.tensors import Adapter
from perfuse.attach import (
    BaseModel,
    ConditioningPlan,
    PlannedConcept,
    generate,
    plan,
    silence_loading,
)
from perfuse.method import KeyLock
from perfuse_toybox.base import DIRECTORY
from perfuse_toybox.concepts import SHADES, THRONE, TOM, Concept
from perfuse_toybox.sheet import Row, Sheet
from perfuse_trainer.learning.settings import TrainingSettings
from perfuse_trainer.learning.training import train
from perfuse_trainer.pictures.images import read_folder

SCENES = ("in the snow", "on the beach", "in the city", "on the moon", "in the forest")
BIASES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
GUIDANCE = 3.0
BIAS = {KeyLock.GLOBAL: 0.5, KeyLock.LOCAL: 0.5, KeyLock.TRAINED_K: 0.7}
"""Where likeness and prompt balance on this base: its encodings are narrow (192 numbers), so that a
concept's encoding is spread over more positions than in CLIP's."""

_COLUMNS = (
    TextColumn("{task.description:<34}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeRemainingColumn(),
)


def demo(
    out: Annotated[Path, typer.Option(help="Where pictures, adapters and the sheet go.")] = Path(
        "demo"
    ),
    base: Annotated[Path, typer.Option(help="The base model.")] = DIRECTORY,
    steps: Annotated[int, typer.Option(help="Training steps per concept.")] = 200,
    seed: Annotated[int, typer.Option(help="Of training and rendering.")] = 3,
    sampling_steps: Annotated[int, typer.Option(help="Denoising steps per picture.")] = 30,
) -> None:
    """Teach the toybox base a cat, a pair of sunglasses and a chair; leave one contact sheet."""
    started = time.monotonic()
    console = Console(stderr=True)
    silence_loading()
    with Progress(*_COLUMNS, console=console) as bar:
        studio = Studio(BaseModel.load(base), out, steps, sampling_steps, seed, bar)
        for concept in (TOM, SHADES, THRONE):
            studio.learn(concept, KeyLock.LOCAL)
        studio.learn(TOM, KeyLock.TRAINED_K)
        sheet = studio.sheet()
    path = out / "sheet.png"
    sheet.save(path)
    table = Table("adapter", "super-category", "key lock", "bytes", "trained in")
    for (name, lock), adapter in studio.adapters.items():
        size = (out / "adapters" / f"{name}-{lock.lower()}.safetensors").stat().st_size
        category = adapter.metadata.super_category
        table.add_row(name, category, lock, f"{size:,}", f"{studio.seconds[name, lock]:.0f} s")
    console.print(table)
    typer.echo(f"{path}: {time.monotonic() - started:.0f} s in all")


class Studio:
    """Learns concepts and renders them, one base model throughout."""

    def __init__(
        self,
        base: BaseModel,
        out: Path,
        steps: int,
        sampling_steps: int,
        seed: int,
        bar: Progress,
    ) -> None:
        self._base, self._out, self._bar = base, out, bar
        self._steps, self._sampling_steps, self._seed = steps, sampling_steps, seed
        self.adapters: dict[tuple[str, KeyLock], Adapter] = {}
        self.seconds: dict[tuple[str, KeyLock], float] = {}

    def learn(self, concept: Concept, lock: KeyLock) -> None:
        """Write the concept's pictures, learn it from them, and write the adapter."""
        folder = self._out / "pictures" / concept.name
        concept.write_pictures(folder)
        settings = TrainingSettings(
            super_category=concept.super_category,
            placeholder=concept.name,
            key_lock=lock,
            steps=self._steps,
            seed=self._seed,
            # Mirrored stripes and tails are other identities in this world.
            flip=0.0,
        )
        task = self._bar.add_task(f"learning <{concept.name}>, {lock}", total=self._steps)
        started = time.monotonic()
        adapter = train(
            self._base,
            read_folder(folder),
            settings,
            on_progress=lambda done: self._bar.update(task, completed=done.step),
        )
        self.seconds[concept.name, lock] = time.monotonic() - started
        file = self._out / "adapters" / f"{concept.name}-{lock.lower()}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        adapter.write(file)
        # What is rendered is what the file holds, rounded to float16.
        self.adapters[concept.name, lock] = Adapter.read(file, expect_base=self._base.fingerprint)

    def render(self, plans: Sequence[ConditioningPlan], label: str) -> list[Image.Image]:
        """One picture for each plan, all from the same seed so that rows compare."""
        task = self._bar.add_task(label, total=1)
        pictures: list[Image.Image] = generate(
            self._base,
            plans,
            seeds=[self._seed] * len(plans),
            steps=self._sampling_steps,
            guidance=GUIDANCE,
        )
        self._bar.update(task, completed=1)
        return pictures

    def plan(
        self, prompt: str, lock: KeyLock = KeyLock.GLOBAL, bias: float | None = None
    ) -> ConditioningPlan:
        """A plan for a prompt that names any of the learned concepts."""
        stored = KeyLock.TRAINED_K if lock is KeyLock.TRAINED_K else KeyLock.LOCAL
        concepts = [
            PlannedConcept(name, adapter, bias=BIAS[lock] if bias is None else bias)
            for (name, trained), adapter in self.adapters.items()
            if trained is stored and f"<{name}>" in prompt
        ]
        return plan(self._base, prompt, concepts, key_lock=lock if concepts else None)

    def sheet(self) -> Sheet:
        """The whole story on one page."""
        sheet = Sheet(
            "Perfuse: three concepts from five pictures each, combined in new ones",
            "Every concept is one file of about four kilobytes; the base model is never changed.",
        )
        sheet.section(
            "1. What it was shown",
            *(self._shown(concept) for concept in (TOM, SHADES, THRONE)),
        )
        plain = [self.plan(f"a photo of a cat {scene}") for scene in SCENES]
        rows = [Row('the base alone\n"a photo of a cat ..."', self.render(plain, "base"), SCENES)]
        for lock in (KeyLock.GLOBAL, KeyLock.LOCAL, KeyLock.TRAINED_K):
            plans = [self.plan(f"a photo of a <tom> {scene}", lock) for scene in SCENES]
            label = f'key lock {lock}\n"a photo of a <tom> ..."'
            rows.append(Row(label, self.render(plans, f"<tom>, {lock}"), SCENES))
        sheet.section("2. The concept in new scenes", *rows)
        sheet.section("3. One number moves a finished concept", *self._sweeps())
        sheet.section("4. Concepts trained apart, in one picture", *self._blends())
        return sheet

    def _shown(self, concept: Concept) -> Row:
        folder = self._out / "pictures" / concept.name
        pictures = [Image.open(path) for path in sorted(folder.glob("*.png"))]
        return Row(f"<{concept.name}>, a kind of {concept.super_category}", pictures)

    def _sweeps(self) -> list[Row]:
        notes = [f"bias {bias:g}" for bias in BIASES]
        rows = []
        for prompt in ("a photo of a <tom> on the beach", "a dog with <shades> in a room"):
            plans = [self.plan(prompt, KeyLock.LOCAL, bias) for bias in BIASES]
            label = f'LOCAL, likeness to editability\n"{prompt}"'
            rows.append(Row(label, self.render(plans, "bias sweep"), notes))
        return rows

    def _blends(self) -> list[Row]:
        rows = []
        for prompt in (
            "a <tom> wearing <shades> {}",
            "a <tom> sitting on a <throne> {}",
            "a <tom> wearing <shades> sitting on a <throne> {}",
        ):
            plans = [self.plan(prompt.format(scene), KeyLock.GLOBAL) for scene in SCENES]
            label = f'"{prompt.format("...")}"'.replace(" sitting", "\n sitting")
            rows.append(Row(label, self.render(plans, "blend"), SCENES))
        return rows


if __name__ == "__main__":
    typer.run(demo)
