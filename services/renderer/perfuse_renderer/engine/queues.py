"""Who waits, who has begun, and who steps next."""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence

from perfuse.errors import DeadlineExceeded, PerfuseError
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.engine.pace import Pace, Size
from perfuse_renderer.engine.render import Place, Render
from perfuse_renderer.engine.shares import Shares

_FIRST_GUESS = 0.01
"""Seconds of a lane's step before any was measured; only ratios matter until then."""


class Queues:
    """Every tenant's pictures in the order in which they came, until they end.

    Holds no lock of its own; the engine's guards it.

    Args:
        settings: limits.
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
        self._shares = Shares()
        self._by_tenant: dict[str, deque[Place]] = defaultdict(deque)

    def __bool__(self) -> bool:
        return bool(self._by_tenant)

    @property
    def by_tenant(self) -> Mapping[str, Sequence[Place]]:
        """Places that have not ended; no tenant without one."""
        return self._by_tenant

    @property
    def running(self) -> int:
        """Pictures that have begun."""
        return sum(place.row is not None for queue in self._by_tenant.values() for place in queue)

    @property
    def waiting(self) -> int:
        """Pictures that have not."""
        return sum(place.row is None for queue in self._by_tenant.values() for place in queue)

    def add(self, places: Sequence[Place]) -> None:
        """Let places of one tenant queue."""
        self._by_tenant[places[0].render.tenant].extend(places)

    def remove(self, place: Place) -> None:
        """Let one go, if it is here."""
        tenant = place.render.tenant
        queue = self._by_tenant.get(tenant)
        if queue is not None and place in queue:
            queue.remove(place)
            if not queue:
                del self._by_tenant[tenant]

    def drop_lost(self) -> None:
        """Let go what was cancelled, is past its deadline or has ended, and end it."""
        moment = self._clock()
        for queue in list(self._by_tenant.values()):
            for place in [place for place in queue if _is_lost(place.render, moment)]:
                self.remove(place)
                place.render.give_up(
                    DeadlineExceeded(
                        "the render's deadline passed before all its pictures were done"
                    )
                )
        self._shares.present(self._by_tenant)

    def give_all_up(self, error: PerfuseError) -> None:
        """End everything."""
        for queue in self._by_tenant.values():
            for place in queue:
                place.render.give_up(error)
        self._by_tenant.clear()

    def choose(self, max_lanes: int) -> list[Place]:
        """The rows of the next step: of one shape, fairly by tenant, each tenant's oldest first.

        The batch is full, unless that would make the step longer than a tenant with few rows need
        bear: its pictures take at most as many times as long as alone as there are tenants. A row
        of everyone who would bear no longer step either is in the batch all the same: waiting for
        the others' turns, one after the other, would take each of them longer.
        """
        left = {tenant: deque(queue) for tenant, queue in self._by_tenant.items()}
        bearable = self._bearable(max_lanes)
        longest = min(bearable.values(), default=math.inf)
        begun = self.running
        chosen: list[Place] = []
        lanes, planned = 0, defaultdict[str, float](float)
        while left:
            tenant = self._shares.order(left, planned)[0]
            place = left[tenant].popleft()
            if not left[tenant]:
                del left[tenant]
            if chosen and place.shape != chosen[0].shape:
                continue
            if lanes and lanes + place.picture.lanes > max_lanes:
                continue
            with_it = self._step_seconds(place.size, lanes + place.picture.lanes)
            waits_as_long = tenant not in planned and with_it > bearable.get(tenant, math.inf)
            if chosen and with_it > longest and not waits_as_long:
                left.pop(tenant, None)
                continue
            if place.row is None:
                if begun >= self._settings.max_begun:
                    continue
                begun += 1
            chosen.append(place)
            lanes += place.picture.lanes
            seconds = self._pace.lane_seconds(place.size) or _FIRST_GUESS
            planned[tenant] += seconds * place.picture.lanes
            if lanes >= max_lanes:
                break
        return chosen

    def charge(self, places: Sequence[Place], seconds: float, lanes: int) -> None:
        """Count a step's seconds to the tenants of its rows."""
        own: dict[str, int] = defaultdict(int)
        for place in places:
            own[place.render.tenant] += place.picture.lanes
        tenants, size = len(self._by_tenant), places[0].size
        for tenant, count in own.items():
            self._shares.charge(tenant, seconds * count / lanes)
        self._shares.elapse(
            seconds,
            {tenant: tenants * self._step_seconds(size, count) for tenant, count in own.items()},
        )

    def _bearable(self, max_lanes: int) -> dict[str, float]:
        """Tenant → seconds that the next step may take for its sake; nothing where one is alone."""
        tenants = len(self._by_tenant)
        if tenants < 2:
            return {}
        found = {}
        for tenant, queue in self._by_tenant.items():
            lanes = sum(place.picture.lanes for place in queue)
            # 0 for a size that never stepped: there is nothing to compare with yet.
            if alone := self._step_seconds(queue[0].size, min(lanes, max_lanes)):
                found[tenant] = max(alone, tenants * alone - self._shares.owed(tenant))
        return found

    def _step_seconds(self, size: Size, lanes: int) -> float:
        return self._pace.step_seconds(size, lanes) or 0.0


def _is_lost(render: Render, moment: float) -> bool:
    late = render.deadline is not None and moment >= render.deadline
    return render.cancelled or render.ended or late
