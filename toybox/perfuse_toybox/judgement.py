"""`python -m perfuse_toybox.judgement`: how well a base does what held-out captions say."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from perfuse.attach import BaseModel, generate, plan, silence_loading
from perfuse_toybox.base import DIRECTORY
from perfuse_toybox.captions import full_caption
from perfuse_toybox.evaluator import Evaluator, attribute_accuracy
from perfuse_toybox.sheet import Row, Sheet
from perfuse_toybox.world import Picture, held_out_picture

BAR = {"scene": 0.95, "kind": 0.90, "worn": 0.85, "seat": 0.85, "colour": 0.80}
"""What a base must reach to be worth conclusions, share of captions obeyed."""

GUIDANCE = 3.0
STEPS = 30


@dataclass(frozen=True)
class Judgement:
    """A base's answers to held-out captions.

    Attributes:
        pictures: What each caption asked for.
        pixels: What the base made of it, `[N, 3, 32, 32]` uint8, one picture per caption.
        accuracy: Attribute → share of pictures in which the evaluator reads what was asked.
    """

    pictures: tuple[Picture, ...]
    pixels: Tensor
    accuracy: dict[str, float]

    @property
    def reaches_the_bar(self) -> bool:
        """Whether every attribute does."""
        return all(self.accuracy[name] >= least for name, least in BAR.items())


def judge(
    base: BaseModel,
    count: int = 300,
    seed: int = 2026,
    *,
    guidance: float = GUIDANCE,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Judgement:
    """Render one picture for each of `count` captions that name combinations new to the base."""
    lot = random.Random(seed)
    pictures = tuple(held_out_picture(lot) for _ in range(count))
    made = []
    for start in range(0, count, 30):
        plans = [plan(base, full_caption(one)) for one in pictures[start : start + 30]]
        images = generate(
            base,
            plans,
            seeds=range(start, start + len(plans)),
            steps=STEPS,
            guidance=guidance,
        )
        made += [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]
        on_progress(len(made))
    pixels = torch.stack(made)
    return Judgement(pictures, pixels, attribute_accuracy(pictures, pixels, Evaluator.load()))


def main(
    base: Annotated[Path, typer.Option(help="The base model.")] = DIRECTORY,
    count: Annotated[int, typer.Option(help="Held-out captions.")] = 300,
    seed: Annotated[int, typer.Option(help="Of captions and pictures.")] = 2026,
    guidance: Annotated[float, typer.Option(help="Scale of guidance.")] = GUIDANCE,
    sheet: Annotated[Path | None, typer.Option(help="A sheet of the first pictures.")] = None,
    table: Annotated[Path | None, typer.Option(help="The figures as JSON.")] = None,
) -> None:
    """Judge a base by the evaluator and print the table."""
    console = Console()
    silence_loading()
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("rendering held-out captions", total=count)
        judgement = judge(
            BaseModel.load(base),
            count,
            seed,
            guidance=guidance,
            on_progress=lambda done: bar.update(task, completed=done),
        )
    shown = Table("attribute", "obeyed", "bar")
    for name, least in BAR.items():
        shown.add_row(name, f"{judgement.accuracy[name]:.1%}", f"{least:.0%}")
    console.print(shown)
    if sheet is not None:
        _sheet(judgement).save(sheet)
    if table is not None:
        table.write_text(json.dumps(judgement.accuracy, indent=2) + "\n")


def _sheet(judgement: Judgement, rows: int = 5, columns: int = 8) -> Sheet:
    page = Sheet("The toybox base", "Captions whose combinations it never saw, one picture each.")
    made = []
    for row in range(rows):
        part = slice(row * columns, (row + 1) * columns)
        images = [
            Image.fromarray(np.ascontiguousarray(one.permute(1, 2, 0).numpy()))
            for one in judgement.pixels[part]
        ]
        notes = [
            f"{asked[1]} {asked[0]}\n"
            + " ".join(word for word in (asked[2], asked[3]) if word != "none")
            for asked in (picture.combination for picture in judgement.pictures[part])
        ]
        made.append(Row("", images, notes))
    page.section("colour, kind, worn, seat", *made)
    return page


if __name__ == "__main__":
    typer.run(main)
