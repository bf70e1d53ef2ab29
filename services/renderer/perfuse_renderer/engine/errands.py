"""Work that must be done on the engine's own thread, between two steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

Errand = Callable[[], None]


class Errands:
    """What is waiting to be run, first come first served.

    Holds no lock of its own; the engine's guards it, but for `run`.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Errand, Future[None]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, errand: Errand) -> Future[None]:
        """Let one wait; the result tells when it is done, or what went wrong."""
        done: Future[None] = Future()
        self._waiting.append((errand, done))
        return done

    def take(self) -> tuple[Errand, Future[None]] | None:
        """The next one, for `run`; None where there is none."""
        return self._waiting.popleft() if self._waiting else None

    def give_all_up(self, error: Exception) -> None:
        """Let everyone who waits know that it will not be done."""
        while taken := self.take():
            taken[1].set_exception(error)

    @staticmethod
    def run(errand: Errand, done: Future[None]) -> None:
        """Do it, and tell whoever waits."""
        try:
            errand()
        except Exception as error:
            done.set_exception(error)
        else:
            done.set_result(None)
