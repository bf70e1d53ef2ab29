"""Renders whose events are kept, and can be waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import torch

from perfuse.errors import PerfuseError
from perfuse_renderer.engine.render import (
    Ended,
    Event,
    Failed,
    Finished,
    Previewed,
    Queued,
    Render,
    Stepped,
)
from perfuse_renderer.engine.row import Picture


class Listener:
    """Every event of one render, in order, with the moment it came."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.moments: list[float] = []
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._changed:
            self.events.append(event)
            self.moments.append(time.monotonic())
            self._changed.notify_all()

    def wait_for(self, done: Any, seconds: float = 60.0) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: done(self), seconds), self.events[-5:]

    def wait(self, seconds: float = 60.0) -> Listener:
        """Until it ended."""
        self.wait_for(lambda listener: listener.ended, seconds)
        return self

    @property
    def ended(self) -> bool:
        return bool(self.events) and isinstance(self.events[-1], Ended)

    @property
    def error(self) -> PerfuseError | None:
        last = self.events[-1]
        assert isinstance(last, Ended)
        return last.error

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def queued(self) -> Queued:
        (first,) = self.of(Queued)
        return first  # type: ignore[no-any-return]

    @property
    def steps(self) -> list[Stepped]:
        return self.of(Stepped)

    @property
    def previews(self) -> list[Previewed]:
        return self.of(Previewed)

    @property
    def failures(self) -> dict[int, PerfuseError]:
        return {event.index: event.error for event in self.of(Failed)}

    @property
    def pictures(self) -> dict[int, torch.Tensor]:
        return {event.index: event.pixels for event in self.of(Finished)}


def render(tenant: str, pictures: Sequence[Picture], **settings: Any) -> tuple[Render, Listener]:
    listener = Listener()
    return Render(tenant, pictures, listener, **settings), listener
