"""A runner whose workers are forked in a moment: real processes, to be killed by the dozen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from perfuse_trainer.runners.runner import new_worker_id

SECONDS = 60.0


class ForgeRunner:
    """Workers as forks of one process that has imported everything already.

    Args:
        environment: with the Trainer's settings.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker_forge.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        self._news = threading.Condition()
        self._workers: dict[str, tuple[str, int]] = {}
        self._started: dict[str, int] = {}
        self.deaths = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self, base_model_id: str) -> str:
        worker_id = new_worker_id()
        order = {
            "worker": worker_id,
            "base_model": base_model_id,
            "environment": self._environment,
        }
        assert self._process.stdin is not None
        with self._news:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            assert self._news.wait_for(lambda: worker_id in self._started, SECONDS)
            self._workers[worker_id] = (base_model_id, self._started.pop(worker_id))
        return worker_id

    def alive(self) -> dict[str, str]:
        with self._news:
            return {worker_id: base for worker_id, (base, _) in self._workers.items()}

    @property
    def pids(self) -> list[int]:
        with self._news:
            return [pid for _, pid in self._workers.values()]

    def close(self, grace_seconds: float) -> None:
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + grace_seconds
        while self.pids and time.monotonic() < until:
            time.sleep(0.02)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            news = json.loads(line)
            with self._news:
                if "worker" in news:
                    self._started[news["worker"]] = news["pid"]
                else:
                    self.deaths += 1
                    self._workers = {
                        worker_id: (base, pid)
                        for worker_id, (base, pid) in self._workers.items()
                        if pid != news["pid"]
                    }
                self._news.notify_all()
