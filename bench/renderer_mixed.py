"""(c) Sixteen tenants, each with an adapter of its own, in one batch of the engine.

One picture for each tenant, all of them in every step's batch. "concepts" names one concept in each
prompt, "none" no concept at all; "planned before" finds its plans made, "planned now" plans all
sixteen prompts first, text encoding included, with concepts made ready before, as `Planner` keeps
them. Until all pictures are decoded.

The peer is the stock pipeline that serves the same sixteen one by one: load the LoRA from local
disk, choose it, call the pipeline (which encodes the prompt), delete the LoRA.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.renderer_bases import concept
from bench.renderer_figures import Step, median, median_ratio
from bench.renderer_swap import Theirs, without_remarks
from perfuse.attach import (
    BaseModel,
    ConditioningPlan,
    PlannedConcept,
    plan,
    prepare_concept,
    unconditional,
)
from perfuse_renderer.engine.engine import Engine
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.engine.render import Ended, Event, Render
from perfuse_renderer.engine.row import Picture

TENANTS = 16
PEER = "stock pipeline, one by one"
_TEXT = "a photo of {} number {}"


class Sixteen:
    """What sixteen tenants ask for, and the engine that renders it.

    Args:
        base: the base model.
        side: of the pictures, in pixels.
        steps: of each.
        guidance: of each; above 1 a picture takes two lanes.
    """

    def __init__(self, base: BaseModel, side: int, steps: int, guidance: float) -> None:
        self._base, self._side, self._steps, self._guidance = base, side, steps, guidance
        adapters = [concept(base, seed) for seed in range(TENANTS)]
        self._concepts = [
            PlannedConcept("it", adapter, prepared=prepare_concept(base, adapter))
            for adapter in adapters
        ]
        self._nothing = unconditional(base)
        lanes = TENANTS * (2 if guidance > 1 else 1)
        self._engine = Engine(base, EngineSettings(max_lanes=lanes))
        self._kept = {named: self.plans(named) for named in (True, False)}

    def close(self) -> None:
        """End the engine."""
        self._engine.drain(0.0)

    def plans(self, named: bool) -> list[ConditioningPlan]:
        """A plan for each tenant's prompt."""
        if not named:
            return [plan(self._base, _TEXT.format("cat", index)) for index in range(TENANTS)]
        return [
            plan(self._base, _TEXT.format("<it>", index), [each])
            for index, each in enumerate(self._concepts)
        ]

    def render(self, named: bool, planned_before: bool) -> float:
        """Seconds until all pictures are there.

        Raises:
            RuntimeError: one of them failed.
        """
        began = time.perf_counter()
        plans = self._kept[named] if planned_before else self.plans(named)
        errors = render_all(self._engine, [[self._picture(each)] for each in plans])
        if errors:
            raise RuntimeError(f"{len(errors)} of {TENANTS} renders failed: {errors[0]}")
        return time.perf_counter() - began

    def _picture(self, wanted: ConditioningPlan) -> Picture:
        side = self._side
        return Picture(wanted, self._nothing, 0, self._steps, self._guidance, "ddim", side, side)

    def one_by_one(self, theirs: Theirs) -> float:
        """Seconds of the peer for the same pictures."""
        pipeline = theirs.pipeline
        began = time.perf_counter()
        for index in range(TENANTS):
            theirs.load(index, f"tenant-{index}")
            pipeline(
                _TEXT.format("cat", index),
                num_inference_steps=self._steps,
                guidance_scale=self._guidance,
                height=self._side,
                width=self._side,
                generator=torch.Generator("cpu").manual_seed(0),
                output_type="pt",
            )
            pipeline.delete_adapters([f"tenant-{index}"])
        spent = time.perf_counter() - began
        theirs.reset()
        return spent


def render_all(engine: Engine, asked: Sequence[Sequence[Picture]]) -> list[BaseException]:
    """Render everything at once, one tenant after the other in `asked`; the errors, if any."""
    done = threading.Semaphore(0)
    errors: list[BaseException] = []

    def hear(event: Event) -> None:
        if error := getattr(event, "error", None):
            errors.append(error)
        if isinstance(event, Ended):
            done.release()

    for index, pictures in enumerate(asked):
        engine.submit(Render(f"tenant-{index}", pictures, hear))
    for _ in asked:
        done.acquire()
    return errors


def measure(
    base: BaseModel,
    side: int,
    steps: int,
    guidance: float,
    rounds: int,
    peer_rounds: int,
    advance: Step,
) -> dict[str, Any]:
    """Images a second and their ratios.

    Args:
        base: the base model, not attached.
        side: of the pictures, in pixels.
        steps: of each.
        guidance: of each.
        rounds: in each of which each way of ours has one turn.
        peer_rounds: of them in which the peer has one too.
        advance: told after every turn.
    """
    sixteen = Sixteen(base, side, steps, guidance)
    calls: dict[str, Callable[[], float]] = {
        f"{'concepts' if named else 'none'}, planned {'before' if before else 'now'}": partial(
            sixteen.render, named, before
        )
        for before in (True, False)
        for named in (True, False)
    }
    seconds: dict[str, list[float]] = {name: [] for name in (*calls, PEER)}
    try:
        with tempfile.TemporaryDirectory(prefix="perfuse-bench-") as home, without_remarks():
            theirs = Theirs(base, Path(home), TENANTS)
            sixteen.render(True, True)
            for turn in range(rounds):
                names = list(calls)
                for name in names[turn % 4 :] + names[: turn % 4]:
                    seconds[name].append(calls[name]())
                    advance()
                if turn < peer_rounds:
                    seconds[PEER].append(sixteen.one_by_one(theirs))
                    advance()
    finally:
        sixteen.close()
    peers = seconds[PEER]
    return {
        "tenants": TENANTS,
        "side": side,
        "steps": steps,
        "guidance": guidance,
        "rounds": rounds,
        "peer_rounds": peer_rounds,
        "images_per_second": {
            name: round(TENANTS / median(times), 3) for name, times in seconds.items()
        },
        "ratio": {
            # Images a second go the other way than seconds.
            "planned before": _ratio(
                seconds["none, planned before"], seconds["concepts, planned before"]
            ),
            "planned now": _ratio(seconds["none, planned now"], seconds["concepts, planned now"]),
            "to the stock pipeline": _ratio(peers, seconds["concepts, planned now"][: len(peers)]),
        },
    }


def _ratio(slow: list[float], quick: list[float]) -> float:
    return round(median_ratio(slow, quick), 3)
