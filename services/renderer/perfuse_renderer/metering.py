"""What tenants have had of the Renderer within the last minute, held to their quotas.

Counted at this front door, in memory: several count each for itself, and a new one begins at zero.
Pictures are counted when their render is taken in. Step-seconds can only be counted when they were
spent, so a tenant may go beyond that quota with what was taken in before; then it waits until the
minute that it looks back on has room again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from perfuse.quotas import Quotas, exceeded

IMAGES = "images_per_minute"
STEP_SECONDS = "step_seconds_per_minute"
MINUTE = 60.0
_GRAIN = 1.0
"""Seconds within which what is counted counts as counted at once."""


@dataclass(frozen=True, slots=True)
class Used:
    """How much of a quota is used; `limit` is None where there is none."""

    quota: str
    used: float
    limit: float | None


class Meter:
    """Counts for every tenant, on one thread.

    Args:
        quotas: What tenants may have in a minute.
        clock: Seconds.
    """

    def __init__(self, quotas: Quotas, clock: Callable[[], float] = time.monotonic) -> None:
        self._quotas = quotas
        self._clock = clock
        self._counts: dict[tuple[str, str], deque[tuple[float, float]]] = {}

    def require(self, tenant: str, images: int) -> None:
        """See that a render may be taken in.

        Args:
            tenant: Whose.
            images: That it asks for.

        Raises:
            QuotaExceeded: with them the tenant would have more than it may, or it has had the
                denoiser for as long as it may.
        """
        limit = self._quotas.limit(tenant, IMAGES)
        if limit is not None and self._used(tenant, IMAGES) + images > limit:
            fits = images <= limit
            raise exceeded(
                tenant,
                IMAGES,
                limit,
                "Wait, then call again"
                if fits
                else f"A render of {images} pictures never fits; ask for fewer",
                self._wait(tenant, IMAGES, limit - images) if fits else None,
            )
        limit = self._quotas.limit(tenant, STEP_SECONDS)
        if limit is not None and self._used(tenant, STEP_SECONDS) >= limit:
            raise exceeded(
                tenant,
                STEP_SECONDS,
                limit,
                "Wait, then call again",
                # Nothing fits into none at all.
                self._wait(tenant, STEP_SECONDS, limit) if limit else None,
            )

    def take(self, tenant: str, images: int) -> None:
        """Count a render's pictures.

        Raises:
            QuotaExceeded: as `require`.
        """
        self.require(tenant, images)
        self._count(tenant, IMAGES, images)

    def spend(self, tenant: str, seconds: float) -> None:
        """Count seconds of the denoiser."""
        self._count(tenant, STEP_SECONDS, seconds)

    def used(self, tenant: str) -> list[Used]:
        """What a tenant has had within the last minute, by quota."""
        return [
            Used(quota, self._used(tenant, quota), self._quotas.limit(tenant, quota))
            for quota in (IMAGES, STEP_SECONDS)
        ]

    def _count(self, tenant: str, quota: str, amount: float) -> None:
        moment = self._clock()
        if (tenant, quota) not in self._counts:
            self._forget()
        counts = self._counts.setdefault((tenant, quota), deque())
        if counts and moment - counts[-1][0] < _GRAIN:
            counts[-1] = (counts[-1][0], counts[-1][1] + amount)
        else:
            counts.append((moment, amount))

    def _used(self, tenant: str, quota: str) -> float:
        counts = self._counts.get((tenant, quota), deque())
        begin = self._clock() - MINUTE - _GRAIN
        while counts and counts[0][0] <= begin:
            counts.popleft()
        return sum(amount for _, amount in counts)

    def _wait(self, tenant: str, quota: str, most: float) -> float:
        """Seconds until the tenant has had no more than `most`."""
        left = self._used(tenant, quota)
        for began, amount in self._counts.get((tenant, quota), ()):
            left -= amount
            if left <= most:
                return max(0.1, began + MINUTE + _GRAIN - self._clock())
        return MINUTE

    def _forget(self) -> None:
        """Let go of tenants that have had nothing for a minute."""
        for tenant, quota in list(self._counts):
            if not self._used(tenant, quota):
                del self._counts[tenant, quota]
