"""A replica: an engine with a process, and where there is one a device, of its own."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

from ray.exceptions import RayError

from perfuse.attach import ConditioningPlan
from perfuse.errors import PerfuseError
from perfuse_renderer.backend import LocalBackend
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.engine.row import Picture
from perfuse_renderer.engine.stepper import Denoise
from perfuse_renderer.residence import DTYPES, load_base, start_engine
from perfuse_renderer.traffic import (
    Condition,
    Message,
    Parcel,
    Refused,
    Wanted,
    plan_bytes,
    plan_in,
)

_FORGOTTEN = 3600.0
"""Seconds after which a front door that says nothing is one that was."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReplicaSettings:
    """What a replica is made from.

    Attributes:
        directory: of the base model, at the same path on every machine with replicas.
        fingerprint: of the base model, as the front door knows it.
        device, dtype: where and in what its weights are.
        engine: limits.
        plan_megabytes: of plans kept beside the weights.
        denoiser: another denoiser, to watch it.
    """

    directory: str
    fingerprint: str
    device: str = "cpu"
    dtype: str = "float32"
    engine: EngineSettings = field(default_factory=EngineSettings)
    plan_megabytes: int = 1024
    denoiser: Denoise | None = None


class EngineReplica:
    """What Ray Serve runs copies of. It is ready once its constructor is through: warm.

    Raises:
        NotFound, BaseModelUnsuitable, DataLoss: the base model cannot be loaded.
        BaseModelMismatch: the directory holds another one here than at the front door.
    """

    def __init__(self, settings: ReplicaSettings) -> None:
        base = load_base(
            settings.directory, settings.device, settings.dtype, fingerprint=settings.fingerprint
        )
        self._device, self._dtype = base.device, DTYPES[settings.dtype]
        self._engine = start_engine(base, settings.engine, settings.denoiser)
        self._backend = LocalBackend(self._engine)
        self._plans = _KeptPlans(settings.plan_megabytes << 20)
        self._wanted: dict[str, tuple[float, Wanted]] = {}
        self._fetched = 0

    async def render(self, parcel: Parcel) -> AsyncIterator[list[Message]]:
        """The messages of a render, several at once; the last one is `Ended` or `Refused`.

        When the caller cancels, Serve cancels the task that runs this, and the engine is told. A
        cancel that Ray lost, or a front door that died, is noticed at a step when the lease is
        over.
        """
        arrived = time.monotonic()
        deadline = None if parcel.seconds is None else arrived + parcel.seconds
        try:
            batches = self._backend.batches(
                parcel.tenant,
                await self._pictures(parcel),
                deadline=deadline,
                preview_every=parcel.preview_every,
            )
            async with aclosing(batches) as heard:  # type: ignore[type-var]
                async for batch in heard:
                    if not self._is_wanted(parcel, arrived):
                        _log.warning("a render was let go: its front door wants it no more")
                        return
                    yield list[Message](batch)
        except RayError:
            # A plan was lost on its way; the front door sends it anew.
            raise
        except PerfuseError as error:
            yield [Refused(error)]
        except Exception:
            _log.exception("a render failed")
            yield [Refused(PerfuseError("the render failed for a fault of the Renderer's own"))]

    async def attend(self, wanted: Wanted) -> None:
        """Hear what a front door still waits for."""
        now = time.monotonic()
        self._wanted = {
            front_door: (moment, said)
            for front_door, (moment, said) in self._wanted.items()
            if now - moment < _FORGOTTEN
        }
        self._wanted[wanted.front_door] = (now, wanted)

    def _is_wanted(self, parcel: Parcel, arrived: float) -> bool:
        heard, said = self._wanted.get(parcel.front_door, (arrived, None))
        if time.monotonic() - max(heard, arrived) > parcel.lease:
            return False
        return said is None or parcel.number > said.newest or parcel.number in said.numbers

    async def condition(self) -> Condition:
        """How it is; that it answers at all says that it is ready."""
        engine = self._engine
        return Condition(
            os.getpid(), engine.steps_taken, engine.running, engine.waiting, self._fetched
        )

    async def _pictures(self, parcel: Parcel) -> list[Picture]:
        plans: dict[str, ConditioningPlan] = {}
        for digest, reference in parcel.plans.items():
            plan = self._plans.get(digest)
            if plan is None:
                self._fetched += 1
                sent = await reference
                plan = await asyncio.to_thread(plan_in, sent, self._dtype, self._device)
                self._plans.keep(plan)
            plans[digest] = plan
        return [sketch.picture(plans) for sketch in parcel.sketches]


class _KeptPlans:
    """Plans by digest, so many bytes of them, the longest unused given up first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._plans: OrderedDict[str, ConditioningPlan] = OrderedDict()

    def get(self, digest: str) -> ConditioningPlan | None:
        plan = self._plans.get(digest)
        if plan is not None:
            self._plans.move_to_end(digest)
        return plan

    def keep(self, plan: ConditioningPlan) -> None:
        if plan.digest in self._plans:
            return
        self._plans[plan.digest] = plan
        self._bytes += plan_bytes(plan)
        while self._bytes > self._max_bytes and len(self._plans) > 1:
            _, dropped = self._plans.popitem(last=False)
            self._bytes -= plan_bytes(dropped)
