"""How fast the denoiser is, learned from its steps: what an admission is decided by."""

from __future__ import annotations

from collections.abc import Mapping

Size = tuple[int, int]
"""Height and width in pixels."""

_WEIGHT = 0.2
"""Of the newest measurement in the running mean."""


class Pace:
    """Seconds of a step by picture size and lanes."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[Size, int], float] = {}

    def learn(self, size: Size, lanes: int, seconds: float) -> None:
        """Take one measured step."""
        key = (size, lanes)
        before = self._seconds.get(key)
        mixed = seconds if before is None else before + _WEIGHT * (seconds - before)
        self._seconds[key] = mixed

    def step_seconds(self, size: Size, lanes: int) -> float | None:
        """What a step takes: as measured, or in proportion between two numbers of lanes measured.

        Beyond the most lanes it grows with them; fewer than the fewest take as long as those. None
        before the first step.
        """
        known = {count: seconds for (at, count), seconds in self._seconds.items() if at == size}
        if not known:
            return None
        below = max((count for count in known if count <= lanes), default=None)
        above = min((count for count in known if count >= lanes), default=None)
        if below is None:
            return min(known.items())[1]
        if above is None:
            return known[below] * lanes / below
        share = (lanes - below) / (above - below) if above > below else 0.0
        return known[below] + share * (known[above] - known[below])

    def lane_seconds(self, size: Size) -> float | None:
        """Seconds of one lane's step in the fullest batch seen; None before the first step."""
        known = {count: seconds for (at, count), seconds in self._seconds.items() if at == size}
        if not known:
            return None
        fullest = max(known)
        return known[fullest] / fullest

    def table(self) -> Mapping[tuple[Size, int], float]:
        """Everything learned."""
        return dict(self._seconds)
