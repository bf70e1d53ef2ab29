"""Admission: a render that cannot be done in time is refused at once, not after waiting in vain."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from perfuse.errors import ResourceExhausted
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.engine.pace import Pace
from perfuse_renderer.engine.render import Place, Queued, Render


class Admission:
    """Decides by what is queued and by how fast the denoiser was.

    Args:
        settings: limits of the queue.
        pace: what steps take.
        clock: seconds, by which deadlines are.
    """

    def __init__(
        self,
        settings: EngineSettings,
        pace: Pace,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._pace = pace
        self._clock = clock

    def admit(
        self, render: Render, places: Sequence[Place], queues: Mapping[str, Sequence[Place]]
    ) -> Queued:
        """Where a render would stand.

        Args:
            render: the new one.
            places: its pictures.
            queues: everyone's pictures, by tenant.

        Raises:
            ResourceExhausted: the queue is full, or the deadline cannot be met; it carries
                `retry_after`.
        """
        own = queues.get(render.tenant, ())
        waiting = sum(len(queue) for queue in queues.values())
        wait, finish = self._forecast(places, own, queues)
        full = (
            waiting + len(places) > self._settings.max_waiting
            or len(own) + len(places) > self._settings.max_waiting_of_tenant
        )
        if full:
            raise _refusal(
                f"{len(own)} pictures of this tenant and {waiting} in all are waiting, which is "
                "the limit. Wait, then call again",
                wait or 1.0,
            )
        remaining = None if render.deadline is None else render.deadline - self._clock()
        if remaining is not None and finish is not None and finish > remaining:
            raise _refusal(
                f"the pictures would be done in {finish:.1f} s, and the deadline is in "
                f"{max(0.0, remaining):.1f} s. Allow more time, or ask for fewer steps or pictures",
                finish - remaining,
            )
        return Queued(waiting, wait or 0.0)

    def _forecast(
        self,
        places: Sequence[Place],
        own: Sequence[Place],
        queues: Mapping[str, Sequence[Place]],
    ) -> tuple[float | None, float | None]:
        """Seconds to the first step and to the end, as the tenant's fair share allows.

        A tenant gets at least one part in as many as there are tenants; and nobody waits longer
        than all the work there is. None before anything of this size was ever stepped.
        """
        lane = self._lane_seconds(places[0])
        if lane is None:
            return None, None
        mine = sum(place.lane_steps for place in own)
        everyone = sum(place.lane_steps for queue in queues.values() for place in queue)
        asked = sum(place.lane_steps for place in places)
        tenants = len(set(queues) | {places[0].render.tenant})
        wait = min(mine * tenants, everyone) * lane
        finish = min((mine + asked) * tenants, everyone + asked) * lane
        # However empty the queue, a picture's steps follow one another.
        alone = self._step_seconds(places[0])
        shortest = max(place.picture.steps for place in places) * alone
        return wait, max(finish, shortest)

    def _lane_seconds(self, place: Place) -> float | None:
        return self._pace.lane_seconds(place.size)

    def _step_seconds(self, place: Place) -> float:
        return self._pace.step_seconds(place.size, place.picture.lanes) or 0.0


def _refusal(text: str, retry_after: float) -> ResourceExhausted:
    error = ResourceExhausted(text)
    error.retry_after = max(0.1, retry_after)
    return error
