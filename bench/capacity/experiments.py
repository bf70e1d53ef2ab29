"""The experiments: which fleets and catalogues are tried, and what is kept of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.capacity import rows
from bench.capacity.autoscaler import Scaling
from bench.capacity.catalogue import Catalogue, stops
from bench.capacity.load import Load
from bench.capacity.measured import MeasuredRegistry
from bench.capacity.request import Outcome
from bench.capacity.step_times import Assumed, pictures_per_second
from bench.capacity.trial import Result, Trial
from perfuse_renderer.engine.limits import EngineSettings

LANE_OPERATIONS = 803.27e9
"""Floating-point operations of a lane's step, 512 × 512 pixels on Stable Diffusion 1.5: counted by
torch's FlopCounterMode on its configuration."""

SHARES = (0.5, 0.8, 1.1)


@dataclass(frozen=True)
class Assumptions:
    """What nobody measured here.

    Attributes:
        operations: that a device really does in a second.
        launch: seconds to launch a step.
        steps: of a picture.
        price: of a device for an hour.
        around: seconds of a request that are no step.
        front_door_renders: renders a second of one front door.
        database_cores: of the largest machine that a database is given.
    """

    operations: float = 100e12
    launch: float = 0.005
    steps: int = 30
    price: float = 2.0
    around: float = 0.1
    front_door_renders: float = 50.0
    database_cores: int = 32

    @property
    def times(self) -> Assumed:
        """Of a step."""
        return Assumed(self.launch, LANE_OPERATIONS / self.operations)

    @property
    def capacity(self) -> float:
        """Pictures a second of one device whose batches are full."""
        return pictures_per_second(self.times, EngineSettings().max_lanes, 2, self.steps)

    @property
    def alone(self) -> float:
        """Seconds of a picture on an idle device."""
        return self.steps * self.times.seconds(2) + self.around


@dataclass(frozen=True)
class Form:
    """How much of each experiment.

    Attributes:
        fleets: sizes, each with seconds of load, seconds of them that count for nothing, and the
            shares of capacity that are tried.
        swept: devices of the sweep over step times.
        day: seconds of the autoscaled day.
        scaled: devices that its average load takes.
        concepts: of the catalogue.
        filled: concepts that are really put into a database.
    """

    fleets: tuple[tuple[int, float, float, tuple[float, ...]], ...] = (
        (10, 200.0, 30.0, SHARES),
        (100, 40.0, 12.0, SHARES),
        (1000, 14.0, 6.0, SHARES),
        (10_000, 8.0, 4.0, (0.8,)),
    )
    swept: int = 30
    day: float = 2400.0
    scaled: int = 4
    concepts: int = 10_000_000
    filled: int = 20_000


QUICK = Form(
    fleets=((2, 20.0, 5.0, (0.6,)), (4, 10.0, 2.0, (0.6,))),
    swept=2,
    day=600.0,
    scaled=2,
    concepts=10_000,
    filled=50,
)


def trials(form: Form, given: Assumptions) -> Iterator[tuple[str, str, Trial]]:
    """Every simulated trial: experiment, case, trial."""
    for size, seconds, warm, shares in form.fleets:
        for share in shares:
            yield "fleets", f"{size} at {share}", fleet(given, size, share, seconds, warm)
    for operations in (25e12, 100e12, 400e12):
        for launch in (0.005, 0.02):
            other = replace(given, operations=operations, launch=launch)
            seconds = form.day / 60 * other.alone
            case = f"{operations / 1e12:.0f} TFLOP/s, {1000 * launch:.0f} ms"
            yield "sweep", case, fleet(other, form.swept, 0.8, seconds, seconds / 6)
    for choices in (1, 2):
        case = "any" if choices == 1 else "the less busy of two"
        tried = fleet(given, form.swept, 0.8, form.day / 24, form.day / 120)
        yield "routing", case, replace(tried, choices=choices)
    for case, scaling in scalings(form, given).items():
        yield "day", case, day(form, given, scaling)


