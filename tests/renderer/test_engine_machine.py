"""Whatever comes, waits, fails and goes in whatever order: each picture is the picture alone.

A machine submits, steps, cancels and drains; a gate lets the engine take one step at a time, so
that what meets in a batch is the machine's choice. The oracle is diffusers' own pipeline over the
library's own plan, one picture at a time: nothing of the engine takes part in it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from bases import load_prepared, random_adapter
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from perfuse.adapter import Adapter
from perfuse.attach import BaseModel, ConditioningPlan, PlannedConcept, generate, plan
from perfuse.client.registry import FoundVersion
from perfuse.errors import FailedPrecondition, Unavailable
from perfuse.names import VersionName
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.engine.render import Finished, Queued, Render, Stepped
from perfuse_renderer.engine.row import Picture
from perfuse_renderer.engine.schedulers import KINDS, make_scheduler
from perfuse_renderer.planning import Asker, Planner
from perfuse_renderer.pool import AdapterPool

from .gated import GatedEngine
from .listening import Listener

TENANTS = ("acme", "globex", "initech")
CONCEPTS = {"tom": "cat", "rex": "dog", "shades": "hat"}
PROMPTS: dict[str, tuple[str, ...]] = {
    "": (),
    "a photo of a cat on the beach": (),
    "a photo of <tom> in the garden": ("tom",),
    "<rex> wearing <shades>": ("rex", "shades"),
    "<tom> and <rex> wearing <shades>": ("tom", "rex", "shades"),
    # In two chunks, which make a batch of their own.
    "<tom> " + "on a big red chair " * 16 + "beside <rex>": ("tom", "rex"),
}


class Library:
    """A Registry in which every tenant has concepts of the same names, each learned differently."""

    def __init__(self, base: BaseModel) -> None:
        self.adapters: dict[tuple[str, str], Adapter] = {}
        for tenant in TENANTS:
            for concept, category in CONCEPTS.items():
                made = random_adapter(base, len(self.adapters), category)
                # As a file rounds it.
                self.adapters[tenant, concept] = Adapter.from_bytes(made.to_bytes())
        self._fingerprint = base.fingerprint

    async def version(self, name: VersionName, authorization: str) -> FoundVersion:
        assert authorization == f"Bearer {name.tenant}"
        digest = self.adapters[name.tenant, name.concept].digest
        number = name.parent.version(1)
        return FoundVersion(number, digest, "baseModels/b", self._fingerprint, "cat", 0.7, 0.1)

    async def adapter(
        self, name: VersionName, authorization: str, *, shared: bool = False
    ) -> tuple[FoundVersion, bytes]:
        found = await self.version(name, authorization)
        return found, self.adapters[name.tenant, name.concept].to_bytes()


class World:
    """A base model, its planner, and what pictures are alone; shared by all runs of the machine.

    Attributes:
        tolerance: of latents, relative to the largest. Other kernels serve other batch sizes, so
            that a step differs in its last bits (2e-16 in float64, 6e-8 in float32); guidance and
            an untrained network make ten to ten thousand times as much of it in a few steps.
            Another tenant's concept differs by 1e-3 and more.
    """

    def __init__(self, base: BaseModel, tolerance: float) -> None:
        self.base = base
        self.tolerance = tolerance
        self.library = Library(base)
        self.finished = 0
        self.cancelled = 0
        self.batches: Counter[int] = Counter()
        self._planner = Planner(base, AdapterPool(self.library))
        self._alone: dict[tuple[Any, ...], list[torch.Tensor]] = {}
        self._plans: dict[tuple[str, tuple[str, str]], list[ConditioningPlan]] = {}

    def planned(self, tenant: str, prompts: tuple[str, str]) -> list[ConditioningPlan]:
        """By the Renderer's planner, on the tenant's behalf; both as long as the longer one."""

        async def made(least: int) -> list[ConditioningPlan]:
            asker = Asker(tenant, f"Bearer {tenant}")
            return [
                (
                    await self._planner.plan(
                        asker, prompt, {}, None, max_chunks=2, min_chunks=least
                    )
                ).plan
                for prompt in prompts
            ]

        return asyncio.run(made(max(len(each.chunks) for each in asyncio.run(made(1)))))

    def expected_plans(self, tenant: str, prompts: tuple[str, str]) -> list[ConditioningPlan]:
        """By the library, from the adapters that are the tenant's own."""
        if (tenant, prompts) not in self._plans:
            concepts = [
                [
                    PlannedConcept(name, self.library.adapters[tenant, name])
                    for name in PROMPTS[prompt]
                ]
                for prompt in prompts
            ]
            least = 2 if any(len(prompt) > 100 for prompt in prompts) else 1
            self._plans[tenant, prompts] = [
                plan(self.base, prompt, named, max_chunks=2, min_chunks=least)
                for prompt, named in zip(prompts, concepts, strict=True)
            ]
        return self._plans[tenant, prompts]

    def alone(self, tenant: str, prompts: tuple[str, str], asked: Picture) -> list[torch.Tensor]:
        """Latents after each step of the picture that diffusers' pipeline makes by itself."""
        positive, negative = self.expected_plans(tenant, prompts)
        key = (
            *(positive.digest, negative.digest, asked.seed, asked.steps, asked.guidance),
            *(asked.scheduler, asked.height, asked.width),
        )
        if key not in self._alone:
            steps: list[torch.Tensor] = []

            def keep(pipeline: Any, step: int, timestep: Any, found: Any) -> Any:
                steps.append(found["latents"].clone())
                return found

            generate(
                self.base,
                [positive],
                seeds=[asked.seed],
                negative=negative,
                steps=asked.steps,
                guidance=asked.guidance,
                height=asked.height,
                width=asked.width,
                scheduler=make_scheduler(self.base, asked.scheduler),
                output="latent",
                callback_on_step_end=keep,
            )
            self._alone[key] = steps
        return self._alone[key]


