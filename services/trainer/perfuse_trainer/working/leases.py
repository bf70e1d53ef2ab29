"""A worker's leases: which it holds and until when, renewed on a thread while it moves."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from perfuse.errors import PerfuseError
from perfuse_trainer.runs.claims import Claim, Claims

_log = logging.getLogger(__name__)


class Leases:
    """What a worker holds, by its own clock, which is never later than the tables'.

    Args:
        worker_id: whose they are.
        claims: to renew them with.
        stall_seconds: without `moved` for so long, none is renewed any more.
        on_stall: called then, on the renewing thread; the worker may never come back to be told.
    """

    def __init__(
        self,
        worker_id: str,
        claims: Claims,
        stall_seconds: float,
        on_stall: Callable[[], object] = lambda: None,
    ) -> None:
        self._worker_id, self._claims, self._on_stall = worker_id, claims, on_stall
        self._stall_seconds = stall_seconds
        self._seconds = claims.lease.total_seconds()
        self._until: dict[int, float] = {}
        self._lock = threading.Lock()
        self._moved = time.monotonic()

    def moved(self) -> None:
        """The worker does not hang."""
        self._moved = time.monotonic()

    def hold(self, claim: Claim) -> None:
        """A lease was got, or made to last anew, just now."""
        with self._lock:
            self._until[claim.run] = time.monotonic() + self._seconds

    def forget(self, claim: Claim) -> None:
        """Renew this one no more."""
        with self._lock:
            self._until.pop(claim.run, None)

    def is_over(self, claim: Claim) -> bool:
        """Whether another may hold the run by now."""
        with self._lock:
            return time.monotonic() >= self._until.get(claim.run, 0.0)

    @contextmanager
    def renewing(self) -> Iterator[None]:
        """Renew meanwhile: opening a run or a step may take longer than a lease."""
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(self._seconds / 4):
                # Of a worker that hangs another shall go on with the runs.
                if time.monotonic() - self._moved > self._stall_seconds:
                    self._on_stall()
                else:
                    self._renew()

        thread = threading.Thread(target=renew, name="perfuse-leases", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _renew(self) -> None:
        with self._lock:
            runs = list(self._until)
        began = time.monotonic()
        try:
            kept = self._claims.renew(self._worker_id, runs)
        except PerfuseError as error:
            _log.warning("leases cannot be renewed: %s", error)
            return
        with self._lock:
            for run in kept & set(self._until):
                self._until[run] = began + self._seconds
