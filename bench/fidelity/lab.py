"""The laboratory: learns, renders and judges what a claim asks for, and does nothing twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from bench.fidelity.bootstrap import Array, Bootstrap
from bench.fidelity.companions import compare, painted
from bench.fidelity.curriculum import BLENDS, TAUGHT, Asked, blend_prompts, prompts
from bench.fidelity.form import Form
from bench.fidelity.judge import Judged, judge
from bench.fidelity.lessons import (
    OURS,
    PACK,
    Job,
    Lesson,
    learn_ours,
    learn_peer,
    pixels_of,
)
from bench.fidelity.rendering import GUIDANCE, TEMPERATURE, Rendering, plans, render
from bench.fidelity.store import Store
from perfuse.attach import BaseModel
from perfuse_toybox.concepts import Concept
from perfuse_toybox.evaluator import SHIPPED, Evaluator

Setting = tuple[Lesson | None, Rendering]
"""How concepts were learned, None for the base alone by super-categories; and how rendered."""


class Lab:
    """Everything that claims are measured with.

    Args:
        form: How much.
        base: The base model.
        work: Folder of finished work.
        console: Where progress is shown.
    """

    def __init__(self, form: Form, base: BaseModel, work: Path, console: Console) -> None:
        self.form, self.base = form, base
        self.store, self._console = Store(work), console
        self.evaluator = Evaluator.load()
        self._judge = hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
        self._bar = Progress(
            TextColumn("{task.description:<46}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """What the form teaches."""
        return TAUGHT[: self.form.concepts]

    @property
    def blends(self) -> tuple[tuple[Concept, ...], ...]:
        """What the form combines, of what it teaches."""
        possible = [blend for blend in BLENDS if set(blend) <= set(self.concepts)]
        return tuple(possible[: self.form.blends])

    def lesson(self, **changes: Any) -> Lesson:
        """The form's lesson; LOCAL by our method unless changes say otherwise."""
        usual = {
            "steps": self.form.steps,
            "batch": self.form.batch,
            "pictures": self.form.pictures,
            "rate": self.form.output_rate,
        }
        return Lesson(**(usual | changes))

    def bootstrap(self, concepts: int | None = None, rows: int | None = None) -> Bootstrap:
        """Over the form's concepts and pictures."""
        return Bootstrap(concepts or len(self.concepts), rows or self.form.rows)

    def learn(self, jobs: Iterable[Job]) -> None:
        """Learn what has not been learned; ours `PACK` at a time."""
        missing = [job for job in dict.fromkeys(jobs) if not self._lesson_path(job).exists()]
        if not missing:
            return
        packs: dict[tuple[int, int], list[Job]] = {}
        with self._bar:
            for job in missing:
                if job[1].method == OURS:
                    packs.setdefault((job[1].steps, job[1].batch), []).append(job)
                else:
                    self._learn_peer(job)
            for alike in packs.values():
                for start in range(0, len(alike), PACK):
                    self._learn_pack(alike[start : start + PACK])

    def learned(self, concept: Concept, lesson: Lesson) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What was learned, and the notes beside it."""
        self.learn([(concept, lesson)])
        found = self.store.get("lesson", self._key((concept, lesson)))
        assert found is not None
        return found

    def judged(self, concept: Concept, setting: Setting) -> Judged:
        """The form's prompts of one concept under one setting, picture by picture."""
        asked = prompts(concept, self.form.prompts)
        return self._judged((concept,), asked, setting, self.form.seeds)

    def blended(self, concepts: tuple[Concept, ...], setting: Setting) -> Judged:
        """The form's scenes with several concepts in each."""
        asked = blend_prompts(concepts, self.form.blend_scenes)
        return self._judged(concepts, asked, setting, self.form.seeds)

    def pictures(self, concepts: tuple[Concept, ...], setting: Setting) -> Tensor:
        """The pictures themselves, `[prompts · seeds, 3, 32, 32]` uint8."""
        if len(concepts) == 1:
            asked = prompts(concepts[0], self.form.prompts)
        else:
            asked = blend_prompts(concepts, self.form.blend_scenes)
        return self._pictures(concepts, asked, setting, self.form.seeds)[0]

    def arrays(
        self, settings: Sequence[Setting], concepts: Sequence[Concept] | None = None
    ) -> dict[str, Array]:
        """Name of a measure → `[settings, concepts, pictures]`; NaN where it does not apply."""
        concepts = self.concepts if concepts is None else concepts
        self.learn((c, lesson) for lesson, _ in settings if lesson for c in concepts)
        self.note(f"{len(settings)} settings of {len(concepts)} concepts")
        with self._bar:
            task = self._bar.add_task("pictures", total=len(settings) * len(concepts))
            rows: list[list[Judged]] = []
            for setting in settings:
                rows.append([])
                for concept in concepts:
                    rows[-1].append(self.judged(concept, setting))
                    self._bar.advance(task)
            self._bar.remove_task(task)
        return stacked(rows)

    def beside(self, settings: Sequence[Setting | None]) -> dict[str, Array]:
        """What settings do to companions, as `arrays`; None: the painter's pictures, no setting."""
        rows = [[self.beside_one(c, setting) for c in self.concepts] for setting in settings]
        return stacked(rows)

    def beside_one(self, concept: Concept, setting: Setting | None) -> Judged:
        """`companions.compare` with the base alone, picture by picture of `judged`."""
        asked, seeds = prompts(concept, self.form.prompts), self.form.seeds
        if setting is None:
            return compare(self.evaluator, asked, *painted(asked, len(seeds)))
        pixels, key = self._pictures((concept,), asked, setting, seeds)
        plain, plain_key = self._pictures((concept,), asked, (None, Rendering()), seeds)
        parts = {"pictures": key, "plain": plain_key, "judge": self._judge}
        _, notes = self.store.ensure(
            "companions", parts, lambda: ({}, compare(self.evaluator, asked, pixels, plain))
        )
        return notes

    def note(self, text: str) -> None:
        """A line of the log."""
        self._console.log(f"{self.form.name}: {text}")

    def _key(self, job: Job) -> str:
        return self.store.key("lesson", job[1].parts(self.base, job[0]))

    def _lesson_path(self, job: Job) -> Path:
        return self.store.path("lesson", self._key(job))

    def _learn_pack(self, jobs: list[Job]) -> None:
        keys = [self._key(job) for job in jobs]
        title = ", ".join(concept.name for concept, _ in jobs)
        task = self._bar.add_task(f"learning {title}"[:46], total=jobs[0][1].steps)
        unfinished = self.store.checkpoint(hashlib.sha256("".join(keys).encode()).hexdigest()[:32])
        made = learn_ours(
            self.base, jobs, unfinished, lambda done: self._bar.update(task, completed=done)
        )
        for key, one in zip(keys, made, strict=True):
            self.store.put("lesson", key, one)
        unfinished.unlink(missing_ok=True)
        self._bar.remove_task(task)
        self.note(f"learned {title}")

    def _learn_peer(self, job: Job) -> None:
        concept, lesson = job
        title = f"{concept.name} by {lesson.method} at {lesson.rate:g}"
        task = self._bar.add_task(title, total=lesson.steps)

        def on_step(done: int) -> None:
            self._bar.update(task, completed=done)

        self.store.put("lesson", self._key(job), learn_peer(self.base, concept, lesson, on_step))
        self._bar.remove_task(task)
        self.note(f"learned {title}")

    def _judged(
        self,
        concepts: tuple[Concept, ...],
        asked: Sequence[Asked],
        setting: Setting,
        seeds: Sequence[int],
    ) -> Judged:
        pixels, key = self._pictures(concepts, asked, setting, seeds)
        examples = {concept.name: pixels_of(concept, self.form.pictures) for concept in concepts}
        parts = {"pictures": key, "judge": self._judge, "examples": self.form.pictures}
        _, notes = self.store.ensure(
            "judged", parts, lambda: ({}, judge(self.evaluator, asked, pixels, examples))
        )
        return notes

    def _pictures(
        self,
        concepts: tuple[Concept, ...],
        asked: Sequence[Asked],
        setting: Setting,
        seeds: Sequence[int],
    ) -> tuple[Tensor, str]:
        lesson, rendering = setting
        parts = {
            "base": self.base.fingerprint,
            "lessons": [
                self._key((concept, lesson)) if lesson else concept.name for concept in concepts
            ],
            "rendering": rendering.parts() if lesson else None,
            "asked": [[one.prompt if lesson else "", one.caption] for one in asked],
            "seeds": list(seeds),
            "steps": self.form.denoising,
            "guidance": GUIDANCE,
            "temperature": TEMPERATURE,
        }

        def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
            learned = {one.name: self.learned(one, lesson)[0] for one in concepts if lesson}
            planned = plans(self.base, lesson and lesson.method, learned, asked, rendering)
            return {"pixels": render(self.base, planned, seeds, self.form.denoising)}, {}

        tensors, _ = self.store.ensure("pictures", parts, make)
        return tensors["pixels"], self.store.key("pictures", parts)


def stacked(rows: Sequence[Sequence[Judged]]) -> dict[str, Array]:
    """Measures that all of the judgements have, as `[settings, concepts, pictures]`."""
    names = set.intersection(*(set(judged) for row in rows for judged in row))
    return {
        name: np.array([[judged[name] for judged in row] for row in rows], dtype=np.float64)
        for name in sorted(names)
    }


def quiet_base(directory: Path, threads: int) -> BaseModel:
    """The base model, on so many threads."""
    torch.set_num_threads(threads)
    return BaseModel.load(directory)