def fleet(given: Assumptions, size: int, share: float, seconds: float, warm: float) -> Trial:
    """A fleet that stays as it is under a load that does not swing."""
    load = Load(
        rate=share * size * given.capacity,
        tenants=50 * size,
        steps=(given.steps,),
        patience=10 * given.alone,
    )
    times, around = given.times, given.around
    return Trial(load, times, size, seconds, warm, before=0.6 * around, after=0.4 * around)


def scalings(form: Form, given: Assumptions) -> dict[str, Scaling | int]:
    """Ways to meet a day: a fleet for its peak, or one that grows; int for one that stays."""
    full = 8 * given.steps * 2 * given.times.seconds(16) / 16
    least, most = form.scaled // 2, 4 * form.scaled
    grown = Scaling(0.25 * full, least, most)
    return {
        "for the swing's peak, fixed": round(1.7 * form.scaled / 0.8),
        "scaled, devices at hand": replace(grown, spare=form.scaled // 2),
        "scaled, machines in 4 min": grown,
        "scaled, machines in 15 min": replace(grown, node_seconds=900.0),
        "scaled late, machines in 4 min": replace(grown, wanted=0.5 * full),
        # deploy/components/autoscaling had these at first.
        "at 10 s, machines in 4 min": replace(grown, wanted=10.0, patience=600.0, down_every=120.0),
    }


def day(form: Form, given: Assumptions, scaling: Scaling | int) -> Trial:
    """A day in 40 minutes, so that it swings 36 times as steeply, with four bursts."""
    load = Load(
        rate=form.scaled * given.capacity,
        tenants=50 * form.scaled,
        steps=(given.steps,),
        patience=10 * given.alone,
        swing=0.7,
        day=form.day,
        burst=1.5,
        burst_every=form.day / 4,
        burst_seconds=form.day / 48,
    )
    fixed = isinstance(scaling, int)
    return Trial(
        load,
        given.times,
        scaling if fixed else max(scaling.least, round(0.4 * form.scaled)),
        form.day,
        before=0.6 * given.around,
        after=0.4 * given.around,
        scaling=None if fixed else scaling,
    )


def kept(experiment: str, result: Result, given: Assumptions) -> dict[str, Any]:
    """What is kept of a trial."""
    trial = result.trial
    found: dict[str, Any] = {"devices": trial.size, **result.record(given.price)}
    found["alone_s"] = round(trial.load.steps_each * trial.times.seconds(2) + given.around, 3)
    if experiment == "day":
        found["sizes"] = [list(size) for size in result.sizes[:: max(1, len(result.sizes) // 240)]]
        found["curve"] = _curve(result)
    return found


def _curve(result: Result, parts: int = 120) -> list[list[float]]:
    """Moment, requests a second, their 99th percentile and the part that was not finished."""
    width, found = result.trial.seconds / parts, []
    by_part: list[list[Any]] = [[] for _ in range(parts)]
    for request in result.requests:
        by_part[min(parts - 1, int(request.began / width))].append(request)
    for index, requests in enumerate(by_part):
        done = [each.latency for each in requests if each.outcome is Outcome.FINISHED]
        p99 = float(np.quantile(done, 0.99)) if done else 0.0
        lost = 1 - len(done) / len(requests) if requests else 0.0
        moment = (index + 0.5) * width
        found.append([round(x, 4) for x in (moment, len(requests) / width, p99, lost)])
    return found


def catalogue(form: Form, given: Assumptions, registry: MeasuredRegistry) -> dict[str, Any]:
    """Ten million concepts: bytes, hits, calls."""
    measured = rows.measure(form.filled)
    found: dict[str, Any] = {"rows": measured, "concepts": form.concepts, "skews": {}}
    for skew in (0.8, 1.1):
        held = Catalogue(form.concepts, 2, skew, 30_640, measured["row_bytes"])
        fleets = []
        for size, *_ in form.fleets:
            renders = 0.7 * size * given.capacity
            doors = max(2, round(renders / given.front_door_renders))
            fleets.append({"devices": size, **held.record(renders, doors, registry)})
        found["skews"][str(skew)] = {
            "hit_memory": round(held.hit_rate(held.memory_bytes), 3),
            "hit_disk": round(held.hit_rate(held.disk_bytes), 3),
            "fleets": fleets,
        }
    found["stops"] = stops(held, registry, given.database_cores)
    return found
