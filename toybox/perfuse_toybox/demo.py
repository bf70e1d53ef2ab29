"""`python -m perfuse_toybox.demo`: the whole platform on this machine, pictures to pictures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from perfuse.client import (
    Client,
    StateChange,
    TrainingProgress,
    TrainingRun,
    TrainingSettings,
    Version,
)
from perfuse.client.resources import StoredLock
from perfuse.errors import FailedPrecondition
from perfuse_toybox.base import DIRECTORY
from perfuse_toybox.concepts import SHADES, THRONE, TOM, Concept
from perfuse_toybox.installation import installation
from perfuse_toybox.story import Story

LESSONS: tuple[tuple[Concept, StoredLock, str], ...] = (
    (TOM, "LOCAL", "prod"),
    (SHADES, "LOCAL", "prod"),
    (THRONE, "LOCAL", "prod"),
    (TOM, "TRAINED_K", "trained-k"),
)
"""What is learned, how its keys are locked, and the alias that points at what came of it."""

OUTPUT_RATE = 0.1
"""On this base a hundred steps at three times the usual rate are ahead of four hundred at it
(decision 34)."""

_COLUMNS = (
    TextColumn("{task.description:<38}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeRemainingColumn(),
)


def demo(
    out: Annotated[Path, typer.Option(help="Where pictures, adapters and the sheet go.")] = Path(
        "demo"
    ),
    base: Annotated[Path, typer.Option(help="The base model.")] = DIRECTORY,
    steps: Annotated[int, typer.Option(help="Training steps per concept.")] = 100,
    seed: Annotated[int, typer.Option(help="Of training and rendering.")] = 3,
    sampling_steps: Annotated[int, typer.Option(help="Denoising steps per picture.")] = 30,
) -> None:
    """Start the three services, teach a cat, sunglasses and a chair, render; one contact sheet."""
    started = time.monotonic()
    console = Console(stderr=True)
    with (
        console.status("starting Registry, Trainer and Renderer"),
        installation(out / "platform", base) as connection,
        Client(connection) as perfuse,
    ):
        console.print(f"ready after {time.monotonic() - started:.0f} s: {connection.registry}")
        with Progress(*_COLUMNS, console=console) as bar:
            studio = Studio(perfuse, out, steps, seed, bar)
            learned = studio.learn(LESSONS)
            task = bar.add_task("rendering", total=None)
            story = Story(perfuse, out / "pictures", seed, sampling_steps)
            sheet = story.sheet(lambda done, total: bar.update(task, completed=done, total=total))
        path = out / "sheet.png"
        sheet.save(path)
        console.print(_table(learned, studio.seconds))
    typer.echo(f"{path}: {time.monotonic() - started:.0f} s in all")


class Studio:
    """Teaches concepts through the Trainer, all at once.

    Attributes:
        seconds: from the first run's start to the last one's version.
    """

    def __init__(self, perfuse: Client, out: Path, steps: int, seed: int, bar: Progress) -> None:
        self._perfuse, self._out, self._bar = perfuse, out, bar
        self._steps, self._seed = steps, seed
        self.seconds = 0.0

    def learn(self, lessons: Sequence[tuple[Concept, StoredLock, str]]) -> list[Version]:
        """Have all learned in shared passes, publish, and point aliases at what came of them."""
        started = time.monotonic()
        runs = [self._start(concept, lock) for concept, lock, _ in lessons]
        self._follow(runs)
        self.seconds = time.monotonic() - started
        versions = []
        for run, (concept, lock, alias) in zip(runs, lessons, strict=True):
            done = self._perfuse.training_runs.get(run.name)
            if not done.version:
                raise FailedPrecondition(
                    f"{done.name} ended {done.state}: {done.error and done.error.message}"
                )
            self._perfuse.aliases.point(concept.name, alias, done.version)
            found = self._perfuse.versions.download(done.version)
            file = self._out / "adapters" / f"{concept.name}-{lock.lower()}.safetensors"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(found.adapter or b"")
            versions.append(found.version)
        return versions

    def _start(self, concept: Concept, lock: StoredLock) -> TrainingRun:
        folder = self._out / "pictures" / concept.name
        concept.write_pictures(folder)
        return self._perfuse.train(
            concept.name,
            [folder],
            super_category=concept.super_category,
            key_lock=lock,
            # Mirrored stripes and tails are other identities in this world.
            settings=TrainingSettings(
                steps=self._steps, output_rate=OUTPUT_RATE, seed=self._seed, flip=0.0
            ),
        )

    def _follow(self, runs: Sequence[TrainingRun]) -> None:
        """Show every run until it has ended."""
        tasks = {
            run.name: self._bar.add_task(
                f"learning <{run.concept.rpartition('/')[2]}>, {run.key_lock}", total=self._steps
            )
            for run in runs
        }
        with ThreadPoolExecutor(len(runs)) as threads:
            list(threads.map(lambda run: self._watch(run.name, tasks[run.name]), runs))

    def _watch(self, name: str, task: TaskID) -> None:
        for event in self._perfuse.training_runs.watch(name):
            if isinstance(event, TrainingProgress):
                self._bar.update(task, completed=event.step)
            elif isinstance(event, StateChange) and event.state == "SUCCEEDED":
                self._bar.update(task, completed=self._steps)


def _table(versions: Sequence[Version], seconds: float) -> Table:
    table = Table("version", "super-category", "key lock", "bytes", "digest")
    table.caption = f"learned together in {seconds:.0f} s"
    for version in versions:
        short = version.name.partition("/concepts/")[2]
        table.add_row(
            short,
            version.super_category,
            version.key_lock,
            f"{version.size_bytes:,}",
            version.digest[:19],
        )
    return table


if __name__ == "__main__":
    typer.run(demo)
