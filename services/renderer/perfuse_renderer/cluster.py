"""The Ray cluster that replicas live in: started for this process alone, or joined."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from importlib.metadata import version as release_of
from typing import Any

import ray
from ray import serve
from ray.serve.api import RunTarget

from perfuse.errors import FailedPrecondition
from perfuse.serving.cluster import join
from perfuse_renderer.replica import EngineReplica, ReplicaSettings
from perfuse_renderer.settings import RendererSettings

_POLL_SECONDS = 0.2
_STARTS = 3
"""Attempts to start a replica before its application counts as failed."""


class Cluster:
    """Ray with Ray Serve, whose own proxies stay off: the front door is the Renderer's.

    To be opened on the main thread: the kernel ends Ray's processes with the thread that began
    them, so that none is left behind even by a kill.

    Args:
        settings: of the Renderer.
        base_models: how many applications there will be.

    Raises:
        Unavailable: there is no cluster at the address.

    Attributes:
        owned: whether it was started here.
    """

    def __init__(self, settings: RendererSettings, base_models: int = 1) -> None:
        self.owned = settings.ray_address is None
        self._settings = settings
        join(
            settings.ray_address,
            "PERFUSE_RENDERER_RAY_ADDRESS",
            cpus=settings.replicas_max * settings.replica_cpus * base_models,
            object_store_megabytes=settings.object_store_megabytes,
        )
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(proxy_location="Disabled")

    def deploy(self, base_model_id: str, replica: ReplicaSettings) -> Any:
        """A handle of a base model's replicas, which may still be starting.

        In a cluster that was joined, an application made from the same settings by the same
        release is shared with the front doors that run it; another one is replaced.
        """
        name, deployment = f"perfuse-{base_model_id}", f"engine-{self._mark(replica)}"
        there = serve.status().applications.get(name)
        if there is None or deployment not in there.deployments:
            made: Any = serve.deployment(name=deployment, **self._options(replica))(EngineReplica)
            serve.run_many(
                [RunTarget(made.bind(replica), name=name, route_prefix=None)],
                wait_for_ingress_deployment_creation=True,
                wait_for_applications_running=False,
            )
        return serve.get_deployment_handle(deployment, name)

    async def started(self, base_model_id: str) -> None:
        """Wait until the replicas of a base model are warm.

        Raises:
            FailedPrecondition: they do not start.
        """
        name = f"perfuse-{base_model_id}"
        while True:
            there = (await asyncio.to_thread(serve.status)).applications[name]
            if there.status == "RUNNING":
                return
            if there.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                said = [part.message for part in there.deployments.values()] or [there.message]
                last = said[0].strip().splitlines()[-1:] or ["no reason is known"]
                raise FailedPrecondition(f"the replicas of {name} do not start: {last[0]}")
            await asyncio.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """End Ray where it was started here; elsewhere leave it, with the applications in it."""
        ray.shutdown()

    def _options(self, replica: ReplicaSettings) -> dict[str, Any]:
        settings = self._settings
        resources: dict[str, Any] = {"num_cpus": settings.replica_cpus}
        if replica.device == "cuda":
            resources["num_gpus"] = settings.replica_gpus
        # The engine decides what is taken in: it knows tenants and deadlines, and refuses at once.
        # Renders beyond its queue are those that are being decoded or sent.
        most = 2 * (replica.engine.max_waiting + replica.engine.max_begun)
        options: dict[str, Any] = {
            "ray_actor_options": resources,
            "max_ongoing_requests": most,
            # Queued in Serve are only renders that find no replica alive; no more of them than of
            # pictures in an engine's queue.
            "max_queued_requests": replica.engine.max_waiting,
            "graceful_shutdown_timeout_s": settings.longest_render_seconds,
            "graceful_shutdown_wait_loop_s": 0.5,
            "max_constructor_retry_count": _STARTS,
            "logging_config": {"log_level": "WARNING", "enable_access_log": False},
        }
        if settings.replicas_min == settings.replicas_max:
            options["num_replicas"] = settings.replicas_min
        else:
            options["autoscaling_config"] = {
                "min_replicas": settings.replicas_min,
                "max_replicas": settings.replicas_max,
                "initial_replicas": settings.replicas_min,
                "target_ongoing_requests": settings.replica_renders,
            }
        return options

    def _mark(self, replica: ReplicaSettings) -> str:
        """The same for the same replicas of the same release."""
        made_from = (release_of("perfuse"), replica, sorted(self._options(replica).items()))
        return hashlib.sha256(repr(made_from).encode()).hexdigest()[:12]
