"""Rows of contact sheets."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from bench.fidelity.curriculum import Asked, blend_prompts, prompts
from bench.fidelity.lab import Lab, Setting
from perfuse_toybox.concepts import Concept
from perfuse_toybox.drawing import paint
from perfuse_toybox.sheet import Row

_MOST = 7


def rows_of(
    lab: Lab,
    concept: Concept,
    settings: Sequence[Setting],
    notes: Sequence[str],
    *,
    count: int = 1,
    across: bool = False,
) -> list[Row]:
    """Pictures of one concept, the first seed of each prompt.

    Args:
        lab: Where they come from.
        concept: Whose.
        settings: One picture of a row each; or, `across`, one setting.
        notes: Under each picture; or, `across`, the row's label.
        count: Rows, one prompt each.
        across: One setting over the prompts, in place of one prompt over the settings.
    """
    asked = prompts(concept, lab.form.prompts)
    seeds = len(lab.form.seeds)
    made = [lab.pictures((concept,), setting)[::seeds] for setting in settings]
    if across:
        few = range(min(_MOST, len(asked)))
        return [Row(notes[0], [_image(made[0][p]) for p in few], [_short(asked[p]) for p in few])]
    # The first prompts are one bare and some in company; the middle ones differ the most.
    chosen = [0, len(asked) // 2][:count]
    return [
        Row(_broken(asked[place].prompt), [_image(one[place]) for one in made], list(notes))
        for place in chosen
    ]


def blend_rows(
    lab: Lab, concepts: tuple[Concept, ...], settings: Mapping[str, Setting]
) -> list[Row]:
    """One row of scenes for each way, the painter's first."""
    asked = blend_prompts(concepts, lab.form.blend_scenes)
    rows = [Row("the world's painter", [Image.fromarray(paint(one.picture)) for one in asked])]
    seeds = len(lab.form.seeds)
    for name, setting in settings.items():
        pixels = lab.pictures(concepts, setting)[::seeds]
        rows.append(Row(name, [_image(one) for one in pixels]))
    return rows


def _image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))


def _short(asked: Asked) -> str:
    """A caption on three lines that fit under a picture."""
    lines = textwrap.wrap(asked.caption.removeprefix("a photo of "), 19)
    return "\n".join([*lines, "", ""][: max(3, len(lines))])


def _broken(text: str) -> str:
    words = text.split()
    half = (len(words) + 1) // 2
    return f"{' '.join(words[:half])}\n{' '.join(words[half:])}"
