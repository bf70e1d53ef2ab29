"""(a) One training step beside the peers' on the same base, draws, batch and precision.

A step is everything between two batches: drawing, text, denoiser, gradients, optimiser. Validations
are left out, since the peers have none. Contenders take turns within each round. Without a GPU the
process's own CPU time is read, which on one thread is the step's time on a machine that does
nothing else.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from bench.renderer_figures import Step, median, median_ratio
from bench.trainer_peers import (
    LeanTextualInversion,
    PerfusionPackage,
    TextualInversion,
    perfusion_package,
)
from perfuse.attach import BaseModel, attach, cross_attention_layers
from perfuse_trainer.learning.acceleration import Acceleration
from perfuse_trainer.learning.latents import PictureLatents
from perfuse_trainer.learning.learning import Learning
from perfuse_trainer.learning.loop import TrainingLoop
from perfuse_trainer.learning.settings import TrainingSettings
from perfuse_trainer.pictures.images import TrainingPicture

OURS = "Perfuse"
CHOSEN = "Perfuse, channels last"
LEAN = "textual inversion, leanest"
SCRIPT = "textual inversion, diffusers' script"
PACKAGE = "perfusion-pytorch"
SUPER_CATEGORY = "cat"
NEVER = 100_000


def encoded(base: BaseModel, side: int, count: int = 5) -> PictureLatents:
    """Pictures of noise, `side` pixels wide; what they show costs nothing."""
    lot = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, side, side), generator=lot, dtype=torch.uint8)
    pictures = [TrainingPicture(f"{place}.png", one, None) for place, one in enumerate(pixels)]
    return PictureLatents.encode(base, pictures, side)


def loop(base: BaseModel, latents: PictureLatents, batch: int, seed: int = 0) -> TrainingLoop:
    """A run that never validates after its start."""
    settings = TrainingSettings(
        SUPER_CATEGORY,
        seed=seed,
        batch=batch,
        steps=NEVER,
        validate_every=NEVER,
        validation_rows=1,
    )
    return TrainingLoop(base, latents, settings)


def clock(base: BaseModel) -> float:
    """Seconds: of this process's CPU, or of the wall once the base's GPU has caught up."""
    if base.device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(base.device)
    return time.perf_counter()


def measure(base: BaseModel, side: int, batch: int, rounds: int, advance: Step) -> dict[str, Any]:
    """Every contender's step and its ratio to ours.

    Args:
        base: The base model, not attached; left as it is.
        side: Of the pictures, in pixels.
        batch: Rows of a step.
        rounds: In each of which every contender has one turn.
        advance: Told after every turn.

    Raises:
        RuntimeError: `perfusion-pytorch` does not compute the loss that we compute.
    """
    latents = encoded(base, side)
    ours = loop(base, latents, batch)
    draws, learning = ours.batch, Learning(base, ours.learning.settings, ours.batch().templates)
    chosen = _apart(base)
    Acceleration(channels_last=True).apply(chosen)
    accelerated = loop(chosen, latents, batch)
    lean = LeanTextualInversion(base, learning)
    script = TextualInversion(base, learning, latents.pictures)
    losses: dict[str, float] = {}
    calls: dict[str, Callable[[], float]] = {
        OURS: lambda: ours.step().loss,
        CHOSEN: lambda: accelerated.step().loss,
        LEAN: lambda: float(lean.step(draws())),
        SCRIPT: lambda: float(script.step(draws())),
    }
    if (package := perfusion_package()) is not None:
        theirs = PerfusionPackage(package, base, learning)
        calls[PACKAGE] = lambda: float(theirs.step(draws()))
        losses[PACKAGE] = calls[PACKAGE]()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with attach(base.unet), attach(chosen.unet):
        losses[OURS] = calls[OURS]()
        for turn in range(rounds + 1):
            for name, call in calls.items():
                started = clock(base)
                call()
                # The first round warms up.
                if turn:
                    seconds[name].append(clock(base) - started)
                advance()
    if PACKAGE in losses and abs(losses[PACKAGE] / losses[OURS] - 1) > 1e-3:
        raise RuntimeError(f"the first losses differ, so they are not the same method: {losses}")
    return {
        "side": side,
        "batch": batch,
        "rounds": rounds,
        "parameters": sum(one.numel() for one in base.unet.parameters()),
        "step_ms": {name: round(1000 * median(times), 1) for name, times in seconds.items()},
        "ours_to": {
            name: round(median_ratio(seconds[OURS], times), 3)
            for name, times in seconds.items()
            if name != OURS
        },
        "chosen_to": {
            name: round(median_ratio(seconds[CHOSEN], times), 3)
            for name, times in seconds.items()
            if name != CHOSEN
        },
    }


def _apart(base: BaseModel) -> BaseModel:
    """The base with a denoiser of its own, which an acceleration may change."""
    pipeline = copy.copy(base.pipeline)
    pipeline.unet = copy.deepcopy(base.unet)
    return replace(base, pipeline=pipeline, layers=cross_attention_layers(pipeline.unet))
