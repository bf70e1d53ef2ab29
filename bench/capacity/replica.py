"""A replica: the engine's own queues, shares and admission, with time that is simulated.

Nothing of who steps next, how long a step may be for whose sake, or who is refused is written here
again: `perfuse_renderer.engine` decides, and only the denoiser is replaced by a span of time.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import simpy

from bench.capacity.request import Outcome, Request, Row
from bench.capacity.step_times import StepTimes
from perfuse.errors import ResourceExhausted
from perfuse_renderer.engine.admission import Admission
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.engine.pace import Pace, Size
from perfuse_renderer.engine.queues import Queues
from perfuse_renderer.engine.render import Place


@dataclass
class Work:
    """What a replica did.

    Attributes:
        busy: seconds in which it stepped.
        steps: of batches.
        lane_steps: of the lanes in them.
        lane_seconds: seconds of steps times lanes in them.
    """

    busy: float = 0.0
    steps: int = 0
    lane_steps: int = 0
    lane_seconds: float = 0.0


class KnownPace(Pace):
    """An engine's pace once it has learned every number of lanes: nothing varies here.

    Args:
        times: of steps.
        most: lanes of a batch.
    """

    def __init__(self, times: StepTimes, most: int) -> None:
        super().__init__()
        self._known = [times.seconds(max(1, lanes)) for lanes in range(most + 1)]

    def step_seconds(self, size: Size, lanes: int) -> float:
        """See `Pace.step_seconds`."""
        most = len(self._known) - 1
        return self._known[lanes] if lanes <= most else self._known[most] * lanes / most

    def lane_seconds(self, size: Size) -> float:
        """See `Pace.lane_seconds`."""
        return self._known[-1] / (len(self._known) - 1)


class Replica:
    """One engine on one device.

    Args:
        clock: of the simulation.
        times: of its steps.
        settings: of its engine.
        after: seconds from a picture's last step to the caller: decoding and sending. Others' steps
            do not wait for it.

    Attributes:
        work: what it did so far.
        ongoing: requests that were taken in and have not ended.
    """

    def __init__(
        self,
        clock: simpy.Environment,
        times: StepTimes,
        settings: EngineSettings,
        after: float = 0.0,
    ) -> None:
        self.work = Work()
        self.ongoing = 0
        self.began = clock.now
        self._clock = clock
        self._times = times
        self._settings = settings
        self._after = after
        self._pace = KnownPace(times, settings.max_lanes)
        self._queues = Queues(settings, self._pace, lambda: float(clock.now))
        self._admission = Admission(settings, self._pace, lambda: float(clock.now))
        self._woken: simpy.Event | None = None
        clock.process(self._run())

    @property
    def idle(self) -> bool:
        """Whether it has nothing to do."""
        return not self._queues

    @property
    def queued_seconds(self) -> float:
        """Step-seconds that are left to do, in the fullest batches."""
        lane = self._pace.lane_seconds((1, 1))
        queues = self._queues.by_tenant.values()
        return lane * sum(place.lane_steps for queue in queues for place in queue)

    def submit(self, request: Request) -> bool:
        """Take a request in, or end it as refused."""
        places: list[Any] = [
            Place(request, index)  # type: ignore[arg-type]
            for index in range(len(request.pictures))
        ]
        try:
            self._admission.admit(request, places, self._queues.by_tenant)  # type: ignore[arg-type]
        except ResourceExhausted:
            request.end(Outcome.REFUSED, self._clock.now)
            return False
        self.ongoing += 1
        request.on_end = self._let_go
        self._queues.add(places)
        if self._woken is not None and not self._woken.triggered:
            self._woken.succeed()
        return True

    def _let_go(self) -> None:
        self.ongoing -= 1

    def _run(self) -> Generator[simpy.Event, None, None]:
        """The engine's cycle: drop what is lost, choose, step."""
        while True:
            if not self._queues:
                self._woken = self._clock.event()
                yield self._woken
            self._queues.drop_lost()
            chosen: list[Any] = self._queues.choose(self._settings.max_lanes)
            if not chosen:
                continue
            for place in chosen:
                if place.row is None:
                    place.row = Row(place.picture.steps)
            lanes = sum(place.picture.lanes for place in chosen)
            seconds = self._times.seconds(self._filled(lanes))
            yield self._clock.timeout(seconds)
            self._queues.charge(chosen, seconds, lanes)
            self._count(seconds, lanes)
            for place in chosen:
                place.row.step += 1
                if place.row.done:
                    self._queues.remove(place)
                    self._clock.process(self._send(place.render))

    def _filled(self, lanes: int) -> int:
        """Lanes that the device steps: where batches are filled up, more than do something."""
        if not self._settings.pad:
            return lanes
        return min(size for size in self._settings.buckets() if size >= lanes)

    def _count(self, seconds: float, lanes: int) -> None:
        self.work.busy += seconds
        self.work.steps += 1
        self.work.lane_steps += lanes
        self.work.lane_seconds += seconds * lanes

    def _send(self, request: Request) -> Generator[simpy.Event, None, None]:
        """Decode one picture and send it; the last one ends its request."""
        yield self._clock.timeout(self._after)
        request.left -= 1
        if request.left or request.ended:
            return
        if request.deadline is not None and self._clock.now > request.deadline:
            request.end(Outcome.LATE, request.deadline)
        else:
            request.end(Outcome.FINISHED, self._clock.now)
