"""One trial: a load, a fleet and a seed, and what became of the requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import simpy

from bench.capacity.autoscaler import Autoscaler, Scaling
from bench.capacity.cost import per_thousand
from bench.capacity.fleet import Fleet
from bench.capacity.load import Load
from bench.capacity.request import Outcome, Request
from bench.capacity.step_times import StepTimes
from perfuse_renderer.engine.limits import EngineSettings

_DRAIN = 86_400.0
"""Seconds after the last request by which everything has ended, or never will."""


@dataclass(frozen=True)
class Trial:
    """What is tried.

    Attributes:
        load: that comes.
        times: of steps.
        size: replicas to begin with.
        seconds: in which requests come.
        warm: seconds at the beginning that count for nothing.
        settings: of engines.
        before, after: seconds of a request before its engine and after it.
        scaling: None leaves the fleet as it is.
        choices: replicas that the router compares.
        seed: of everything drawn.
    """

    load: Load
    times: StepTimes
    size: int
    seconds: float
    warm: float = 0.0
    settings: EngineSettings = field(default_factory=EngineSettings)
    before: float = 0.0
    after: float = 0.0
    scaling: Scaling | None = None
    choices: int = 2
    seed: int = 0

    def run(self, told: Callable[[float], None] | None = None) -> Result:
        """Try it.

        Args:
            told: the moments of arrivals, for a bar of progress.
        """
        of_load, of_router = np.random.default_rng(self.seed).spawn(2)
        clock = simpy.Environment()
        fleet = Fleet(
            *(clock, self.times, self.settings, self.size, of_router),
            before=self.before,
            after=self.after,
            choices=self.choices,
        )
        fleet.send(_telling(self.load.requests(self.seconds, of_load), told))
        scaler = Autoscaler(clock, fleet, self.scaling) if self.scaling else None
        clock.run(until=self.seconds)
        if scaler is None:
            clock.run()
            paid = self.size * self.seconds
        else:
            clock.run(until=self.seconds + min(_DRAIN, 3600.0))
            present = [*fleet.replicas, *fleet.leaving]
            # What is paid for after the last request came is not the load's.
            paid = fleet.paid + scaler.paid - scaler.paid / clock.now * (clock.now - self.seconds)
            paid += sum(max(0.0, self.seconds - replica.began) for replica in present)
        return Result(self, fleet, paid, scaler.sizes if scaler else [])


def _telling(
    requests: Iterable[Request], told: Callable[[float], None] | None
) -> Iterable[Request]:
    for request in requests:
        if told is not None:
            told(request.began)
        yield request


class Result:
    """What became of it.

    Args:
        trial: that was run.
        fleet: as it ended.
        paid: device-seconds.
        sizes: of the fleet, by the autoscaler.
    """

    def __init__(
        self, trial: Trial, fleet: Fleet, paid: float, sizes: list[tuple[float, int, int]]
    ) -> None:
        self.trial = trial
        self.fleet = fleet
        self.paid = paid
        self.sizes = sizes
        self.requests = [each for each in fleet.requests if each.began >= trial.warm]
        self.outcomes = Counter(each.outcome for each in self.requests)

    def latencies(self, tenant: str | None = None) -> np.ndarray:
        """Seconds of finished requests; of one tenant alone where it is named."""
        return np.array(
            [
                each.latency
                for each in self.requests
                if each.outcome is Outcome.FINISHED and tenant in (None, each.tenant)
            ]
        )

    def share(self, outcome: Outcome) -> float:
        """The part of all requests that ended so."""
        return self.outcomes[outcome] / len(self.requests) if self.requests else 0.0

    @property
    def pictures(self) -> int:
        """That callers got, those of the beginning as well: they were paid for."""
        finished = (each for each in self.fleet.requests if each.outcome is Outcome.FINISHED)
        return sum(len(each.pictures) for each in finished)

    @property
    def utilisation(self) -> float:
        """Device-seconds of stepping ÷ those that were paid for."""
        return sum(replica.work.busy for replica in self.fleet.everyone) / self.paid

    @property
    def lanes(self) -> float:
        """Lanes of an average step."""
        steps = sum(replica.work.steps for replica in self.fleet.everyone)
        done = sum(replica.work.lane_steps for replica in self.fleet.everyone)
        return done / steps if steps else 0.0

    def record(self, price_per_hour: float) -> dict[str, float]:
        """The figures that are kept."""
        latencies = self.latencies()
        p50, p99 = np.quantile(latencies, [0.5, 0.99]) if len(latencies) else (0.0, 0.0)
        return {
            "requests": len(self.requests),
            "p50_s": round(float(p50), 3),
            "p99_s": round(float(p99), 3),
            "refused": round(self.share(Outcome.REFUSED), 4),
            "late": round(self.share(Outcome.LATE), 4),
            "utilisation": round(self.utilisation, 3),
            "lanes": round(self.lanes, 1),
            "device_seconds_per_picture": round(self.paid / max(1, self.pictures), 3),
            "cost_per_1000": round(per_thousand(self.paid, self.pictures, price_per_hour), 3),
        }
