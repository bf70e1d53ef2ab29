"""An autoscaler: more replicas when steps queue up, fewer when they have not for a while.

The rule is the one of Kubernetes' HorizontalPodAutoscaler for an average value: replicas wanted are
the metric's sum divided by the value wanted of each, rounded up; within a tenth of it nothing
happens; and of the numbers wanted in the last minutes the highest counts, so that it goes down
slowly. What takes time is starting: a pod on a device that is there, or first a machine for it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass

import simpy

from bench.capacity.fleet import Fleet

_TOLERANCE = 0.1


@dataclass(frozen=True)
class Scaling:
    """How an autoscaler decides, and what a start takes.

    Attributes:
        wanted: step-seconds in the queue of each replica.
        least, most: replicas.
        spare: devices that are there without a replica, and are paid for.
        pod_seconds: from a pod on such a device to a warm replica.
        node_seconds: from a machine that is asked for to one that is there.
        every: seconds between decisions.
        patience: seconds for which fewer were wanted before there are fewer.
        up: times the replicas there are, that it goes up to at once.
        down_every: seconds between two that are let go; 0 lets all go at once.
    """

    wanted: float
    least: int
    most: int
    spare: int = 0
    pod_seconds: float = 60.0
    node_seconds: float = 240.0
    every: float = 15.0
    patience: float = 300.0
    up: float = 2.0
    down_every: float = 0.0


class Autoscaler:
    """Of one fleet.

    Args:
        clock: of the simulation.
        fleet: that it makes larger and smaller.
        scaling: how.

    Attributes:
        sizes: moments, with the replicas ready and starting then.
        paid: device-seconds of spare devices.
    """

    def __init__(self, clock: simpy.Environment, fleet: Fleet, scaling: Scaling) -> None:
        self.sizes: list[tuple[float, int, int]] = []
        self.paid = 0.0
        self._clock = clock
        self._fleet = fleet
        self._scaling = scaling
        self._starting = 0
        self._spare = scaling.spare
        self._recent: deque[tuple[float, int]] = deque()
        self._let_go = -math.inf
        clock.process(self._run())

    def _run(self) -> Generator[simpy.Event, None, None]:
        while True:
            self._decide()
            self.paid += self._spare * self._scaling.every
            yield self._clock.timeout(self._scaling.every)

    def _decide(self) -> None:
        scaling, now = self._scaling, self._clock.now
        ready = len(self._fleet.replicas)
        there = ready + self._starting
        self.sizes.append((now, ready, self._starting))
        asked = self._fleet.queued_seconds / scaling.wanted
        wanted = there if abs(asked / there - 1) <= _TOLERANCE else math.ceil(asked)
        wanted = min(max(wanted, scaling.least), scaling.most)
        self._recent.append((now, wanted))
        while self._recent[0][0] < now - scaling.patience:
            self._recent.popleft()
        if wanted > there:
            for _ in range(min(wanted, math.ceil(there * scaling.up)) - there):
                self._start()
        elif self._starting == 0:
            # What starts is let start: nothing is known yet of what it will do.
            leaving = ready - max(count for _, count in self._recent)
            if scaling.down_every:
                leaving = min(leaving, int(now - self._let_go >= scaling.down_every))
            if leaving > 0:
                self._let_go = now
            for _ in range(leaving):
                self._fleet.let_go()
                self._spare += self._spare < scaling.spare

    def _start(self) -> None:
        self._starting += 1
        at_hand = self._spare > 0
        self._spare -= at_hand
        seconds = self._scaling.pod_seconds + (0.0 if at_hand else self._scaling.node_seconds)
        self._clock.process(self._started(seconds))

    def _started(self, seconds: float) -> Generator[simpy.Event, None, None]:
        began = self._clock.now
        yield self._clock.timeout(seconds)
        self._starting -= 1
        # A machine is paid for from when it is there, in which its pod still starts.
        self._fleet.add(began + max(0.0, seconds - self._scaling.pod_seconds))
