"""Workers as processes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

import structlog

from perfuse_trainer.runners.runner import new_worker_id


class LocalRunner:
    """Each worker a process of its own, which reads its settings from the environment.

    A worker ends when its standard input does, so that none outlives a Trainer that was killed.

    Args:
        environment: of the workers, beside this process's own.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = {**os.environ, **(environment or {})}
        self._workers: dict[str, tuple[str, subprocess.Popen[bytes]]] = {}
        self._log = structlog.get_logger("perfuse_trainer.runners")

    def start(self, base_model_id: str) -> str:
        """See `Runner.start`."""
        worker_id = new_worker_id()
        command = ["-m", "perfuse_trainer", "work", base_model_id, "--worker-id", worker_id]
        process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            env=self._environment,
            # Signals to the Trainer's group are the Trainer's to pass on.
            start_new_session=True,
        )
        self._workers[worker_id] = (base_model_id, process)
        self._log.info("worker_started", worker=worker_id, base_model=base_model_id)
        return worker_id

    def alive(self) -> dict[str, str]:
        """See `Runner.alive`."""
        for worker_id, (_, process) in list(self._workers.items()):
            code = process.poll()
            if code is not None:
                self._forget(worker_id)
                self._log.info("worker_ended", worker=worker_id, exit_status=code)
        return {worker_id: base for worker_id, (base, _) in self._workers.items()}

    @property
    def processes(self) -> dict[str, int]:
        """Id of a worker → id of its process."""
        return {worker_id: process.pid for worker_id, (_, process) in self._workers.items()}

    def close(self, grace_seconds: float) -> None:
        """See `Runner.close`."""
        for _, process in self._workers.values():
            process.send_signal(signal.SIGTERM)
        until = time.monotonic() + grace_seconds
        for worker_id, (_, process) in list(self._workers.items()):
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._log.warning("worker_killed", worker=worker_id)
                process.kill()
                process.wait()
            self._forget(worker_id)

    def _forget(self, worker_id: str) -> None:
        _, process = self._workers.pop(worker_id)
        if process.stdin is not None:
            process.stdin.close()
