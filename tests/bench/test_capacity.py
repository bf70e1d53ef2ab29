"""The capacity simulation keeps its laws, agrees with what is known in closed form, and is told."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.capacity import document, experiments, plots, validation
from bench.capacity.catalogue import Catalogue, hit_rate
from bench.capacity.experiments import QUICK, Assumptions
from bench.capacity.fleet import Fleet
from bench.capacity.load import Load
from bench.capacity.measured import MeasuredRegistry, MeasuredRenderer, read
from bench.capacity.request import Outcome, Picture, Request
from bench.capacity.step_times import Assumed, Tabled, pictures_per_second
from bench.capacity.trial import Result, Trial
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.pool import FRESH_SECONDS

TIMES = Assumed(0.02, 0.01)
LOAD = Load(rate=6.0, tenants=20, steps=(3, 6), pictures=(1, 1, 3), patience=4.0)


def trial(**changes: object) -> Trial:
    return replace(Trial(LOAD, TIMES, size=2, seconds=40.0, seed=1), **changes)


class TestLaws:
    @settings(deadline=None, max_examples=12, derandomize=True)
    @given(
        rate=st.floats(0.5, 40.0),
        size=st.integers(1, 4),
        patience=st.sampled_from([None, 0.05, 1.0]),
        seed=st.integers(0, 1000),
    )
    def test_every_request_ends_in_exactly_one_way_and_no_step_is_lost(
        self, rate: float, size: int, patience: float | None, seed: int
    ) -> None:
        load = replace(LOAD, rate=rate, patience=patience)
        result = Trial(load, TIMES, size, 10.0, seed=seed).run()
        assert sum(result.outcomes.values()) == len(result.fleet.requests)
        assert None not in result.outcomes
        if patience is not None:
            ends = [(each.outcome, each.latency) for each in result.requests]
            assert all(latency <= patience + 1e-9 for _, latency in ends)
        finished = [each for each in result.requests if each.outcome is Outcome.FINISHED]
        needed = sum(
            picture.steps * picture.lanes for each in finished for picture in each.pictures
        )
        done = sum(replica.work.lane_steps for replica in result.fleet.everyone)
        # What was given up half-way had steps too; where nothing was, not one step more.
        assert done >= needed
        if patience is None:
            assert len(finished) + result.outcomes[Outcome.REFUSED] == len(result.requests)
            assert done == needed
        assert all(not replica.ongoing and replica.idle for replica in result.fleet.everyone)

    def test_a_replica_is_never_idle_while_it_has_work(self) -> None:
        """Requests that came together are done after exactly the seconds that their steps take."""
        clock = simpy.Environment()
        fleet = Fleet(clock, TIMES, EngineSettings(), 1, np.random.default_rng(0))
        for tenant in range(30):
            fleet.arrive(Request(f"t{tenant}", 0.0, [Picture(5, 2)]))
        clock.run()
        (replica,) = fleet.replicas
        assert max(each.latency for each in fleet.requests) == pytest.approx(replica.work.busy)
        assert replica.work.lane_steps == 30 * 5 * 2

    def test_the_same_seed_gives_the_same_to_the_last_digit(self) -> None:
        def told(seed: int) -> list[tuple[str, float, float]]:
            requests = trial(seed=seed).run().requests
            return [(each.tenant, each.began, each.latency) for each in requests]

        assert told(3) == told(3)
        assert told(3) != told(4)

    def test_a_picture_beside_a_flood_takes_at_most_twice_as_long_as_alone(self) -> None:
        """And the step that it came in: the engine's promise, which the simulation inherits."""
        for moment in (0.3, 0.71, 1.5):
            clock = simpy.Environment()
            fleet = Fleet(clock, TIMES, EngineSettings(), 1, np.random.default_rng(0))
            flood = [Request("flood", 0.0, [Picture(50, 2)]) for _ in range(40)]
            light = Request("light", moment, [Picture(10, 2)])
            fleet.send([*flood, light])
            clock.run()
            assert light.outcome is Outcome.FINISHED
            assert light.latency <= 2 * 10 * TIMES.seconds(2) + TIMES.seconds(16)

    @pytest.mark.parametrize("share", [1.2, 2.0])
    def test_above_capacity_who_is_taken_in_is_done_in_time(self, share: float) -> None:
        """Or its steps are lost: it is refused at once, however many tenants have one picture."""
        capacity = pictures_per_second(TIMES, EngineSettings().max_lanes, 2, 5)
        load = Load(share * capacity, tenants=500, skew=0.5, steps=(5,), patience=4.0)
        result = Trial(load, TIMES, size=1, seconds=60.0, warm=10.0).run()
        assert result.share(Outcome.LATE) < 0.1
        # And not many more are refused than must be.
        assert result.share(Outcome.FINISHED) > 0.8 / share

    def test_a_measured_course_is_played_as_it_was(self) -> None:
        real = MeasuredRenderer.of(read("renderer")).load["shares"]["0.8"]
        played = validation._Kept(0.0, came=tuple(real["came"]))
        came = list(played.requests(14.0, np.random.default_rng(0)))
        assert len(came) == sum(real["outcomes"].values())
        assert [(each.began, each.tenant, each.pictures[0].steps) for each in came] == [
            (moment, tenant, steps) for moment, tenant, steps in real["came"]
        ]

    def test_more_replicas_are_started_under_load_and_end_after_it(self) -> None:
        scaling = experiments.scalings(QUICK, Assumptions())["scaled, machines in 4 min"]
        assert not isinstance(scaling, int)
        scaling = replace(scaling, least=1, most=8, node_seconds=5.0, pod_seconds=5.0, patience=30)
        capacity = pictures_per_second(TIMES, 16, 2, 6)
        load = Load(2.0 * capacity, steps=(6,), patience=8.0, swing=1.0, day=400.0)
        result = Trial(load, TIMES, 1, 400.0, scaling=scaling).run()
        ready = [size for _, size, _ in result.sizes]
        assert max(ready) >= 4
        assert ready[-1] < max(ready)
        assert sum(result.outcomes.values()) == len(result.requests)
        assert 0 < result.utilisation < 1
        assert result.paid < 400.0 * max(ready)


