"""Trains the evaluator's towers and heads on pictures that the base may be trained on too.

The pictures it judges later are generated: a little soft, a little off in colour. So it sees each
training picture shifted by up to a pixel, softened, tinted and with a little noise.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from perfuse.errors import FailedPrecondition, TrainingDiverged
from perfuse_toybox import checkpoint
from perfuse_toybox.captions import caption, full_caption
from perfuse_toybox.corpus import Corpus
from perfuse_toybox.evaluator_attributes import ABSENT, READ, targets
from perfuse_toybox.evaluator_towers import DualEncoder, Vocabulary
from perfuse_toybox.optimiser import BuildOptimiser, schedule
from perfuse_toybox.world import training_picture

_REPORTED = frozenset(READ.values())


@dataclass(frozen=True)
class EvaluatorRecipe:
    """How the evaluator is trained.

    Attributes:
        steps: Optimiser steps.
        batch: Pictures per step, each with one caption.
        matrix_rate: Muon's learning rate, at its highest.
        other_rate: AdamW's, at its highest.
        unknown: Share of captions' words read as unknown, so that a new word does no harm.
        seed: Seed of everything drawn.
        keep_every: Steps between checkpoints.
    """

    steps: int = 4800
    batch: int = 64
    matrix_rate: float = 0.05
    other_rate: float = 3e-3
    unknown: float = 0.03
    seed: int = 23
    keep_every: int = 100


def train_evaluator(
    corpus: Corpus,
    recipe: EvaluatorRecipe,
    state_file: Path,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    device: str = "cpu",
) -> DualEncoder:
    """Train to the recipe's end, from `state_file` where it exists.

    Args:
        corpus: Training pictures.
        recipe: How to train.
        state_file: Where checkpoints go; a killed training goes on from the last one and ends
            with the parameters it would have had.
        on_step: Called after each step with its number, from 1, and its loss.
        device: `cpu`, or an accelerator's name.

    Returns:
        The trained towers, without gradients and in evaluation mode.

    Raises:
        FailedPrecondition: `state_file` belongs to another recipe.
        TrainingDiverged: The loss is no longer a finite number.
    """
    torch.manual_seed(recipe.seed)
    towers = DualEncoder(_vocabulary(recipe.seed))
    towers.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = BuildOptimiser([towers], recipe.matrix_rate, recipe.other_rate)
    truth = targets(corpus.pictures)
    first = 0
    if state := checkpoint.load(state_file):
        if state["recipe"] != asdict(recipe):
            raise FailedPrecondition(
                f"{state_file} was left by another recipe, {state['recipe']}; "
                f"this one is {asdict(recipe)}. Remove the file or restore the recipe."
            )
        towers.load_state_dict(state["towers"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    towers.train()
    for step in range(first, recipe.steps):
        loss = _loss(towers, corpus, truth, recipe, step, device)
        told = float(loss.detach())
        if not math.isfinite(told):
            raise TrainingDiverged(
                f"the evaluator's loss is {told} at step {step}; it must be finite. "
                f"Lower the learning rates, now {recipe.matrix_rate} and {recipe.other_rate}."
            )
        loss.backward()
        optimiser.step(schedule(step, recipe.steps))
        on_step(step + 1, told)
        if (step + 1) % recipe.keep_every == 0 or step + 1 == recipe.steps:
            checkpoint.save(
                state_file,
                {
                    "recipe": asdict(recipe),
                    "towers": towers.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "step": step + 1,
                },
            )
    return towers.eval().requires_grad_(False)


def roughened(samples: Tensor, lot: torch.Generator) -> Tensor:
    """Pictures `[N, 3, H, W]` in -1 to 1 as a generator might make them: each a little off."""
    count, _, height, width = samples.shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=lot) * (high - low) + low

    rows = torch.arange(height) + torch.randint(-1, 2, (count, 1), generator=lot)
    columns = torch.arange(width) + torch.randint(-1, 2, (count, 1), generator=lot)
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    picture = torch.arange(count)[:, None, None]
    moved = samples.permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None, :]]
    moved = moved.permute(0, 3, 1, 2)
    soft = F.avg_pool2d(F.pad(moved, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    softness = uniform(-0.7, 0.7, 1, 1, 1).clamp(min=0.0)
    gain, offset = uniform(0.88, 1.12, 3, 1, 1), uniform(-0.08, 0.08, 3, 1, 1)
    tinted = moved.lerp(soft, softness) * gain + offset
    noise = torch.randn(moved.shape, generator=lot) * uniform(0.0, 0.12, 1, 1, 1)
    return (tinted + noise).clamp(-1.0, 1.0).contiguous(memory_format=torch.channels_last)


def _loss(
    towers: DualEncoder,
    corpus: Corpus,
    truth: Tensor,
    recipe: EvaluatorRecipe,
    step: int,
    device: str,
) -> Tensor:
    lot = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    rows = torch.randint(len(corpus), (recipe.batch,), generator=lot)
    samples = roughened(corpus.samples(rows), lot)
    wording = random.Random(recipe.seed * 1_000_003 + step)
    said = [caption(corpus.pictures[int(row)], wording) for row in rows]
    ids = towers.vocabulary.encode(said)
    ids[(torch.rand(ids.shape, generator=lot) < recipe.unknown) & (ids > 1)] = 1
    trunk, texts = towers.image(samples.to(device)), towers.text(ids.to(device))
    images = towers.embed(trunk)
    asked = truth[rows].to(device)
    return (
        _reading_loss(towers.logits(trunk), asked)
        + 0.3 * _reading_loss(towers.embedding_logits(images), asked)
        + 2.0 * towers.contrastive_loss(images, texts)
    )


def _reading_loss(logits: Mapping[str, Tensor], asked: Tensor) -> Tensor:
    """Cross entropy, summed over heads; each its mean over the pictures to which it applies.

    Heads that no `Reading` reports count half: some, such as a cape's marking, cannot be seen.
    """
    losses = [
        F.cross_entropy(values, asked[:, index], ignore_index=ABSENT, reduction="sum")
        / (asked[:, index] != ABSENT).sum().clamp(min=1)
        * (1.0 if head in _REPORTED else 0.5)
        for index, (head, values) in enumerate(logits.items())
    ]
    return torch.stack(losses).sum()


def _vocabulary(seed: int) -> Vocabulary:
    """The grammar's words, met by speaking of a few thousand pictures."""
    lot = random.Random(seed)
    pictures = [training_picture(lot) for _ in range(4000)]
    spoken = [caption(picture, lot) for picture in pictures]
    return Vocabulary.of([*spoken, *map(full_caption, pictures)])
