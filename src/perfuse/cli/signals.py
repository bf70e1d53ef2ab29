"""Signals that tell a command to end, heard when it is ready to hear them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from types import FrameType

__all__ = ["Signals"]


class Signals:
    """SIGINT, SIGTERM and SIGHUP, heard one by one while the context lasts."""

    def __init__(self) -> None:
        # Of all queues, the one that a handler may put into at any moment.
        self._told: SimpleQueue[int] = SimpleQueue()

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Nothing but this hears them."""
        numbers = [signal.SIGINT, signal.SIGTERM]
        # Whoever ignores it, as `nohup` has it, goes on.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._hear) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def came(self, seconds: float) -> bool:
        """Whether one came, within so many seconds."""
        try:
            self._told.get(timeout=seconds)
        except Empty:
            return False
        return True

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._told.put(number)
