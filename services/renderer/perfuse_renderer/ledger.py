"""A ledger: what one base model's renders asked for, what they got, and what is still to be done.

It hears the same events as callers do, so it knows of every backend alike: each step of a row comes
with its part of the denoiser's time, and the parts of all rows, at however many front doors, add up
to the whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from perfuse_renderer.engine.render import Event, Failed, Finished, Stepped
from perfuse_renderer.engine.row import Picture

_WEIGHT = 0.1
"""Of the newest step in the running mean of a lane's seconds."""


class Book(Protocol):
    """What a ledger writes into; `measures.BookOfBase` counts it for Prometheus."""

    def stepped(self, share: float, lanes: int, seconds: float) -> None:
        """A row stepped: its share of a step, its lanes, its part of the denoiser's time."""
        ...

    def waited(self, seconds: float) -> None:
        """A render's first step came so late."""
        ...

    def ended(self, outcome: str, pictures: int) -> None:
        """So many pictures came to one end: `finished`, `failed`, `given_up` or `refused`."""
        ...


class Ledger:
    """Of one base model. Written on the event loop's thread, read on any.

    Args:
        book: is told everything at once; None for nobody.
        clock: seconds.
    """

    def __init__(
        self, book: Book | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._book = book
        self._clock = clock
        self._open: set[Entry] = set()
        self._lane_seconds: dict[tuple[int, int], float] = {}

    def open(self, pictures: Sequence[Picture]) -> Entry:
        """Enter a render; close it at its end, whatever that is."""
        entry = Entry(self, pictures)
        self._open.add(entry)
        return entry

    @property
    def step_seconds(self) -> float:
        """What is still to be stepped, in seconds of the denoiser at the pace last seen."""
        return sum(
            entry.lane_steps * self._lane_seconds.get(entry.size, 0.0)
            for entry in tuple(self._open)
        )

    @property
    def age(self) -> float:
        """Seconds for which the render has waited that waits the longest for its first step."""
        waiting = [entry.arrived for entry in tuple(self._open) if not entry.begun]
        return self._clock() - min(waiting) if waiting else 0.0

    def _hear(self, entry: Entry, lanes: int, event: Stepped) -> None:
        lane = event.seconds / lanes
        before = self._lane_seconds.get(entry.size, lane)
        self._lane_seconds[entry.size] = before + _WEIGHT * (lane - before)
        if self._book is not None:
            self._book.stepped(event.share, lanes, event.seconds)
            if not entry.begun:
                self._book.waited(self._clock() - entry.arrived)

    def _close(self, entry: Entry, ends: dict[str, int]) -> None:
        self._open.discard(entry)
        if self._book is not None:
            for outcome, pictures in ends.items():
                if pictures:
                    self._book.ended(outcome, pictures)


class Entry:
    """One render in a ledger.

    Attributes:
        arrived: when it was entered, by the ledger's clock.
        size: of its pictures.
        begun: whether any of them has stepped.
    """

    def __init__(self, ledger: Ledger, pictures: Sequence[Picture]) -> None:
        self._ledger = ledger
        self._lanes = [picture.lanes for picture in pictures]
        self._left = {index: picture.steps for index, picture in enumerate(pictures)}
        self._ends = dict.fromkeys(("finished", "failed"), 0)
        self._taken = False
        self.arrived = ledger._clock()
        self.size = (pictures[0].height, pictures[0].width)
        self.begun = False

    @property
    def lane_steps(self) -> int:
        """What is left, in lanes times steps."""
        return sum(self._lanes[index] * steps for index, steps in tuple(self._left.items()))

    def hear(self, event: Event) -> None:
        """Take an event of the render's."""
        self._taken = True
        match event:
            case Stepped(index, step, steps):
                self._left[index] = steps - step
                self._ledger._hear(self, self._lanes[index], event)
                self.begun = True
            case Finished(index):
                self._left.pop(index, None)
                self._ends["finished"] += 1
            case Failed(index):
                self._left.pop(index, None)
                self._ends["failed"] += 1

    def close(self) -> None:
        """The render has ended; what did not come was given up, or never taken in."""
        missing = "given_up" if self._taken else "refused"
        self._ledger._close(self, {**self._ends, missing: len(self._left)})
