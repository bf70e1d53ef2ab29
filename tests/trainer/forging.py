"""A runner whose workers are forked in a moment: real processes, to be killed by the dozen."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from perfuse_trainer.runners.runner import new_worker_id
from trainer.forge import Forge

_IMPATIENT = {"PERFUSE_TRAINER_STALL_SECONDS": "1"}


class ForgeRunner:
    """Workers as forks of one process that has imported everything already.

    Args:
        environment: with the Trainer's settings.
        forge: of workers.

    Attributes:
        hang: whether workers started from now on come no further than their first step.
    """

    def __init__(self, environment: dict[str, str], forge: Forge) -> None:
        self.hang = False
        self._environment, self._forge = environment, forge
        self._workers: dict[str, tuple[str, int]] = {}

    def start(self, base_model_id: str) -> str:
        worker_id = new_worker_id()
        pid = self._forge.fork(
            worker=worker_id,
            base_model=base_model_id,
            environment=self._environment | (_IMPATIENT if self.hang else {}),
            hang=self.hang,
        )
        self._workers[worker_id] = (base_model_id, pid)
        return worker_id

    def alive(self) -> dict[str, str]:
        for worker_id, (_, pid) in list(self._workers.items()):
            if self._forge.status(pid) is not None:
                # The foreman's thread asks too.
                self._workers.pop(worker_id, None)
        return {worker_id: base for worker_id, (base, _) in list(self._workers.items())}

    @property
    def pids(self) -> list[int]:
        alive = self.alive()
        return [pid for worker_id, (_, pid) in list(self._workers.items()) if worker_id in alive]

    def close(self, grace_seconds: float) -> None:
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + grace_seconds
        while self.pids and time.monotonic() < until:
            time.sleep(0.02)
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            self._forge.wait(pid)
