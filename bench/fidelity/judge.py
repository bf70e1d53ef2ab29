"""What the evaluator says of a batch of pictures, number by number.

**Likeness** is how alike the concept's own figure is in a picture and in the one that the world's
painter makes of the same prompt with the concept's true look (`Evaluator.identity_similarity`:
kind, colours, pattern, marking, accent, build). It looks at the figure alone, so that a scene
copied from the training pictures earns nothing. Beside it stand the same against the training
pictures, and the cosines of whole pictures, into which scenes do leak, as they do in the paper's
measure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.fidelity.curriculum import Asked
from perfuse_toybox.drawing import paint
from perfuse_toybox.evaluator import Evaluator, identity_overlap
from perfuse_toybox.evaluator_attributes import HEADS, NONE, identity_heads, words_of

TRAITS = ("kind", "primary", "secondary", "pattern", "marking", "accent", "build")
_FIGURES = ("subject", "worn", "seat")

Judged = dict[str, list[float | None]]
"""Name → one number per picture; None where it does not apply."""


def judge(
    evaluator: Evaluator,
    asked: Sequence[Asked],
    pixels: Tensor,
    examples: Mapping[str, Tensor],
) -> Judged:
    """Measure pictures against what was asked.

    Args:
        evaluator: The judge.
        asked: N prompts.
        pixels: `[N · S, 3, 32, 32]` uint8, S seeds of each prompt side by side.
        examples: Concept's name → its training pictures.

    Returns:
        `likeness` (the least of several concepts), `likeness/NAME`, `likeness_shown`, `image`,
        `image_shown`, `text`, `scene`, `others`, `variety`, `own/TRAIT`, `swapped`, `present`.
    """
    seeds = len(pixels) // len(asked)
    each = [one for one in asked for _ in range(seeds)]
    truth = torch.stack([torch.from_numpy(paint(one.picture)).permute(2, 0, 1) for one in each])
    shares = evaluator.probabilities(pixels)
    read = words_read(shares)
    embedded = evaluator.image_embedding(pixels)
    judged: dict[str, list[Any]] = {
        "text": (embedded * evaluator.text_embedding([one.caption for one in each]))
        .sum(-1)
        .tolist(),
        "image": (embedded * evaluator.image_embedding(truth)).sum(-1).tolist(),
        "variety": _variety(embedded, seeds),
        "scene": [
            float(found == one.picture.scene)
            for found, one in zip(read["scene"], each, strict=True)
        ],
        "others": [_others(read, index, one) for index, one in enumerate(each)],
        "swapped": [_swapped(read, index, one) for index, one in enumerate(each)],
        "present": [_present(read, index, one) for index, one in enumerate(each)],
    }
    names = list(each[0].figures)
    true_shares = evaluator.probabilities(truth)
    alike, against_shown, whole_shown = [], [], []
    for name in names:
        figure = each[0].figures[name]
        found = identity_overlap(shares, true_shares, figure)
        judged[f"likeness/{name}"] = found.tolist()
        alike.append(found)
        shown = examples[name]
        # Every picture beside every shown one, `[N · S, shown]`.
        ours, theirs = (
            {head: found.unsqueeze(place) for head, found in known.items()}
            for place, known in ((1, shares), (0, evaluator.probabilities(shown)))
        )
        against_shown.append(identity_overlap(ours, theirs, figure).mean(-1))
        whole_shown.append((embedded @ evaluator.image_embedding(shown).T).mean(-1))
    judged["likeness"] = torch.stack(alike).amin(0).tolist()
    judged["likeness_shown"] = torch.stack(against_shown).amin(0).tolist()
    judged["image_shown"] = torch.stack(whole_shown).amin(0).tolist()
    for trait in TRAITS:
        judged[f"own/{trait}"] = [_own(read, index, one, trait) for index, one in enumerate(each)]
    return {
        name: [None if value is None else round(float(value), 5) for value in values]
        for name, values in judged.items()
    }


def words_read(shares: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Every head's likeliest word for each picture, from `Evaluator.probabilities`."""
    return {
        head: [HEADS[head][int(index)] for index in found.argmax(-1)]
        for head, found in shares.items()
    }


def _variety(embedded: Tensor, seeds: int) -> list[float | None]:
    """1 minus the cosine with the other pictures of the same prompt."""
    if seeds < 2:
        return [None] * len(embedded)
    groups = embedded.reshape(-1, seeds, embedded.shape[-1])
    cosines = groups @ groups.transpose(1, 2)
    others: Tensor = (cosines.sum(-1) - cosines.diagonal(dim1=1, dim2=2)) / (seeds - 1)
    found: list[float | None] = (1 - others).flatten().tolist()
    return found


def _others(read: Mapping[str, list[str]], index: int, asked: Asked) -> float | None:
    """The share of named worn things, seats and subjects, the concepts aside, that are there."""
    words = words_of(asked.picture)
    named = [
        f"{figure}.kind"
        for figure in _FIGURES
        if figure not in asked.figures.values() and words[f"{figure}.kind"] != NONE
    ]
    if not named:
        return None
    return sum(read[head][index] == words[head] for head in named) / len(named)


def _own(read: Mapping[str, list[str]], index: int, asked: Asked, trait: str) -> float | None:
    """The share of the concepts whose trait is read right."""
    words = words_of(asked.picture)
    heads = [
        f"{figure}.{trait}"
        for figure in asked.figures.values()
        if f"{figure}.{trait}" in identity_heads(figure)
    ]
    if not heads:
        return None
    return sum(read[head][index] == words[head] for head in heads) / len(heads)


def _present(read: Mapping[str, list[str]], index: int, asked: Asked) -> float:
    """Whether a figure of every concept's kind is there."""
    words = words_of(asked.picture)
    heads = [f"{figure}.kind" for figure in asked.figures.values()]
    return float(all(read[head][index] == words[head] for head in heads))


def _swapped(read: Mapping[str, list[str]], index: int, asked: Asked) -> float | None:
    """Whether a concept has the main colour of another one; None for a concept by itself."""
    figures = list(asked.figures.values())
    if len(figures) < 2:
        return None
    words = words_of(asked.picture)
    colours = {figure: words[f"{figure}.primary"] for figure in figures}
    return float(
        any(
            read[f"{figure}.primary"][index] == colours[other]
            for figure in figures
            for other in figures
            if other != figure and colours[other] != colours[figure]
        )
    )
