"""Both backends, ready to render, with a look into their engines."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import cloudpickle
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from perfuse.attach import BaseModel
from perfuse_renderer.backend import Backend, LocalBackend
from perfuse_renderer.cluster import Cluster
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.plan_store import PlanStore
from perfuse_renderer.replica import ReplicaSettings
from perfuse_renderer.residence import start_engine
from perfuse_renderer.serve_backend import ServeBackend
from perfuse_renderer.settings import RendererSettings
from perfuse_renderer.traffic import Condition

from . import slowed
from .slowed import Slowed

# Replicas cannot import it.
cloudpickle.register_pickle_by_value(slowed)

LIMITS = EngineSettings(max_lanes=8, max_waiting=64, max_waiting_of_tenant=32)
REPLICAS = 2
SECONDS = 120.0


@dataclass
class Stage:
    """A backend, and what stands behind it.

    Attributes:
        backend: to render with.
        file: see `Slowed`.
        conditions: asks every engine how it is.
    """

    backend: Backend
    file: Path
    conditions: Callable[[], Awaitable[list[Condition]]]

    def slow(self, seconds: float) -> None:
        self.file.write_text(str(seconds))

    async def steps(self) -> int:
        return sum(condition.steps_taken for condition in await self.conditions())

    async def busy(self) -> int:
        return sum(each.running + each.waiting for each in await self.conditions())

    async def idle(self, seconds: float = SECONDS) -> int:
        """Wait until no engine has anything to do; how many steps were made by then."""
        async with asyncio.timeout(seconds):
            while await self.busy():
                await asyncio.sleep(0.005)
        return await self.steps()


@dataclass
class Fleet:
    """Two replicas of the tiny base model on a Ray of our own, shared by every test that asks."""

    cluster: Cluster
    handle: Any
    file: Path
    settings: ReplicaSettings

    def stage(self, **arguments: Any) -> Stage:
        """A new front door to the same replicas."""
        self.file.write_text("")
        store = PlanStore(torch.float64, 64 << 20)
        return Stage(ServeBackend(self.handle, store, **arguments), self.file, self.conditions)

    async def conditions(self) -> list[Condition]:
        """Of every replica that is there; at least one."""
        async with asyncio.timeout(SECONDS):
            while True:
                # One that was killed is asked too, until Serve knows.
                with contextlib.suppress(RayError, RayServeException):
                    found: list[Condition]
                    found = await self.handle.broadcast("condition").results_async()
                    if found:
                        return found
                await asyncio.sleep(0.02)

    async def complete(self) -> list[Condition]:
        """Wait until every replica answers, as after one was killed."""
        async with asyncio.timeout(SECONDS):
            while len(found := await self.conditions()) < REPLICAS:
                await asyncio.sleep(0.1)
        return found


@contextmanager
def fleet(base: BaseModel, home: Path) -> Iterator[Fleet]:
    before = dict(os.environ)
    file = home / "seconds"
    file.write_text("")
    replica = ReplicaSettings(
        directory=str(base.directory),
        fingerprint=base.fingerprint,
        dtype="float64",
        engine=LIMITS,
        plan_megabytes=64,
        denoiser=Slowed(str(file)),
    )
    cluster = Cluster(
        RendererSettings(
            backend="serve",
            replicas_min=REPLICAS,
            replicas_max=REPLICAS,
            object_store_megabytes=128,
        )
    )
    try:
        handle = cluster.deploy("tiny", replica)
        asyncio.run(cluster.started("tiny"))
        yield Fleet(cluster, handle, file, replica)
    finally:
        cluster.close()
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def local(base: BaseModel, home: Path) -> Iterator[Stage]:
    file = home / "seconds"
    file.write_text("")
    engine = start_engine(base, LIMITS, Slowed(str(file)))

    async def conditions() -> list[Condition]:
        return [Condition(os.getpid(), engine.steps_taken, engine.running, engine.waiting, 0)]

    yield Stage(LocalBackend(engine), file, conditions)
    engine.drain(0.0)