@dataclass
class Order:
    """A render as the machine submitted it."""

    tenant: str
    prompts: tuple[str, str]
    render: Render
    listener: Listener = field(default_factory=Listener)
    silent_after: int | None = None

    @property
    def stepping(self) -> bool:
        """Whether a picture has a step left to do."""
        done = sum(event.step == event.steps for event in self.listener.steps)
        return not self.listener.ended and done < len(self.render.pictures)


orders = st.fixed_dictionaries(
    {
        "tenant": st.sampled_from(TENANTS),
        "prompts": st.tuples(st.sampled_from(list(PROMPTS)), st.sampled_from(["", *PROMPTS])),
        "seeds": st.lists(st.integers(0, 1), min_size=1, max_size=3),
        "steps": st.integers(1, 4),
        "guidance": st.sampled_from([1.0, 3.0, 9.0]),
        "scheduler": st.sampled_from(list(KINDS)),
        "height": st.sampled_from([16, 16, 24]),
        "preview_every": st.sampled_from([0, 0, 1, 2]),
    }
)
some = st.lists(orders, min_size=1, max_size=4)


class EngineMachine(RuleBasedStateMachine):
    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.orders: list[Order] = []
        self.engines: list[GatedEngine] = []

    @property
    def gated(self) -> GatedEngine:
        return self.engines[-1]

    @initialize(lanes=st.integers(2, 12), begun=st.integers(2, 8), pad=st.booleans(), first=some)
    def begin(self, lanes: int, begun: int, pad: bool, first: list[Any]) -> None:
        self.limits = EngineSettings(max_lanes=lanes, max_begun=begun, pad=pad)
        self.engines.append(GatedEngine(self.world.base, self.limits))
        self.submit(first)

    @rule(several=some)
    def submit(self, several: list[dict[str, Any]]) -> None:
        for asked in several:
            self.submit_one(asked)
        self.gated.settle()

    def submit_one(self, asked: dict[str, Any]) -> None:
        tenant, prompts = asked["tenant"], asked["prompts"]
        planned, negative = self.world.planned(tenant, prompts)
        assert planned.digest == self.world.expected_plans(tenant, prompts)[0].digest
        pictures = [
            Picture(
                planned,
                negative,
                seed,
                asked["steps"],
                asked["guidance"],
                asked["scheduler"],
                asked["height"],
                16,
            )
            for seed in asked["seeds"]
        ]
        listener = Listener()
        render = Render(tenant, pictures, listener, preview_every=asked["preview_every"])
        self.orders.append(Order(tenant, prompts, render, listener))
        self.gated.engine.submit(render)

    @rule(count=st.integers(1, 4))
    def step(self, count: int) -> None:
        for _ in range(count):
            leaving = [
                order for order in self.orders if order.silent_after is not None and order.stepping
            ]
            self.gated.step()
            self.gated.settle()
            assert all(order.listener.ended for order in leaving), "cancelled, and goes on"

    @rule(out_of_memory=st.booleans())
    def step_with_a_fault(self, out_of_memory: bool) -> None:
        """The batch does not fit, or fails: it is stepped in parts, and no picture is lost."""
        fault = torch.OutOfMemoryError("does not fit") if out_of_memory else RuntimeError("broken")
        self.gated.gate.fault = fault
        self.step(1)
        self.gated.gate.fault = None

    @precondition(lambda self: any(not order.listener.ended for order in self.orders))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        live = [order for order in self.orders if not order.listener.ended]
        order = live[data.draw(st.integers(0, len(live) - 1), label="which")]
        order.render.cancel()
        if order.silent_after is None:
            order.silent_after = len(order.listener.events)
        self.gated.engine.wake()

    @rule(held=st.booleans())
    def hold_the_decoder(self, held: bool) -> None:
        self.gated.keeper.hold(held)
        self.gated.settle()

    @precondition(lambda self: len(self.orders) >= 8 * len(self.engines))
    @rule(grace=st.sampled_from([0.0, 60.0]))
    def drain(self, grace: float) -> None:
        """End the engine as a server that stops does, with or without time; then a new one."""
        before = [order for order in self.orders if not order.listener.ended]
        self.gated.drain(grace)
        for order in before:
            assert order.listener.ended
            if order.silent_after is None:
                given_up = isinstance(order.listener.error, Unavailable)
                assert given_up == (len(order.listener.pictures) < len(order.render.pictures))
                assert not (given_up and grace)
        with pytest.raises(Unavailable):
            self.gated.engine.submit(Render("acme", self.orders[0].render.pictures, Listener()))
        self.engines.append(GatedEngine(self.world.base, self.limits))

    @invariant()
    def events_are_in_order(self) -> None:
        for order in self.orders:
            events = order.listener.events
            assert len(order.listener.of(Queued)) == 1
            assert isinstance(events[0], Queued)
            ends = [event for event in events if type(event).__name__ == "Ended"]
            assert ends == events[-1:] if order.listener.ended else ends == []
            for index in range(len(order.render.pictures)):
                steps = [event.step for event in order.listener.steps if event.index == index]
                assert steps == list(range(1, len(steps) + 1))
            if order.silent_after is not None:
                told = events[order.silent_after :]
                assert len(told) <= 1
                assert all(isinstance(event.error, FailedPrecondition) for event in told)

    def teardown(self) -> None:
        if not self.engines:
            return
        self.gated.drain(60.0)
        self.events_are_in_order()
        for order in self.orders:
            assert order.listener.ended
            assert not order.listener.failures
            self.world.cancelled += order.silent_after is not None
            self.judge(order)
        for gated in self.engines:
            self.world.batches.update(gated.gate.lanes)

    def judge(self, order: Order) -> None:
        """Every picture and preview against what is rendered alone."""
        for event in [*order.listener.of(Finished), *order.listener.previews]:
            alone = self.world.alone(
                order.tenant, order.prompts, order.render.pictures[event.index]
            )
            if isinstance(event, Finished):
                own = [told for told in order.listener.steps if told.index == event.index]
                assert own[-1] == Stepped(event.index, len(alone), len(alone))
                expected = alone[-1]
                self.world.finished += 1
            else:
                expected = alone[event.step - 1]
            (latents,) = (
                latents
                for gated in self.engines
                for pixels, latents in gated.keeper.kept
                if pixels is event.pixels
            )
            difference = float((latents - expected).abs().max() / expected.abs().max())
            assert difference <= self.world.tolerance, (difference, order)


