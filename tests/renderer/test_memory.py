"""A thousand renders with ever other concepts leave memory, tensors and threads as they were."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import threading
from dataclasses import dataclass

import psutil
import torch
from bases import random_adapter

from perfuse.attach import BaseModel, unconditional
from perfuse.client.registry import FoundVersion
from perfuse.method import KeyLock
from perfuse.names import VersionName
from perfuse_renderer.engine.engine import Engine
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.engine.row import Picture
from perfuse_renderer.engine.schedulers import KINDS
from perfuse_renderer.planning import Asker, ConceptSettings, Planner
from perfuse_renderer.pool import AdapterPool

from .listening import Listener, render

ADAPTERS = 48
NAMES = 150
"""Names come again, since a pool remembers many; by then their adapters and plans are long gone."""
RENDERS, SETTLED = 1000, 200
AT_ONCE = 8


class Endless:
    """A Registry with ever new versions: every number is one, its bytes one of `ADAPTERS`."""

    def __init__(self, base: BaseModel) -> None:
        made = [random_adapter(base, seed, "cat") for seed in range(ADAPTERS)]
        self._files = [(adapter.digest, adapter.to_bytes()) for adapter in made]
        self._fingerprint = base.fingerprint

    async def version(self, name: VersionName, authorization: str) -> FoundVersion:
        assert name.number is not None
        digest, _ = self._files[name.number % ADAPTERS]
        return FoundVersion(name, digest, "baseModels/b", self._fingerprint, "cat", 0.7, 0.1)

    async def adapter(
        self, name: VersionName, authorization: str, *, shared: bool = False
    ) -> tuple[FoundVersion, bytes]:
        assert name.number is not None
        return await self.version(name, authorization), self._files[name.number % ADAPTERS][1]


@dataclass
class Held:
    """What this process holds."""

    bytes: int
    tensors: int
    threads: int

    @classmethod
    def now(cls) -> Held:
        gc.collect()
        # glibc keeps freed pages as it pleases: given back, what is left is held by somebody.
        ctypes.CDLL(None).malloc_trim(0)
        return cls(
            bytes=psutil.Process().memory_info().rss,
            tensors=sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects()),
            threads=threading.active_count(),
        )


def test_a_thousand_renders_leave_memory_flat(tiny_sd15: BaseModel) -> None:
    base = tiny_sd15
    source = Endless(base)
    size = len(source._files[0][1])
    nothing = unconditional(base)
    one = sum(tensor.nbytes for tensor in (*nothing.keys, *nothing.values, nothing.encodings))
    # Room for far less than comes by: all of it turns over all the time.
    pool = AdapterPool(source, max_bytes=8 * size)
    planner = Planner(
        base, pool, max_bytes=8 * one, max_text_bytes=one, max_concept_bytes=16 * size
    )
    engine = Engine(base, EngineSettings(max_lanes=8))

    async def ask(number: int) -> Listener:
        asker = Asker(f"t{number % 3}", "Bearer a")
        first, second = 1 + number % NAMES, 2 + (number + 6) % NAMES
        prompt = f"a photo of <tom@{first}>" + (f" and <rex@{second}>" if number % 4 == 0 else "")
        lock = KeyLock.GLOBAL if number % 5 == 0 else KeyLock.LOCAL
        settings = {f"tom@{first}": ConceptSettings(bias=0.3 + number % 4 / 10)}
        planned = await planner.plan(asker, prompt, settings, lock)
        steps, guidance = 1 + (number % 8 == 0), 1.0 + (number % 4 == 0)
        scheduler = list(KINDS)[number % len(KINDS)] if number % 4 == 0 else "ddim"
        picture = Picture(planned.plan, nothing, number, steps, guidance, scheduler, 8, 8)
        job, listener = render(asker.tenant, [picture], preview_every=steps - 1)
        engine.submit(job)
        if number % 10 == 9:
            job.cancel()
            engine.wake()
        return listener

    async def some(first: int) -> None:
        heard = await asyncio.gather(*(ask(first + index) for index in range(AT_ONCE)))
        for listener in heard:
            await asyncio.to_thread(listener.wait)
            assert not listener.failures

    async def until(first: int, last: int) -> Held:
        for number in range(first, last, AT_ONCE):
            await some(number)
        while not engine.idle:
            await asyncio.sleep(0.001)
        return Held.now()

    async def work() -> tuple[Held, Held]:
        return await until(0, SETTLED), await until(SETTLED, RENDERS)

    try:
        settled, end = asyncio.run(work())
    finally:
        engine.drain(0)
    assert planner.computed == RENDERS
    assert pool.count <= 8
    # Plans that were not let go would be 45 MiB. What is allowed is the allocator's own unrest.
    assert end.bytes - settled.bytes <= 20 << 20
    assert end.tensors <= settled.tensors + 64
    assert end.threads <= settled.threads
