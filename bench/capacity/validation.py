"""The simulation beside reality: one Renderer on two cores, as it was measured and as simulated.

Step times are measured; one number is fitted: how much longer a step takes beside callers, decoding
and planning on the same cores, so that sixteen callers who call again and again get as many
pictures a second as they did. Everything else follows, and is compared.

A measurement lasted 14 s, in which some fifty requests came: its 99th percentile is the slowest
of them. So the simulation is repeated in the same size, and the middle 90 % of it are told. Then
the very requests that came are played, and it is told with how much longer steps they would have
taken as long as they did: a machine is not always as fast as when its capacity was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

from bench.capacity.fleet import Fleet
from bench.capacity.load import Load
from bench.capacity.measured import MeasuredRenderer
from bench.capacity.request import Outcome, Picture, Request
from bench.capacity.step_times import Tabled
from bench.capacity.trial import Result, Trial
from perfuse_renderer.engine.limits import EngineSettings

REPETITIONS = 40
_SLOWER = tuple(percent / 100 for percent in range(80, 151, 5))
_SETTINGS = EngineSettings()
"""As the Renderer's defaults are, with which it was measured."""


def validate(
    measured: MeasuredRenderer, advance: Callable[[], None], repetitions: int = REPETITIONS
) -> dict[str, Any]:
    """Simulated figures beside measured ones."""
    beside = fit(measured)
    times = measured.times(beside)
    found: dict[str, Any] = {
        "repetitions": repetitions,
        "step_ms": {str(lanes): round(1000 * s, 2) for lanes, s in measured.alone.items()},
        "around_ms": round(1000 * measured.around(times), 1),
        "beside": round(beside, 3),
        "capacity": {
            "measured": measured.load["capacity_per_second"],
            "as_alone": round(_closed(measured, measured.times()), 2),
            "fitted": round(_closed(measured, times), 2),
        },
        "shares": {},
        "replayed": {},
    }
    for share, real in measured.load["shares"].items():
        runs = []
        for seed in range(repetitions):
            runs.append(_open(measured, times, real, seed))
            advance()
        found["shares"][share] = {
            "p50_ms": _beside(real["latency"]["p50_ms"], [_ms(run, 0.5) for run in runs]),
            "p99_ms": _beside(real["latency"]["p99_ms"], [_ms(run, 0.99) for run in runs]),
            "goodput": _beside(
                real["goodput_per_second"],
                [run.outcomes[Outcome.FINISHED] / run.trial.seconds for run in runs],
            ),
        }
        if "came" in real and real["outcomes"].keys() == {"finished"}:
            found["replayed"][share] = _replayed(measured, times, real)
    found["light"] = _light(measured, times, repetitions, advance)
    return found


def fit(measured: MeasuredRenderer) -> float:
    """By what steps are longer beside everything else on the cores, from the capacity alone."""
    low, high = 0.8, 1.8
    for _ in range(9):
        middle = (low + high) / 2
        faster = _closed(measured, measured.times(middle)) > measured.load["capacity_per_second"]
        low, high = (middle, high) if faster else (low, middle)
    return (low + high) / 2


def _fleet(measured: MeasuredRenderer, times: Tabled, seed: int) -> tuple[simpy.Environment, Fleet]:
    clock = simpy.Environment()
    chance = np.random.default_rng(seed)
    return clock, Fleet(clock, times, _SETTINGS, 1, chance, after=measured.around(times))


def _closed(measured: MeasuredRenderer, times: Tabled, seconds: float = 60.0) -> float:
    """Pictures a second while sixteen callers call again as soon as they are answered."""
    load = measured.load["load"]
    clock, fleet = _fleet(measured, times, 0)
    chance = np.random.default_rng(1)

    def caller() -> Generator[simpy.Event, None, None]:
        while clock.now < seconds:
            steps = load["steps"][chance.integers(len(load["steps"]))]
            tenant = f"t{chance.integers(measured.load['tenants'])}"
            yield from _wait(clock, fleet, tenant, steps)

    for _ in range(load["callers"]):
        clock.process(caller())
    clock.run(until=seconds)
    done = sum(request.outcome is Outcome.FINISHED for request in fleet.requests)
    return done / seconds


def _wait(
    clock: simpy.Environment, fleet: Fleet, tenant: str, steps: int
) -> Generator[simpy.Event, None, None]:
    """Ask for one picture and wait for it."""
    request = Request(tenant, clock.now, [Picture(steps, 2)])
    fleet.arrive(request)
    released, answered = request.on_end, clock.event()

    def end() -> None:
        if released is not None:
            released()
        answered.succeed()

    request.on_end = end
    yield answered