def mean_wait(result: Result, service: Sequence[float]) -> float:
    waits = [each.latency - took for each, took in zip(result.requests, service, strict=True)]
    return sum(waits) / len(waits)


class TestClosedForms:
    @pytest.mark.parametrize("share", [0.5, 0.8])
    def test_one_lane_and_one_step_are_an_m_d_1_queue(self, share: float) -> None:
        """Pollaczek and Khinchine: the mean wait is ρ D / (2 (1 - ρ))."""
        taken = 0.1
        load = Load(share / taken, tenants=1, steps=(1,), lanes=1)
        one = EngineSettings(max_lanes=1, max_waiting=10**6, max_waiting_of_tenant=10**6)
        result = Trial(load, Assumed(taken, 0.0), 1, 1500.0, settings=one, seed=5).run()
        expected = share * taken / (2 * (1 - share))
        assert mean_wait(result, [taken] * len(result.requests)) == pytest.approx(expected, rel=0.1)
        assert result.utilisation == pytest.approx(share, rel=0.05)

    def test_lanes_at_once_are_an_m_m_c_queue(self) -> None:
        """Erlang C: a step takes as long for four rows as for one; their number is geometric."""
        servers, mean, share, step = 4, 20, 0.8, 0.05
        rate = share * servers / (mean * step)
        chance = np.random.default_rng(11)
        moments = np.cumsum(chance.exponential(1 / rate, 4000))
        steps = chance.geometric(1 / mean, len(moments))
        clock = simpy.Environment()
        limits = EngineSettings(
            max_lanes=servers, max_waiting=10**6, max_waiting_of_tenant=10**6, max_begun=servers
        )
        fleet = Fleet(clock, Assumed(step, 0.0), limits, 1, chance)
        fleet.send(
            Request("one", float(moment), [Picture(int(count), 1)])
            for moment, count in zip(moments, steps, strict=True)
        )
        clock.run()
        offered = share * servers
        last = offered**servers / math.factorial(servers) / (1 - share)
        before = sum(offered**k / math.factorial(k) for k in range(servers))
        expected = last / (before + last) * mean * step / (servers * (1 - share))
        waits = [
            each.latency - sum(p.steps for p in each.pictures) * step for each in fleet.requests
        ]
        # Rows begin with a step, so that each waits half of one besides.
        assert sum(waits) / len(waits) == pytest.approx(expected + step / 2, rel=0.15)

    def test_a_cache_hits_as_often_as_che_says(self) -> None:
        chance = np.random.default_rng(2)
        weights = np.arange(1, 2001, dtype=float) ** -0.9
        popularity = weights / weights.sum()
        kept: dict[int, None] = {}
        hits = count = 0
        for index, used in enumerate(chance.choice(2000, 60_000, p=popularity).tolist()):
            if index >= 10_000:
                count += 1
                hits += used in kept
            kept.pop(used, None)
            kept[used] = None
            if len(kept) > 200:
                del kept[next(iter(kept))]
        assert hits / count == pytest.approx(hit_rate(popularity, 200), abs=0.01)
        assert hit_rate(popularity, 0) == 0.0
        assert hit_rate(popularity, 2000) == 1.0

    def test_a_name_is_asked_for_once_in_five_seconds(self) -> None:
        """A pool of one name at one front door, played: each use asks unless it is fresh."""
        one = Catalogue(1, 1, 1.0, 30_640, 1000.0)
        moment, asked_at, asked = 0.0, -math.inf, 0
        chance = np.random.default_rng(3)
        for _ in range(40_000):
            moment += chance.exponential(0.5)
            if moment - asked_at >= FRESH_SECONDS:
                asked_at, asked = moment, asked + 1
        assert one.asked(2.0, 1)["alias"] == pytest.approx(asked / moment, rel=0.02)

    def test_bursts_and_days_leave_the_rate_as_it_is_said(self) -> None:
        load = Load(50.0, tenants=3, swing=0.5, day=20.0)
        came = list(load.requests(100.0, np.random.default_rng(4)))
        assert len(came) == pytest.approx(5000, rel=0.05)
        assert load.rate_at(10.0) == pytest.approx(3 * load.rate_at(0.0))
        burst = replace(load, swing=0.0, burst=4.0, burst_every=20.0, burst_seconds=5.0)
        in_burst = sum(
            10 <= each.began % 20 < 15 for each in burst.requests(100.0, np.random.default_rng(4))
        )
        assert in_burst == pytest.approx(4 * 50 * 25, rel=0.05)


