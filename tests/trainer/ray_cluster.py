"""A Ray cluster of several nodes, real processes all, whose nodes are killed and replaced."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil


class RayCluster:
    """A head without CPUs, and nodes with one CPU each.

    Args:
        nodes: how many, beside the head.

    Attributes:
        address: to join it at.
        environment: what whoever joins it needs.
        head: process id of the head's raylet, which whoever joins from here depends on.
        raylets: process ids of the raylets of the nodes.
    """

    def __init__(self, nodes: int) -> None:
        # A socket's path has 107 bytes at most.
        self._home = tempfile.mkdtemp(prefix="perfuse-ray-")
        self.environment = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        quick = {
            # A dead node is to be noticed in seconds, not in half a minute.
            "RAY_health_check_initial_delay_ms": "1000",
            "RAY_health_check_period_ms": "500",
            "RAY_health_check_timeout_ms": "5000",
            "RAY_enable_metrics_collection": "0",
            "RAY_worker_niceness": "0",
        }
        with open(Path(self._home) / "host.log", "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("ray_host.py")), self._home],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | self.environment | quick,
                # Its session is how all that hangs on it is found.
                start_new_session=True,
            )
        self._asking = threading.Lock()
        head = self._ask("address")
        self.address, self.head = str(head["address"]), int(head["raylet"])
        self.raylets = [self._ask("add")["raylet"] for _ in range(nodes)]

    def workers(self) -> list[psutil.Process]:
        """Processes of actors that train."""
        found = []
        for raylet in self.raylets:
            with suppress(psutil.Error):
                found += psutil.Process(raylet).children()
        return [process for process in found if _is_worker(process)]

    def kill_node(self, raylet: int) -> None:
        """Kill one node's raylet, which all that runs on the node ends with."""
        self.raylets.remove(raylet)
        psutil.Process(raylet).kill()
        self._removed = raylet

    def replace(self) -> None:
        """Have another node join for the one that was killed last."""
        self._ask("remove", raylet=self._removed)
        self.raylets.append(self._ask("add")["raylet"])

    def free(self) -> dict[str, float]:
        """`cpus` of the nodes, those that are `free`, and how many `actors` live or shall."""
        return self._ask("free")

    def processes(self) -> list[psutil.Process]:
        """All that the cluster started and that still runs, wherever it hangs."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                ours = os.getsid(process.pid) == self._process.pid
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def log(self) -> str:
        """What the host wrote."""
        return (Path(self._home) / "host.log").read_text()[-4000:]

    def close(self) -> None:
        """End every process."""
        if self._process.poll() is None:
            with suppress(OSError, AssertionError):
                self._ask("close")
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def _ask(self, what: str, **details: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._asking:
            self._process.stdin.write(json.dumps({"do": what, **details}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, self.log()
        found: dict[str, Any] = json.loads(answer)
        return found


def _is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "ray::WorkerActor" in " ".join(process.cmdline())
    return False
