"""(c) A whole run on Stable Diffusion 1.5's configuration, and packs of runs; for a GPU.

512 pixels, batch 16, 400 steps, from pictures in memory to the adapter's bytes: encoding the
pictures, every validation and checkpoint's worth of state included, the base resident. The paper
says "roughly 4 minutes". Weights are random, which changes no time.
"""

from __future__ import annotations

from typing import Any

import torch

from bench.renderer_figures import Step
from bench.trainer_packs import measure as measure_packs
from bench.trainer_steps import SUPER_CATEGORY, clock, encoded
from bench.trainer_steps import measure as measure_steps
from perfuse.attach import BaseModel, attach
from perfuse_trainer.learning.acceleration import Acceleration
from perfuse_trainer.learning.loop import TrainingLoop
from perfuse_trainer.learning.settings import TrainingSettings

PAPER_SECONDS = 240
GOAL_SECONDS = 60
GOAL_PACKED = 2.0


def available() -> bool:
    """Whether there is a GPU to measure on."""
    return torch.cuda.is_available()


def measure(base: BaseModel, advance: Step, *, steps: int = 400) -> dict[str, Any]:
    """Seconds of a whole run, then steps and packs as in (a) and (b).

    Args:
        base: Stable Diffusion 1.5's configuration, moved to the GPU in bfloat16 here.
        advance: Told after every part.
        steps: Of the whole run.
    """
    base.pipeline.to("cuda", torch.bfloat16)
    Acceleration(channels_last=True).apply(base)
    whole_run(base, 512, 16, 2)  # warms up
    advance()
    torch.cuda.reset_peak_memory_stats()
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "steps": steps,
        "seconds": round(whole_run(base, 512, 16, steps), 1),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1),
        "paper_seconds": PAPER_SECONDS,
    }
    advance()
    found["step"] = measure_steps(base, 512, 16, 5, lambda: None)
    advance()
    packs: dict[str, Any] = {}
    for checkpointing in (False, True):
        Acceleration(channels_last=True, checkpointing=checkpointing).apply(base)
        for sizes in ((1, 2, 4, 8), (1, 2, 4), (1, 2), (1,)):
            try:
                packs[f"checkpointing {checkpointing}"] = measure_packs(
                    base, 512, 16, sizes, 3, lambda: None
                )
                break
            except torch.OutOfMemoryError:
                torch.cuda.empty_cache()
        advance()
    return found | {"packs": packs}


def whole_run(base: BaseModel, side: int, batch: int, steps: int) -> float:
    """Seconds from pictures to the adapter's bytes."""
    started = clock(base)
    settings = TrainingSettings(SUPER_CATEGORY, steps=steps, batch=batch)
    run = TrainingLoop(base, encoded(base, side), settings)
    with attach(base.unet):
        while not run.finished:
            if run.step().step % 50 == 0:
                run.state()
    run.adapter().to_bytes()
    return clock(base) - started
