"""What a concept does to what stands beside it: a companion's look with the concept and without.

A companion is a worn thing, a seat or a subject that a prompt names beside the concept. It is read
in two pictures of one prompt, noise and setting: with the concept, and by the base alone with the
super-category's word in its place. A companion that the base alone does not show is left out.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bench.fidelity.curriculum import Asked
from bench.fidelity.judge import Judged, words_read
from perfuse.attach import ConditioningPlan
from perfuse_toybox.drawing import paint
from perfuse_toybox.evaluator import Evaluator, identity_overlap
from perfuse_toybox.evaluator_attributes import NONE, words_of
from perfuse_toybox.world import Look

MEASURES = ("unchanged", "alike", "taken", "same/kind", "same/primary", "same/pattern")
PLACES = ("start", "before", "concept", "after", "end", "padding")
"""Where a position lies in a prompt, seen from the concept's word."""


def compare(evaluator: Evaluator, asked: Sequence[Asked], pixels: Tensor, plain: Tensor) -> Judged:
    """Read the companions of pictures with a concept against those without.

    Args:
        evaluator: The judge.
        asked: N prompts, of one concept each.
        pixels: `[N · S, 3, 32, 32]` uint8 with the concept, S seeds of each prompt side by side.
        plain: Likewise by the base alone.

    Returns:
        Per picture the mean over its companions, None where there is none: `same/kind`,
        `same/primary`, `same/pattern` (read as in the plain picture), `unchanged` (all three),
        `alike` (`Evaluator.identity_similarity`, 0 to 1), and `taken`: it has one of the concept's
        two colours, or its pattern where that is not plain, and has not in the plain picture.
    """
    seeds = len(pixels) // len(asked)
    shares, plain_shares = evaluator.probabilities(pixels), evaluator.probabilities(plain)
    read, before = words_read(shares), words_read(plain_shares)
    alike = {
        figure: identity_overlap(shares, plain_shares, figure).tolist()
        for figure in ("subject", "worn", "seat")
    }
    judged: dict[str, list[Any]] = {name: [] for name in MEASURES}
    for index in range(len(pixels)):
        one = asked[index // seeds]
        rows = [
            _companion(read, before, index, figure, _look(one)) | {"alike": alike[figure][index]}
            for figure in companions_of(one)
            if before[f"{figure}.kind"][index] == words_of(one.picture)[f"{figure}.kind"]
        ]
        for name in MEASURES:
            value = sum(row[name] for row in rows) / len(rows) if rows else None
            judged[name].append(None if value is None else round(value, 5))
    return judged


def companions_of(asked: Asked) -> tuple[str, ...]:
    """The figures of the prompt that no concept is: of `subject`, `worn`, `seat`."""
    words = words_of(asked.picture)
    return tuple(
        figure
        for figure in ("subject", "worn", "seat")
        if figure not in asked.figures.values() and words[f"{figure}.kind"] != NONE
    )


def painted(asked: Sequence[Asked], seeds: int) -> tuple[Tensor, Tensor]:
    """Pictures by the world's painter: with the concept's look, and with another in its place.

    The companions are the same to the pixel where the concept does not cover them, so that what
    `compare` finds in them is the evaluator's own error.
    """
    rows = []
    for one in asked:
        (figure,) = one.figures.values()
        lot = random.Random(f"painted/{one.prompt}")
        for _ in range(seeds):
            there = getattr(one.picture, figure)
            other = replace(one.picture, **{figure: replace(there, look=Look.draw(lot))})
            rows.append((paint(one.picture), paint(other)))
    own, others = (
        torch.stack([torch.from_numpy(row[side]).permute(2, 0, 1) for row in rows])
        for side in (0, 1)
    )
    return own, others


def moved(
    planned: Sequence[ConditioningPlan], plain: Sequence[ConditioningPlan], slots: Sequence[int]
) -> dict[str, dict[str, float]]:
    """How far keys and values move at each place of a prompt, as a share of their length.

    Args:
        planned: Plans with the concept.
        plain: The base's own plans of the captions, position by position the same words.
        slots: Where the concept's word stands in each.

    Returns:
        `keys` and `values`: place → |h − W e| / |W e|, the mean over positions, layers, prompts.
    """
    sums: dict[str, dict[str, list[float]]] = {
        part: {place: [] for place in PLACES} for part in ("keys", "values")
    }
    for ours, theirs, slot in zip(planned, plain, slots, strict=True):
        end = theirs.chunks[0].end_of_text
        for part, found in sums.items():
            gaps = torch.stack(
                [
                    (changed - own).norm(dim=-1) / own.norm(dim=-1)
                    for changed, own in zip(getattr(ours, part), getattr(theirs, part), strict=True)
                ]
            ).mean(0)
            for position, gap in enumerate(gaps.tolist()):
                found[place_of(position, slot, end)].append(gap)
    return {
        part: {place: sum(gaps) / len(gaps) for place, gaps in found.items() if gaps}
        for part, found in sums.items()
    }


def place_of(position: int, slot: int, end: int) -> str:
    """Which of `PLACES` a position is, by those of the concept's word and of end of text."""
    if position == 0:
        return "start"
    if position == slot:
        return "concept"
    if position < end:
        return "before" if position < slot else "after"
    return "end" if position == end else "padding"


def _companion(
    read: Mapping[str, list[str]],
    before: Mapping[str, list[str]],
    index: int,
    figure: str,
    look: Look,
) -> dict[str, float]:
    now, then = (
        {trait: words[f"{figure}.{trait}"][index] for trait in ("kind", "primary", "pattern")}
        for words in (read, before)
    )
    same = {f"same/{trait}": float(now[trait] == then[trait]) for trait in now}
    colours = {look.primary, look.secondary}
    taken = now["primary"] in colours and then["primary"] not in colours
    if look.pattern != "plain":
        taken = taken or (now["pattern"] == look.pattern != then["pattern"])
    return same | {"unchanged": min(same.values()), "taken": float(taken)}


def _look(asked: Asked) -> Look:
    (figure,) = asked.figures.values()
    look: Look = getattr(asked.picture, figure).look
    return look