def _open(measured: MeasuredRenderer, times: Tabled, real: dict[str, Any], seed: int) -> Result:
    """As many requests as came in reality, at random moments."""
    load = measured.load
    return Trial(
        _Counted(
            real["offered_per_second"],
            tenants=load["tenants"],
            skew=0.0,
            steps=tuple(load["load"]["steps"]),
            patience=load["deadline_seconds"],
        ),
        times,
        size=1,
        seconds=load["load"]["seconds"],
        settings=_SETTINGS,
        after=measured.around(times),
        seed=seed,
    ).run()


def _replayed(measured: MeasuredRenderer, times: Tabled, real: dict[str, Any]) -> dict[str, Any]:
    """The very requests that came, all of which ended in time: errors, with steps as fitted and as
    they fit best."""

    def errors(slower: float) -> dict[str, float]:
        longer = Tabled({lanes: slower * seconds for lanes, seconds in times.table.items()})
        run = Trial(
            _Kept(0.0, came=tuple(real["came"])),
            longer,
            size=1,
            seconds=measured.load["load"]["seconds"],
            settings=_SETTINGS,
            after=measured.around(longer),
        ).run()
        played = {"p50_ms": _ms(run, 0.5), "p99_ms": _ms(run, 0.99)}
        return {name: round(value / real["latency"][name] - 1, 3) for name, value in played.items()}

    tried = {slower: errors(slower) for slower in _SLOWER}
    best = min(tried, key=lambda each: sum(map(abs, tried[each].values())))
    return {"as_fitted": tried[1.0], "slower": best, "as_slower": tried[best]}


@dataclass(frozen=True)
class _Kept(Load):
    """What came, again, whatever deadline it had.

    Attributes:
        came: moment, tenant and steps of each request.
    """

    came: tuple[tuple[float, str, int], ...] = ()

    def requests(self, seconds: float, chance: np.random.Generator) -> Any:
        """See `Load.requests`."""
        for moment, tenant, steps in self.came:
            yield Request(tenant, moment, [Picture(steps, self.lanes)])


class _Counted(Load):
    """A load of which the number of requests is known: their moments are then drawn evenly."""

    def requests(self, seconds: float, chance: np.random.Generator) -> Any:
        """See `Load.requests`."""
        for moment in np.sort(chance.random(round(self.rate * seconds)) * seconds):
            steps = self.steps[chance.integers(len(self.steps))]
            tenant = f"t{chance.integers(self.tenants)}"
            patience = self.patience or 0.0
            yield Request(tenant, moment, [Picture(steps, self.lanes)], moment + patience)


def _light(
    measured: MeasuredRenderer, times: Tabled, repetitions: int, advance: Callable[[], None]
) -> dict[str, Any]:
    """A tenant that asks for one picture after another, beside one that keeps many waiting."""
    real, load = measured.load["light"], measured.load["load"]
    latencies: list[list[float]] = []
    flooded = []
    for seed in range(repetitions):
        clock, fleet = _fleet(measured, times, seed)
        chance = np.random.default_rng(seed)

        def flood(clock: Any = clock, fleet: Any = fleet) -> Generator[simpy.Event, None, None]:
            while True:
                yield from _wait(clock, fleet, "flood", load["light_steps"])

        def light(
            clock: Any = clock, fleet: Any = fleet, chance: Any = chance
        ) -> Generator[simpy.Event, None, None]:
            yield clock.timeout(2.0)
            for _ in range(load["light"]):
                yield clock.timeout(chance.random() * 0.2)
                yield from _wait(clock, fleet, "light", load["light_steps"])

        for _ in range(load["flood"]):
            clock.process(flood())
        clock.run(until=clock.process(light()))
        ended = [each for each in fleet.requests if each.outcome is Outcome.FINISHED]
        latencies.append([each.latency for each in ended if each.tenant == "light"])
        # Once the queue is full, and until the light tenant's last picture.
        late = [each for each in ended if each.tenant == "flood" and each.began + each.latency > 2]
        flooded.append(len(late) / (clock.now - 2.0))
        advance()

    def of(quantile: float) -> list[float]:
        return [1000 * float(np.quantile(each, quantile)) for each in latencies]

    return {
        "p50_ms": _beside(real["beside_flood"]["p50_ms"], of(0.5)),
        "p99_ms": _beside(real["beside_flood"]["p99_ms"], of(0.99)),
        "flood": _beside(real["flood_images_per_second"], flooded),
    }


def _ms(run: Result, quantile: float) -> float:
    return 1000 * float(np.quantile(run.latencies(), quantile))


def _beside(real: float, simulated: list[float]) -> dict[str, float]:
    """The median of the repetitions, the middle 90 % of them, and the median's error."""
    low, median, high = np.quantile(simulated, [0.05, 0.5, 0.95])
    return {
        "measured": real,
        "simulated": round(float(median), 2),
        "from": round(float(low), 2),
        "to": round(float(high), 2),
        "error": round(float(median) / real - 1, 3),
    }
