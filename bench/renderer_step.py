"""(a) A step of the denoiser with concepts beside stock diffusers' step of the same batch.

Each row's prompt names 1, 4 or 16 concepts. The denoiser's call alone is compared with the call of
stock diffusers' UNet; and the engine's whole step, in which every picture has a scheduler of its
own, with the body of the stock pipeline's loop, in which one scheduler serves the batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from bench.renderer_bases import concept
from bench.renderer_figures import Step, median, median_ratio
from perfuse.attach import (
    BaseModel,
    ConditioningPlan,
    PlannedConcept,
    attach,
    concatenate,
    denoise,
    plan,
    unconditional,
)
from perfuse_renderer.engine.render import Place, Render
from perfuse_renderer.engine.row import Picture, Row, latent_shape
from perfuse_renderer.engine.schedulers import make_scheduler
from perfuse_renderer.engine.stepper import Stepper

COUNTS = (1, 4, 16)
STOCK = "stock"
_GUIDANCE = 3.0


def plans_of(base: BaseModel, counts: Sequence[int] = COUNTS) -> dict[int, ConditioningPlan]:
    """Number of concepts → the plan of a prompt that names so many."""
    concepts = [PlannedConcept(f"c{seed}", concept(base, seed)) for seed in range(max(counts))]
    return {
        count: plan(base, " ".join(f"<c{index}>" for index in range(count)), concepts[:count])
        for count in counts
    }


@torch.no_grad()
def measure_denoiser(
    base: BaseModel, lanes: int, side: int, rounds: int, advance: Step
) -> dict[str, Any]:
    """The denoiser's call.

    Args:
        base: the base model, not attached.
        lanes: of the batch.
        side: of the pictures, in pixels.
        rounds: in each of which every contender has one turn.
        advance: told after every turn.
    """
    shape = latent_shape(base, side, side)[1:]
    latents = torch.randn(lanes, *shape, generator=torch.Generator().manual_seed(0))
    timesteps = torch.full((lanes,), 500.0)
    plans = plans_of(base)
    batches = {count: concatenate([each.conditioning] * lanes) for count, each in plans.items()}
    encodings = batches[COUNTS[0]].encodings

    def stock() -> torch.Tensor:
        result: torch.Tensor = base.unet(latents, timesteps, encodings, return_dict=False)[0]
        return result

    def ours(count: int) -> torch.Tensor:
        return denoise(base, latents, timesteps, batches[count])

    calls: dict[str, Callable[[], Any]] = {STOCK: stock}
    calls |= {str(count): partial(ours, count) for count in COUNTS}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name in _rotated(list(calls), turn):
            if name == STOCK:
                spent = _timed(calls[name])
            else:
                with attach(base.unet):
                    spent = _timed(calls[name])
            # The first round touches everything once and counts for nothing.
            if turn:
                seconds[name].append(spent)
            advance()
    return _summary(seconds, lanes, side, rounds)


@torch.no_grad()
def measure_whole_step(
    base: BaseModel, pictures: int, side: int, rounds: int, advance: Step
) -> dict[str, Any]:
    """A step of the engine beside the loop's body of stock diffusers; arguments as above."""
    nothing = unconditional(base)
    steps = rounds + 1
    plans = plans_of(base)
    first = plans[COUNTS[0]]
    encodings = torch.cat([nothing.encodings[None]] * pictures + [first.encodings[None]] * pictures)
    scheduler = make_scheduler(base, "ddim")
    scheduler.set_timesteps(steps)
    state = {
        "latents": torch.randn(
            pictures,
            *latent_shape(base, side, side)[1:],
            generator=torch.Generator().manual_seed(0),
        )
    }

    def stock(turn: int) -> None:
        timestep = scheduler.timesteps[turn]
        doubled = scheduler.scale_model_input(torch.cat([state["latents"]] * 2), timestep)
        prediction = base.unet(
            doubled, timestep, encoder_hidden_states=encodings, return_dict=False
        )[0]
        against, wanted = prediction.chunk(2)
        guided = against + _GUIDANCE * (wanted - against)
        state["latents"] = scheduler.step(
            guided, timestep, state["latents"], eta=0.0, return_dict=False
        )[0]

    steppers = {str(count): Stepper(base, denoise, 2 * pictures) for count in COUNTS}
    places = {}
    for count in COUNTS:
        asked = [
            Picture(plans[count], nothing, seed, steps, _GUIDANCE, "ddim", side, side)
            for seed in range(pictures)
        ]
        render = Render("bench", asked, lambda event: None)
        places[str(count)] = [
            Place(render, index, Row(base, picture)) for index, picture in enumerate(asked)
        ]
    seconds: dict[str, list[float]] = {name: [] for name in (STOCK, *steppers)}
    for turn in range(rounds + 1):
        for name in _rotated(list(seconds), turn):
            if name == STOCK:
                spent = _timed(partial(stock, turn))
            else:
                with attach(base.unet):
                    spent = _timed(partial(steppers[name].step, places[name]))
            if turn:
                seconds[name].append(spent)
            advance()
    return _summary(seconds, 2 * pictures, side, rounds)


def _rotated(names: list[str], turn: int) -> list[str]:
    start = turn % len(names)
    return names[start:] + names[:start]


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _summary(seconds: dict[str, list[float]], lanes: int, side: int, rounds: int) -> dict[str, Any]:
    return {
        "lanes": lanes,
        "side": side,
        "rounds": rounds,
        "median_ms": {name: round(1000 * median(times), 2) for name, times in seconds.items()},
        "ratio": {
            name: round(median_ratio(times, seconds[STOCK]), 4)
            for name, times in seconds.items()
            if name != STOCK
        },
    }
