"""(d) From a caller's cancelling to its rows' being out of the engine.

Other tenants' renders keep the batch going. A victim is cancelled at a moment of a step that is
drawn at random. Counted are the steps that ended after the cancel with a row of the victim's in
them: one where the cancel falls into a step, which cannot be interrupted. Timed is the span from
the cancel to the render's end, beside the time of a step.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import torch

from bench.renderer_bases import concept
from bench.renderer_figures import Step, median, milliseconds, quantile
from perfuse.attach import BaseModel, Conditioning, PlannedConcept, denoise, plan, unconditional
from perfuse_renderer.engine.engine import Engine
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.engine.render import Ended, Event, Render, Stepped
from perfuse_renderer.engine.row import Picture

_OTHERS = 3
_LONG = 200
_SECONDS = 120.0


class Watch:
    """The denoiser, with a record of when it was stepping the victim.

    Args:
        mark: encodings [M, d] by which the victim's rows are known.
    """

    def __init__(self, mark: torch.Tensor) -> None:
        self._mark = mark
        self.spans: list[tuple[float, float, bool]] = []

    def __call__(
        self,
        base: BaseModel,
        latents: torch.Tensor,
        timesteps: torch.Tensor,
        conditioning: Conditioning,
    ) -> torch.Tensor:
        """A step; see `stepper.Denoise`."""
        marked = any(torch.equal(row, self._mark) for row in conditioning.encodings)
        began = time.perf_counter()
        prediction = denoise(base, latents, timesteps, conditioning)
        self.spans.append((began, time.perf_counter(), marked))
        return prediction


class Victim:
    """A render that is to be cancelled, and what its caller hears."""

    def __init__(self, picture: Picture) -> None:
        self.render = Render("victim", [picture], self._hear)
        self.freed = 0.0
        self.stepping, self.ended = threading.Event(), threading.Event()

    def _hear(self, event: Event) -> None:
        if isinstance(event, Stepped):
            self.stepping.set()
        if isinstance(event, Ended):
            self.freed = time.perf_counter()
            self.ended.set()


def measure(base: BaseModel, side: int, cancels: int, advance: Step) -> dict[str, Any]:
    """Steps and times until the rows are out.

    Args:
        base: the base model, not attached.
        side: of the pictures, in pixels.
        cancels: how many.
        advance: told after every cancel.

    Raises:
        RuntimeError: a cancelled render does not end.
    """
    chance = random.Random(4)
    nothing = unconditional(base)
    marked = plan(base, "the <it> to be cancelled", [PlannedConcept("it", concept(base, 0))])
    plain = plan(base, "a photo of a cat")
    watch = Watch(marked.encodings)
    engine = Engine(base, EngineSettings(max_lanes=2 + _OTHERS), watch)

    def picture(wanted: Any, seed: int, guidance: float) -> Picture:
        return Picture(wanted, nothing, seed, _LONG, guidance, "ddim", side, side)

    others = _Others(engine, [picture(plain, seed, 1.0) for seed in range(_OTHERS)])
    spans: list[float] = []
    counts: list[int] = []
    try:
        for _ in range(cancels):
            victim = Victim(picture(marked, 0, 3.0))
            engine.submit(victim.render)
            if not victim.stepping.wait(_SECONDS):
                raise RuntimeError("the victim does not step")
            began, ended, _ = watch.spans[-1]
            time.sleep(chance.random() * 1.5 * (ended - began))
            moment = time.perf_counter()
            victim.render.cancel()
            engine.wake()
            if not victim.ended.wait(_SECONDS):
                raise RuntimeError("a cancelled render did not end")
            spans.append(victim.freed - moment)
            # The step that follows would still be seen here if the row were in it.
            _await_step(watch, victim.freed)
            counts.append(sum(mark and end > moment for _, end, mark in list(watch.spans)))
            advance()
    finally:
        others.stop()
        engine.drain(0.0)
    step = median([end - began for began, end, mark in watch.spans if mark])
    return {
        "cancels": cancels,
        "side": side,
        "lanes": 2 + _OTHERS,
        "step_ms": round(1000 * step, 2),
        "steps_p99": int(quantile(counts, 0.99)),
        "steps_most": max(counts),
        "time": milliseconds(spans),
        "time_in_steps": {
            "p50": round(median(spans) / step, 2),
            "p99": round(quantile(spans, 0.99) / step, 2),
        },
    }


class _Others:
    """Renders that begin anew whenever they end."""

    def __init__(self, engine: Engine, pictures: list[Picture]) -> None:
        self._engine = engine
        self._stopping = False
        self._now: dict[int, Render] = {}
        for index, picture in enumerate(pictures):
            self._begin(index, picture)

    def _begin(self, index: int, picture: Picture) -> None:
        def hear(event: Event) -> None:
            if isinstance(event, Ended) and not self._stopping:
                self._begin(index, picture)

        self._now[index] = Render(f"other-{index}", [picture], hear)
        self._engine.submit(self._now[index])

    def stop(self) -> None:
        """End them."""
        self._stopping = True
        for render in self._now.values():
            render.cancel()
        self._engine.wake()


def _await_step(watch: Watch, moment: float) -> None:
    """Until a step has ended that began after `moment`."""
    deadline = time.monotonic() + _SECONDS
    while not any(began > moment for began, _, _ in watch.spans[-3:]):
        if time.monotonic() > deadline:
            raise RuntimeError("the others do not step")
        time.sleep(0.001)
