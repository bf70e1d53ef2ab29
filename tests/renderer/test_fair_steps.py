"""How long a tenant with few rows waits for others' rows, on a denoiser of any speed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.engine.pace import Pace
from perfuse_renderer.engine.queues import Queues
from perfuse_renderer.engine.render import Place, Render
from perfuse_renderer.engine.row import Picture

MAX_LANES = 16
FLOOD = 20
SIZE = (16, 16)
PLAN = cast(Any, SimpleNamespace(encodings=torch.zeros(77, 1)))
Seconds = Callable[[int], float]
SPEEDS: dict[str, Seconds] = {
    "lanes one after the other": lambda lanes: 0.5 * lanes,
    "lanes at once": lambda lanes: 1.0,
    "in between": lambda lanes: 0.7 + 0.2 * lanes,
    "as on two cores": lambda lanes: max(30.6 + 5.5 * (lanes - 2), 9.05 * lanes),
    "in steps, as kernels are": lambda lanes: 1.0 + lanes // 6,
}
speeds = pytest.mark.parametrize("speed", SPEEDS.values(), ids=SPEEDS.keys())


class Denoiser:
    """The engine's cycle on a clock of its own: nothing is computed.

    Args:
        speed: lanes → seconds of a step.
    """

    def __init__(self, speed: Seconds) -> None:
        self.speed, self.clock = speed, 0.0
        self.pace = Pace()
        for lanes in (1, 2, 4, 8, MAX_LANES):
            self.pace.learn(SIZE, lanes, speed(lanes))
        self.queues = Queues(EngineSettings(max_lanes=MAX_LANES), self.pace)
        self.lanes: list[int] = []
        self.steps: dict[str, int] = {}

    def places(self, tenant: str, count: int) -> list[Place]:
        asked = [Picture(PLAN, PLAN, 0, 10, 3.0, "ddim", *SIZE)] * count
        render = Render(tenant, asked, lambda event: None)
        return [Place(render, index) for index in range(count)]

    def add(self, tenant: str, count: int) -> None:
        self.queues.add(self.places(tenant, count))

    def step(self, late: Sequence[Place] = ()) -> list[Place]:
        """A step; those who come late are there when it ends."""
        self.queues.drop_lost()
        chosen = self.queues.choose(MAX_LANES)
        if late:
            self.queues.add(late)
        lanes = sum(place.picture.lanes for place in chosen)
        seconds = self.speed(lanes)
        self.clock += seconds
        self.pace.learn(SIZE, lanes, seconds)
        self.queues.charge(chosen, seconds, lanes)
        self.lanes.append(lanes)
        for place in chosen:
            tenant = place.render.tenant
            self.steps[tenant] = self.steps.get(tenant, 0) + 1
        return chosen

    def seconds_of(self, place: Place, steps: int) -> float:
        """Until a picture has made so many steps; it leaves then."""
        began, made = self.clock, 0
        while made < steps:
            made += place in self.step()
        self.queues.remove(place)
        return self.clock - began


@speeds
@settings(deadline=None, max_examples=20, derandomize=True)
@given(steps=st.integers(1, 40), before=st.integers(0, 5))
def test_beside_a_flood_a_picture_takes_twice_as_long_at_most(
    speed: Seconds, steps: int, before: int
) -> None:
    """Or as long as the step that it came in, and then alone, where it has too few to catch up."""
    denoiser = Denoiser(speed)
    denoiser.add("flood", FLOOD)
    for _ in range(before):
        denoiser.step()
    # It comes as a full batch begins: chosen already, so that it waits for all of it.
    (light,) = late = denoiser.places("light", 1)
    began = denoiser.clock
    if before:
        assert light not in denoiser.step(late)
    else:
        denoiser.queues.add(late)
    waited = denoiser.clock - began
    taken = waited + denoiser.seconds_of(light, steps)
    alone = steps * speed(2)
    assert taken <= max(2 * alone, waited + alone) * (1 + 1e-9)


@speeds
@pytest.mark.parametrize("tenants", [2, 3, 5, 8])
def test_who_asks_for_as_much_as_others_shares_full_batches(speed: Seconds, tenants: int) -> None:
    denoiser = Denoiser(speed)
    for tenant in range(tenants):
        denoiser.add(f"t{tenant}", 1)
    for _ in range(5):
        denoiser.step()
    assert set(denoiser.lanes) == {min(2 * tenants, MAX_LANES)}


@speeds
def test_a_flood_alone_has_full_batches(speed: Seconds) -> None:
    denoiser = Denoiser(speed)
    denoiser.add("flood", FLOOD)
    for _ in range(5):
        denoiser.step()
    assert set(denoiser.lanes) == {MAX_LANES}


def test_batches_that_cost_nothing_more_are_full() -> None:
    """Where lanes are stepped at once, nobody is left out for anybody's sake."""
    denoiser = Denoiser(SPEEDS["lanes at once"])
    denoiser.add("flood", FLOOD)
    denoiser.add("light", 1)
    for _ in range(5):
        denoiser.step()
    assert set(denoiser.lanes) == {MAX_LANES}


@speeds
def test_a_flood_gets_its_part_beside_one_who_never_ends(speed: Seconds) -> None:
    denoiser = Denoiser(speed)
    denoiser.add("flood", FLOOD)
    denoiser.add("steady", 1)
    for _ in range(400):
        denoiser.step()
    # Of one lane after the other, half: a quarter of a full batch's rows in the same time.
    full = denoiser.clock / speed(MAX_LANES) * MAX_LANES / 2
    assert denoiser.steps["flood"] >= 0.2 * full
    assert denoiser.steps["steady"] * speed(2) >= 0.45 * denoiser.clock


def test_a_picture_of_a_size_never_seen_holds_nobody_up() -> None:
    denoiser = Denoiser(SPEEDS["in between"])
    denoiser.add("flood", FLOOD)
    denoiser.step()
    render = Render("other", [Picture(PLAN, PLAN, 0, 10, 3.0, "ddim", 24, 24)], lambda event: None)
    denoiser.queues.add([Place(render, 0)])
    denoiser.queues.drop_lost()
    chosen = denoiser.queues.choose(MAX_LANES)
    assert [place.render.tenant for place in chosen] in (["other"], ["flood"] * 8)


@speeds
def test_who_come_and_go_in_numbers_share_full_batches(speed: Seconds) -> None:
    """Sixteen callers of sixteen tenants, each calling again: nobody's wait empties the batches."""
    denoiser, chance = Denoiser(speed), random.Random(0)
    left: dict[int, tuple[Place, int]] = {}

    def call() -> None:
        (place,) = denoiser.places(f"t{chance.randrange(16)}", 1)
        denoiser.queues.add([place])
        left[id(place)] = place, chance.choice([6, 8, 10])

    for _ in range(16):
        call()
    for _ in range(600):
        for place in denoiser.step():
            _, steps = left[id(place)]
            left[id(place)] = place, steps - 1
            if steps == 1:
                denoiser.queues.remove(place)
                del left[id(place)]
                call()
    full = MAX_LANES / speed(MAX_LANES)
    assert sum(denoiser.lanes) / denoiser.clock > 0.95 * full
