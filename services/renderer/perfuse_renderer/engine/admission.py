"""Admission: a render that cannot be done in time is refused at once, not after waiting in vain."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from perfuse.errors import ResourceExhausted
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.engine.pace import Pace
from perfuse_renderer.engine.render import Place, Queued, Render

_RECENT = 10
"""Pictures alone, in whose time at least it is counted what came of late."""
_MORE = 1.1
"""Times what came of late: who is taken in just in time is late whenever more comes."""
_MOST_COMING = 0.75
"""Of the denoiser: what is taken from what is there by what may come, at most."""
_REMEMBERED = 1024
"""Renders of which it is known when they came."""


class Admission:
    """Decides by what is queued, by what came of late, and by how fast the denoiser was.

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
        self._came: deque[tuple[float, str, int]] = deque(maxlen=_REMEMBERED)

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
        asked = sum(place.lane_steps for place in places)
        self._came.append((self._clock(), render.tenant, asked))
        return Queued(waiting, wait or 0.0)

    def _forecast(
        self,
        places: Sequence[Place],
        own: Sequence[Place],
        queues: Mapping[str, Sequence[Place]],
    ) -> tuple[float | None, float | None]:
        """Seconds to the first step and to the end, as the tenant's fair share allows.

        While a tenant has pictures, each other one gets as much as it, or all that it wants. So the
        new pictures wait for no more of another's than they and those before them take, and for
        what comes meanwhile, as if a little more went on coming than came of late. None before
        anything of this size was ever stepped.
        """
        lane = self._lane_seconds(places[0])
        if lane is None:
            return None, None
        tenant = places[0].render.tenant
        mine = sum(place.lane_steps for place in own)
        asked = sum(place.lane_steps for place in places)
        others = [
            sum(place.lane_steps for place in queue)
            for name, queue in queues.items()
            if name != tenant
        ]
        wait = (mine + sum(min(mine, each) for each in others)) * lane
        whole = mine + asked
        finish = (whole + sum(min(whole, each) for each in others)) * lane
        # However empty the queue, a picture's steps follow one another.
        alone = self._step_seconds(places[0])
        shortest = max(place.picture.steps for place in places) * alone
        coming = self._coming(tenant, whole, max(finish, _RECENT * shortest)) * lane
        return wait, max(finish / (1 - min(coming, _MOST_COMING)), shortest)

    def _coming(self, tenant: str, whole: int, seconds: float) -> float:
        """Lane-steps a second of others' that go before `whole` of a tenant's.

        Of what comes when a part x of the whole is left, at most that much goes before the rest of
        it; on average over x from 0 to 1 that is part - part² / (2 whole), part being what comes or
        the whole, whichever is less.
        """
        since = self._clock() - seconds
        before = 0.0
        for moment, name, lane_steps in reversed(self._came):
            if moment < since:
                break
            part = min(lane_steps, whole)
            before += part - part * part / (2 * whole) if name != tenant else 0.0
        return _MORE * before / seconds

    def _lane_seconds(self, place: Place) -> float | None:
        return self._pace.lane_seconds(place.size)

    def _step_seconds(self, place: Place) -> float:
        return self._pace.step_seconds(place.size, place.picture.lanes) or 0.0


def _refusal(text: str, retry_after: float) -> ResourceExhausted:
    error = ResourceExhausted(text)
    error.retry_after = max(0.1, retry_after)
    return error
