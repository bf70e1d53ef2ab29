"""Load: who asks for what, and when, whatever becomes of those who asked before."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bench.capacity.request import Picture, Request


@dataclass(frozen=True)
class Load:
    """Requests at random moments (Poisson), by tenants of unequal popularity (Zipf).

    Attributes:
        rate: requests a second, on average over a day.
        tenants: how many there are.
        skew: Zipf's exponent: the k-th tenant asks k^-skew as often as the first; 0 for all alike.
        steps: a picture takes one of these.
        pictures: a request has one of these numbers of them.
        lanes: of a picture; 2 with guidance.
        patience: deadline of a request in seconds after it came; None for none.
        swing: the rate goes up and down by this part of it over a day.
        day: seconds of a day.
        burst: times the rate in a burst; 1 for none.
        burst_every, burst_seconds: how often bursts begin, and how long each is.
    """

    rate: float
    tenants: int = 1000
    skew: float = 1.1
    steps: tuple[int, ...] = (30,)
    pictures: tuple[int, ...] = (1,)
    lanes: int = 2
    patience: float | None = None
    swing: float = 0.0
    day: float = 86_400.0
    burst: float = 1.0
    burst_every: float = math.inf
    burst_seconds: float = 0.0

    @property
    def pictures_each(self) -> float:
        """Of a request, on average."""
        return sum(self.pictures) / len(self.pictures)

    @property
    def steps_each(self) -> float:
        """Of a picture, on average."""
        return sum(self.steps) / len(self.steps)

    def rate_at(self, moment: float) -> float:
        """Requests a second at a moment; a day begins at its lowest."""
        swung = 1.0 - self.swing * math.cos(2 * math.pi * moment / self.day)
        # The first burst comes in the middle of its period, not at the very beginning.
        since = (moment + self.burst_every / 2) % self.burst_every if self.burst > 1 else math.inf
        return self.rate * swung * (self.burst if since < self.burst_seconds else 1.0)

    @property
    def most(self) -> float:
        """Requests a second that the rate never exceeds."""
        return self.rate * (1.0 + self.swing) * max(1.0, self.burst)

    def requests(self, seconds: float, chance: np.random.Generator) -> Iterator[Request]:
        """Requests in the order in which they come.

        Args:
            seconds: after which none comes.
            chance: of which all of it is drawn.
        """
        weights = np.arange(1, self.tenants + 1, dtype=float) ** -self.skew
        popularity = np.cumsum(weights / weights.sum())
        names = [f"t{index}" for index in range(self.tenants)]
        moment = 0.0
        while True:
            # Thinning (Lewis, Shedler 1979): of the highest rate's moments, some are kept.
            moment += chance.exponential(1.0 / self.most)
            if moment >= seconds:
                return
            if chance.random() * self.most >= self.rate_at(moment):
                continue
            place = min(int(np.searchsorted(popularity, chance.random())), self.tenants - 1)
            count = self.pictures[chance.integers(len(self.pictures))]
            steps = self.steps[chance.integers(len(self.steps))]
            yield Request(
                names[place],
                moment,
                [Picture(steps, self.lanes) for _ in range(count)],
                None if self.patience is None else moment + self.patience,
            )
