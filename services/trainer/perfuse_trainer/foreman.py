"""The foreman: keeps as many workers as the queue needs, and clears up behind them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from perfuse.errors import PerfuseError
from perfuse_trainer.measures import Measures
from perfuse_trainer.runners.runner import Runner, RunnerLost
from perfuse_trainer.runs.publisher import Publisher
from perfuse_trainer.runs.run_queue import Queue
from perfuse_trainer.runs.staff import Staff
from perfuse_trainer.vault import Vault

_PAUSE = 0.5


class Foreman:
    """Turns until it is stopped: reap, publish, start workers, sweep.

    It keeps nothing: another Trainer's foreman on the same tables does no harm, and one that was
    killed leaves nothing undone that the next one does not do. Together they start as many workers
    as the runs need (`staff`).

    Args:
        queue: Of runs.
        runner: Of workers.
        publisher: Of finished runs.
        vault: Of runs' files.
        sweep: Removes what expired and what nothing refers to.
        staff: Of all Trainers on these tables.
        workers: Most at a time, of this one.
        pack: Runs of one worker.
        base_models: Ids of those that workers have.
        measures: Count the workers.
        sweep_seconds: Between two sweeps.
        on_lost: Called when the runner is lost for good; nothing turns from then on.
        chores: Done in each round; each knows when it is due.

    Attributes:
        lost: How the runner was lost, if it was.
    """

    def __init__(
        self,
        queue: Queue,
        runner: Runner,
        publisher: Publisher,
        vault: Vault,
        sweep: Callable[[], object],
        staff: Staff,
        *,
        workers: int,
        pack: int,
        base_models: frozenset[str],
        measures: Measures | None = None,
        sweep_seconds: float = 600.0,
        on_lost: Callable[[], None] = lambda: None,
        chores: Sequence[Callable[[], Awaitable[None]]] = (),
    ) -> None:
        self.lost: RunnerLost | None = None
        self._on_lost, self._chores = on_lost, tuple(chores)
        self._queue, self._runner, self._publisher = queue, runner, publisher
        self._vault, self._sweep, self._sweep_seconds = vault, sweep, sweep_seconds
        self._staff = staff
        self._workers, self._pack, self._base_models = workers, pack, base_models
        self._measures = measures or Measures()
        self._measures.places.set(workers * pack)
        self._swept = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("perfuse_trainer.foreman")

    def start(self) -> None:
        """Begin, on the running loop."""
        self._task = asyncio.create_task(self._run())

    async def stop(self, grace_seconds: float) -> None:
        """End, and have the workers keep what they have and end too."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await asyncio.to_thread(self._runner.close, grace_seconds)
        with contextlib.suppress(PerfuseError):
            # Else it is noticed a little later.
            await asyncio.to_thread(self._staff.leave)

    async def turn(self) -> None:
        """One round."""
        for tenant, blob in await asyncio.to_thread(self._queue.reap):
            await asyncio.to_thread(self._vault.drop, tenant, [blob])
        for chore in self._chores:
            with self._told():
                await chore()
        await self._publisher.publish()
        await asyncio.to_thread(self._hire)
        if time.monotonic() - self._swept > self._sweep_seconds:
            self._swept = time.monotonic()
            await asyncio.to_thread(self._sweep)

    def _hire(self) -> None:
        own = Counter(self._runner.alive().values())
        needed = {
            base_model_id: -(-runs // self._pack)
            for base_model_id, runs in self._queue.length().items()
            if base_model_id in self._base_models
        }
        hired = self._staff.hire(own, needed, self._workers - own.total())
        for base_model_id in hired:
            self._runner.start(base_model_id)
        self._measures.staffed(own.total() + len(hired))

    async def _run(self) -> None:
        while True:
            with self._told():
                await self.turn()
            if self.lost is not None:
                self._on_lost()
                return
            await asyncio.sleep(_PAUSE)

    @contextlib.contextmanager
    def _told(self) -> Any:
        """What one round met must not end the rounds."""
        try:
            yield
        except RunnerLost as error:
            self._log.error("runner_lost", problem=str(error))
            self.lost = error
        except Exception as error:
            self._log.error("foreman_fault", exc_info=error)
