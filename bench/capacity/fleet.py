"""A fleet: replicas, and the rule by which a request finds one of them."""

from __future__ import annotations

from collections.abc import Generator, Iterable

import numpy as np
import simpy

from bench.capacity.replica import Replica
from bench.capacity.request import Outcome, Request
from bench.capacity.step_times import StepTimes
from perfuse_renderer.engine.limits import EngineSettings


class Fleet:
    """Replicas alike.

    A request goes to the less busy of two replicas drawn by chance, as Ray Serve's router has it;
    any replica can render any concept, so nothing speaks for one but its queue.

    Args:
        clock: of the simulation.
        times: of steps.
        settings: of engines.
        size: replicas to begin with.
        chance: of the router.
        before, after: seconds of a request before its engine and after it: planning, decoding.
        choices: replicas that the router compares; 1 sends requests anywhere.

    Attributes:
        replicas: ready ones, to which requests are sent.
        leaving: those that only finish what they have.
        requests: every one that came.
        paid: device-seconds of replicas that have left, whether or not they did something.
    """

    def __init__(
        self,
        clock: simpy.Environment,
        times: StepTimes,
        settings: EngineSettings,
        size: int,
        chance: np.random.Generator,
        *,
        before: float = 0.0,
        after: float = 0.0,
        choices: int = 2,
    ) -> None:
        self.clock = clock
        self.times = times
        self.settings = settings
        self.requests: list[Request] = []
        self.leaving: list[Replica] = []
        self.paid = 0.0
        self._gone: list[Replica] = []
        self._chance = chance
        self._before = before
        self._after = after
        self._choices = choices
        self.replicas = [self._new() for _ in range(size)]

    @property
    def everyone(self) -> list[Replica]:
        """Replicas that are or were."""
        return self.replicas + self.leaving + self._gone

    @property
    def queued_seconds(self) -> float:
        """Step-seconds that are left to do."""
        return sum(replica.queued_seconds for replica in self.replicas)

    def send(self, requests: Iterable[Request]) -> None:
        """Let requests come, each at its moment."""
        self.clock.process(self._arrivals(requests))

    def arrive(self, request: Request) -> None:
        """A request comes now."""
        self.requests.append(request)
        if self._before:
            self.clock.process(self._planned(request))
        else:
            self._submit(request)

    def add(self, began: float) -> None:
        """A replica is ready now, and was paid for since `began`."""
        replica = self._new()
        replica.began = began
        self.replicas.append(replica)

    def let_go(self) -> None:
        """Send nothing more to the least busy replica; it ends when it has nothing left."""
        replica = min(self.replicas, key=lambda each: each.ongoing)
        self.replicas.remove(replica)
        self.leaving.append(replica)
        self.clock.process(self._leave(replica))

    def _new(self) -> Replica:
        return Replica(self.clock, self.times, self.settings, self._after)

    def _arrivals(self, requests: Iterable[Request]) -> Generator[simpy.Event, None, None]:
        for request in requests:
            yield self.clock.timeout(max(0.0, request.began - self.clock.now))
            self.arrive(request)

    def _planned(self, request: Request) -> Generator[simpy.Event, None, None]:
        yield self.clock.timeout(self._before)
        self._submit(request)

    def _submit(self, request: Request) -> None:
        if request.deadline is not None and self.clock.now >= request.deadline:
            request.end(Outcome.LATE, request.deadline)
            return
        self._route().submit(request)

    def _route(self) -> Replica:
        count = len(self.replicas)
        if count <= self._choices:
            return min(self.replicas, key=lambda each: each.ongoing)
        drawn = {int(self._chance.random() * count) for _ in range(self._choices)}
        return min((self.replicas[index] for index in sorted(drawn)), key=lambda each: each.ongoing)

    def _leave(self, replica: Replica) -> Generator[simpy.Event, None, None]:
        while replica.ongoing:
            yield self.clock.timeout(0.5)
        self.leaving.remove(replica)
        self._gone.append(replica)
        self.paid += self.clock.now - replica.began