class TestReality:
    def test_step_times_are_the_measured_ones(self) -> None:
        measured = MeasuredRenderer.of(read("renderer"))
        for lanes, seconds in measured.alone.items():
            assert measured.times(1.5).seconds(lanes) == pytest.approx(1.5 * seconds)
        assert Tabled({2: 1.0, 4: 3.0}).seconds(3) == 2.0

    def test_the_fitted_capacity_is_the_measured_one(self) -> None:
        measured = MeasuredRenderer.of(read("renderer"))
        found = validation.validate(measured, lambda: None, repetitions=2)
        capacity = found["capacity"]
        assert capacity["fitted"] == pytest.approx(capacity["measured"], rel=0.02)
        half = found["shares"]["0.5"]["goodput"]
        assert half["simulated"] == pytest.approx(half["measured"], rel=0.02)


def test_everything_is_tried_drawn_and_written(tmp_path: Path) -> None:
    given = Assumptions()
    form = replace(QUICK, day=120.0)
    measured = MeasuredRenderer.of(read("renderer"))
    record: dict[str, object] = {"validation": validation.validate(measured, lambda: None, 1)}
    for experiment, case, tried in experiments.trials(form, given):
        kept = experiments.kept(experiment, tried.run(), given)
        record.setdefault(experiment, {})[case] = kept  # type: ignore[index]
    registry = MeasuredRegistry.of(read("registry"))
    record["catalogue"] = experiments.catalogue(form, given, registry)
    record = json.loads(json.dumps(record))
    plots.draw(record, tmp_path / "plots")
    page = tmp_path / "page.md"
    page.write_text((Path(__file__).parents[2] / "docs/capacity.md").read_text())
    document.write(record, page)
    written = page.read_text()
    assert "2 at 0.6" in written
    assert "10,000 concepts" in written
    assert record["catalogue"]["rows"]["row_bytes"] > 1000
