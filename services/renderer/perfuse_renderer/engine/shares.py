"""Fair shares of the denoiser: who steps next, counted in seconds of stepping.

Start-time fair queueing (Goyal, Vin, Cheng 1996): every tenant has a virtual time, the seconds of
the denoiser that it was given. Whoever has had least goes next. A tenant that comes back starts at
the least of those present when the step began that it came in, so that idleness saves nothing up.
Since a row may wait between any two of its steps, this holds for every single step, not only for
the order in which rows begin.

Who goes first says nothing of how long a step takes that is shared with others. So every tenant
also has what it is owed: the seconds that it has waited beyond what its steps would have taken with
the denoiser divided evenly.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping


class Shares:
    """Virtual times of tenants, in seconds."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self._present: set[str] = set()
        self._floor = 0.0
        self._owed: dict[str, float] = {}
        self._last_step = 0.0

    def present(self, tenants: Collection[str]) -> None:
        """Say who has something to do from now on; the others' shares lapse."""
        for tenant in tenants:
            if tenant not in self._present:
                self._times[tenant] = max(self._times.get(tenant, 0.0), self._floor)
        if tenants:
            self._floor = max(self._floor, min(self._times[tenant] for tenant in tenants))
        # Whoever came during a step has waited for its end, at most as long as it took.
        self._owed = {tenant: self._owed.get(tenant, self._last_step) for tenant in tenants}
        self._present = set(tenants)
        # A tenant far behind the floor would be raised to it anyway.
        self._times = {
            tenant: time
            for tenant, time in self._times.items()
            if tenant in self._present or time > self._floor
        }

    def order(self, tenants: Collection[str], planned: dict[str, float] | None = None) -> list[str]:
        """Tenants by what they had, least first; `planned` seconds count as if they were given."""
        ahead = planned or {}
        return sorted(
            tenants,
            key=lambda tenant: (self._times.get(tenant, 0.0) + ahead.get(tenant, 0.0), tenant),
        )

    def charge(self, tenant: str, seconds: float) -> None:
        """Count `seconds` of the denoiser as given."""
        self._times[tenant] = self._times.get(tenant, self._floor) + seconds

    def elapse(self, seconds: float, due: Mapping[str, float]) -> None:
        """Count a step that took `seconds`.

        Args:
            seconds: that all who are present have waited.
            due: tenant → seconds that its part of the step may take, for those who had one.
        """
        self._last_step = seconds
        for tenant, owed in self._owed.items():
            # Nothing is saved up; and alone there is nobody to wait for.
            alone = len(self._owed) == 1
            self._owed[tenant] = 0.0 if alone else max(0.0, owed + seconds - due.get(tenant, 0.0))

    def owed(self, tenant: str) -> float:
        """Seconds that a tenant has waited beyond its due."""
        return self._owed.get(tenant, 0.0)

    def time(self, tenant: str) -> float:
        """A tenant's virtual time."""
        return self._times.get(tenant, self._floor)