def run(world: World, examples: int, steps: int) -> None:
    machine: Callable[[], RuleBasedStateMachine] = partial(EngineMachine, world)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            # What fails is told as it is found; shrinking (Phase.shrink) would take minutes.
            phases=[Phase.generate],
        ),
    )


def test_concepts_of_one_name_are_not_one_concept(base: BaseModel) -> None:
    """Without this, crossed tenants would pass for right."""
    world = World(base, 0.0)
    asked = Picture(*world.expected_plans("acme", ("", "")), 0, 2, 3.0, "ddim", 16, 16)
    prompt = "a photo of <tom> in the garden"
    first, second = (world.alone(tenant, (prompt, ""), asked)[-1] for tenant in TENANTS[:2])
    assert float((first - second).abs().max()) > 1e-3 * float(first.abs().max())


def test_in_float64_every_picture_is_the_picture_alone(base: BaseModel) -> None:
    world = World(base, 1e-13)
    run(world, examples=8, steps=24)
    # That the machine went where faults could be.
    assert world.finished >= 50
    assert world.cancelled >= 10
    assert sum(world.batches[lanes] for lanes in range(5, 13)) >= 10


def test_in_float64_with_two_encoders_and_sizes_it_is_too(tiny_sdxl_dir: Any) -> None:
    world = World(load_prepared(tiny_sdxl_dir, dtype=torch.float64), 1e-11)
    run(world, examples=3, steps=16)
    assert world.finished >= 10


def test_in_float32_it_is_to_rounding(tiny_sd15: BaseModel) -> None:
    world = World(tiny_sd15, 2e-5)
    run(world, examples=3, steps=16)
    assert world.finished >= 10
