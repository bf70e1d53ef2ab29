"""(f) Open-loop load, a flood beside a light tenant, and cancelling, all through the Renderer.

Sixteen tenants, each with a concept of its own, ask for single pictures with guidance. Capacity is
what the Renderer finishes while as many callers as its batch holds twice over call again and again.
Then calls come at random moments (Poisson) at a share of that, whatever becomes of those before
them, each with a deadline; what the Renderer refuses at once, or does not finish in time, is no
goodput.

A light tenant asks for one picture after another, alone and while another tenant keeps many
waiting.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import grpc

from bench.renderer_figures import Step, median, milliseconds, quantile
from bench.renderer_servers import CONCEPT, Caller, Services

TENANTS = tuple(f"t{index}" for index in range(16))
LIGHT, FLOOD = "light", "flood"
SHARES = (0.5, 0.8, 1.2)
_SCENES = ("at night", "in the garden", "on the beach", "in the snow")
_DEADLINES = 8
"""Deadline of a call, in times of a picture alone."""


@dataclass(frozen=True)
class Load:
    """How much of it.

    Attributes:
        steps: a picture takes one of these.
        callers: at once, for the capacity.
        capacity_seconds, seconds: of measuring capacity, and each share of it.
        light: pictures of the light tenant, alone and again beside the flood.
        light_steps: of each.
        flood: pictures that the flooding tenant keeps in the queue.
        cancels: of calls.
    """

    steps: tuple[int, ...] = (6, 8, 10)
    callers: int = 16
    capacity_seconds: float = 9.0
    seconds: float = 14.0
    light: int = 32
    light_steps: int = 8
    flood: int = 32
    cancels: int = 20

    @property
    def turns(self) -> int:
        """How often `advance` is told."""
        return 1 + len(SHARES) + 2 * self.light + self.cancels


@dataclass
class _Heard:
    seconds: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)


class Tenants:
    """Callers of the sixteen tenants.

    Args:
        caller: of the Renderer.
        load: how much.
    """

    def __init__(self, caller: Caller, load: Load) -> None:
        self._caller, self._load = caller, load
        self._chance = random.Random(6)
        self.deadline: float | None = None

    def draw(self) -> tuple[str, str, int]:
        """Tenant, prompt and steps of a picture."""
        chance = self._chance
        prompt = f"a photo of <{CONCEPT}> {chance.choice(_SCENES)}"
        return chance.choice(TENANTS), prompt, chance.choice(self._load.steps)

    async def one(self, heard: _Heard, tenant: str, prompt: str, steps: int) -> None:
        """One picture."""
        began = time.perf_counter()
        outcome = await _outcome(
            self._caller.render(tenant, prompt, steps=steps, timeout=self.deadline)
        )
        heard.outcomes[outcome] += 1
        if outcome == "finished":
            heard.seconds.append(time.perf_counter() - began)

    async def closed_loop(self, seconds: float) -> float:
        """Pictures a second while every caller calls again as soon as it is answered."""
        heard = _Heard()
        until = time.perf_counter() + seconds

        async def again() -> None:
            while time.perf_counter() < until:
                await self.one(heard, *self.draw())

        began = time.perf_counter()
        await asyncio.gather(*(again() for _ in range(self._load.callers)))
        return heard.outcomes["finished"] / (time.perf_counter() - began)

    async def open_loop(self, rate: float, seconds: float) -> dict[str, Any]:
        """`rate` calls a second for `seconds`, at moments of their own.

        What came is kept, so that it can be played again: `came`, moment, tenant and steps of each.
        So is how fast the machine was just before: `alone_ms`, of the light tenant's picture.
        """
        heard = _Heard()
        alone = median([await _light_one(self._caller, self._load) for _ in range(3)])
        came: list[tuple[float, str, int]] = []
        began = time.perf_counter()
        due = 0.0
        calls = []
        while (due := due + self._chance.expovariate(rate)) < seconds:
            await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
            tenant, prompt, steps = self.draw()
            came.append((round(due, 4), tenant, steps))
            calls.append(asyncio.create_task(self.one(heard, tenant, prompt, steps)))
        await asyncio.gather(*calls)
        return {
            "came": came,
            "alone_ms": round(1000 * alone, 2),
            "offered_per_second": round(len(calls) / seconds, 2),
            "goodput_per_second": round(heard.outcomes["finished"] / seconds, 2),
            "outcomes": dict(heard.outcomes),
            "latency": milliseconds(heard.seconds),
        }


async def _outcome(call: Any) -> str:
    try:
        async for _ in call:
            pass
    except grpc.aio.AioRpcError as error:
        match error.code():
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                return "refused"
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return "late"
            case _:
                raise
    return "finished"


async def measure(services: Services, load: Load, advance: Step) -> dict[str, Any]:
    """Everything through the Renderer.

    Args:
        services: with a Renderer, and the tenants' concepts.
        load: how much.
        advance: told as often as `load.turns` says.
    """
    async with Caller(services) as caller:
        tenants = Tenants(caller, load)
        await tenants.closed_loop(load.capacity_seconds / 3)
        alone = [await _light_one(caller, load) for _ in range(5)]
        capacity = await tenants.closed_loop(load.capacity_seconds)
        advance()
        typical = median(alone) * max(load.steps) / load.light_steps
        tenants.deadline = _DEADLINES * typical
        found: dict[str, Any] = {
            "load": vars(load),
            "tenants": len(TENANTS),
            "capacity_per_second": round(capacity, 2),
            "deadline_seconds": round(tenants.deadline, 2),
            "shares": {},
        }
        for share in SHARES:
            found["shares"][str(share)] = await tenants.open_loop(share * capacity, load.seconds)
            await _quiet(caller)
            advance()
        found["light"] = await _light(caller, load, advance)
        await _quiet(caller)
        found["cancel"] = await _cancels(caller, load, advance)
    return found


async def _light_one(caller: Caller, load: Load) -> float:
    began = time.perf_counter()
    prompt = f"a photo of <{CONCEPT}>"
    outcome = await _outcome(caller.render(LIGHT, prompt, steps=load.light_steps))
    if outcome != "finished":
        raise RuntimeError(f"the light tenant's picture was {outcome}")
    return time.perf_counter() - began


async def _light(caller: Caller, load: Load, advance: Step) -> dict[str, Any]:
    """The light tenant alone, then beside the flood."""
    chance = random.Random(7)
    flooded = 0

    async def pictures() -> list[float]:
        found = []
        for _ in range(load.light):
            # At any moment of the others' steps.
            await asyncio.sleep(chance.random() * 0.2)
            found.append(await _light_one(caller, load))
            advance()
        return found

    async def flood() -> None:
        nonlocal flooded
        while True:
            prompt = f"a photo of <{CONCEPT}> {chance.choice(_SCENES)}"
            await _outcome(caller.render(FLOOD, prompt, steps=load.light_steps))
            flooded += 1

    alone = await pictures()
    floods = [asyncio.create_task(flood()) for _ in range(load.flood)]
    await asyncio.sleep(2.0)
    began, before = time.perf_counter(), flooded
    beside = await pictures()
    rate = (flooded - before) / (time.perf_counter() - began)
    for each in floods:
        each.cancel()
    await asyncio.gather(*floods, return_exceptions=True)
    return {
        "alone": milliseconds(alone),
        "beside_flood": milliseconds(beside),
        "flood_images_per_second": round(rate, 2),
        "ratio_p50": round(median(beside) / median(alone), 2),
        "ratio_p99": round(quantile(beside, 0.99) / quantile(alone, 0.99), 2),
    }


async def _cancels(caller: Caller, load: Load, advance: Step) -> dict[str, Any]:
    """From a caller's cancel to a Renderer that has nothing left, as its status says."""
    chance = random.Random(8)
    spans, steps = [], []
    for _ in range(load.cancels):
        call = caller.render(LIGHT, f"a photo of <{CONCEPT}>", steps=50)
        moments = []
        async for event in call:
            if event.HasField("progress"):
                moments.append(time.perf_counter())
                if len(moments) == 3:
                    break
        steps.append(moments[2] - moments[1])
        await asyncio.sleep(chance.random() * steps[-1])
        began = time.perf_counter()
        call.cancel()
        while await caller.busy(LIGHT):
            pass
        spans.append(time.perf_counter() - began)
        advance()
    return {
        "step_ms": round(1000 * median(steps), 2),
        "time": milliseconds(spans),
        "time_in_steps_p99": round(quantile(spans, 0.99) / median(steps), 2),
    }


async def _quiet(caller: Caller) -> None:
    """Until the Renderer has nothing left to do."""
    while await caller.busy(LIGHT):
        await asyncio.sleep(0.05)
