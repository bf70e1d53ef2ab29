"""Workers as actors of a Ray cluster, each asking for a device of its own where there are any."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from typing import Any

import ray
import structlog
from ray.exceptions import RayError

from perfuse.serving.cluster import join
from perfuse_trainer.runners.runner import RunnerLost, new_worker_id


class WorkerActor:
    """One worker in a process of Ray's.

    Args:
        environment: with the Trainer's settings.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)
        self._stop = threading.Event()

    def work(self, base_model_id: str, worker_id: str) -> None:
        """Train until told to stop, or idle for long."""
        from perfuse_trainer.working.working import work

        work(base_model_id, worker_id, self._stop)

    def stop(self) -> None:
        """Have `work` come to its end."""
        self._stop.set()

    def process(self) -> int:
        """Of the actor, for tests and for people."""
        return os.getpid()


class RayRunner:
    """Each worker an actor, never restarted by Ray: the queue takes its runs up again.

    An actor that finds no room waits in Ray, which is what has its autoscaler add a node. Actors
    end with this process, even if that is killed.

    Args:
        address: of a cluster; None starts one for this process alone.
        environment: of the workers: the Trainer's settings, less what they have no use for.
        device: of the workers; with `cuda` each asks for one GPU.
    """

    def __init__(
        self, address: str | None, environment: Mapping[str, str], device: str = "cpu"
    ) -> None:
        self.owned = address is None and not ray.is_initialized()
        if not ray.is_initialized():
            join(address, "PERFUSE_TRAINER_RAY_ADDRESS")
        self._node = ray.get_runtime_context().get_node_id()
        self._environment = dict(environment)
        options: dict[str, Any] = {
            "max_restarts": 0,
            "max_task_retries": 0,
            # One for `work`, which lasts, and the others for calls beside it.
            "max_concurrency": 3,
            "num_gpus" if device.startswith("cuda") else "num_cpus": 1,
        }
        remote: Any = ray.remote
        self._made = remote(**options)(WorkerActor)
        self._workers: dict[str, tuple[str, Any, Any]] = {}
        self._log = structlog.get_logger("perfuse_trainer.runners")

    def start(self, base_model_id: str) -> str:
        """See `Runner.start`."""
        worker_id = new_worker_id()
        actor = self._made.remote(self._environment)
        ended = actor.work.remote(base_model_id, worker_id)
        self._workers[worker_id] = (base_model_id, actor, ended)
        self._log.info("worker_started", worker=worker_id, base_model=base_model_id)
        return worker_id

    def alive(self) -> dict[str, str]:
        """See `Runner.alive`."""
        # Of a process whose own node died Ray ends all actors, and starts no more.
        if not any(node["Alive"] and node["NodeID"] == self._node for node in _nodes()):
            lost = "Ray that was started with" if self.owned else "node of Ray's under"
            raise RunnerLost(
                f"the {lost} this Trainer has died. Start the Trainer again; its runs go on"
            )
        waits = {ended: worker_id for worker_id, (_, _, ended) in self._workers.items()}
        if waits:
            done, _ = ray.wait(list(waits), num_returns=len(waits), timeout=0)
            for ended in done:
                self._bury(waits[ended])
        return {worker_id: base for worker_id, (base, _, _) in self._workers.items()}

    def process(self, worker_id: str) -> int:
        """Id of a worker's process."""
        return int(ray.get(self._workers[worker_id][1].process.remote()))

    def close(self, grace_seconds: float) -> None:
        """See `Runner.close`."""
        for _, actor, _ in self._workers.values():
            with contextlib.suppress(RayError):
                actor.stop.remote()
        ends = [ended for _, _, ended in self._workers.values()]
        if ends:
            ray.wait(ends, num_returns=len(ends), timeout=grace_seconds)
        for worker_id in list(self._workers):
            self._bury(worker_id)
        if self.owned:
            ray.shutdown()

    def _bury(self, worker_id: str) -> None:
        """Forget a worker; its process, which holds the device's memory, ends with it."""
        _, actor, ended = self._workers.pop(worker_id)
        problem = None
        try:
            ray.get(ended, timeout=0)
        except RayError as error:
            problem = type(error).__name__
        except Exception as error:
            problem = str(error).splitlines()[0][:200]
        ray.kill(actor)
        self._log.info("worker_ended", worker=worker_id, problem=problem)


def _nodes() -> list[dict[str, Any]]:
    untyped: Any = ray
    nodes: list[dict[str, Any]] = untyped.nodes()
    return nodes
