"""(b) Runs an hour packed beside one after another.

Measured are the step of a pack of K runs, a validation, and what a run begins and ends with. From
these follow the runs an hour, at the default 400 steps with a validation every 25.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.renderer_figures import Step, median
from bench.trainer_steps import SUPER_CATEGORY, clock, encoded, loop
from perfuse.attach import BaseModel, attach
from perfuse_trainer.learning.loop import TrainingLoop
from perfuse_trainer.learning.pack import Pack
from perfuse_trainer.learning.settings import TrainingSettings


def measure(
    base: BaseModel,
    side: int,
    batch: int,
    sizes: Sequence[int],
    rounds: int,
    advance: Step,
) -> dict[str, Any]:
    """K → runs an hour and their ratio to runs one after another.

    Args:
        base: The base model, not attached.
        side: Of the pictures, in pixels.
        batch: Rows of each run.
        sizes: K, beginning with 1.
        rounds: In each of which every K has one turn.
        advance: Told after every turn.
    """
    settings = TrainingSettings(SUPER_CATEGORY, batch=batch)

    def timed(call: Callable[[], Any]) -> float:
        started = clock(base)
        call()
        return clock(base) - started

    latents = encoded(base, side)
    pack = Pack(base)
    loops = [loop(base, latents, batch, seed) for seed in range(max(sizes))]
    validated = TrainingLoop(base, latents, settings)
    steps: dict[int, list[float]] = {size: [] for size in sizes}
    validations: list[float] = []
    with attach(base.unet):
        _advance(pack, loops)
        for turn in range(rounds + 1):
            for size in sizes:
                seconds = timed(lambda size=size: _advance(pack, loops[:size]))
                if turn:
                    steps[size].append(seconds)
                advance()
            if turn:
                validations.append(timed(lambda: pack.validation(validated)))
    around = timed(lambda: TrainingLoop(base, encoded(base, side), settings).adapter().to_bytes())
    apart = 1 + settings.steps // settings.validate_every
    fixed = apart * median(validations) + around
    hours = {
        size: (settings.steps * median(times) / size + fixed) / 3600
        for size, times in steps.items()
    }
    return {
        "side": side,
        "batch": batch,
        "rounds": rounds,
        "step_ms": {size: round(1000 * median(times), 1) for size, times in steps.items()},
        "validation_ms": round(1000 * median(validations), 1),
        "around_ms": round(1000 * around, 1),
        "runs_an_hour": {size: round(1 / hours[size], 2) for size in sizes},
        "to_one_by_one": {size: round(hours[sizes[0]] / hours[size], 3) for size in sizes},
    }


def _advance(pack: Pack, loops: Sequence[TrainingLoop]) -> None:
    for result in pack.step(loops):
        if isinstance(result, Exception):
            raise result
