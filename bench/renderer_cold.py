"""(e) What a concept costs the first time, when it is in the Registry alone.

Through the Renderer: each turn renders a version that it has never seen, and then the same version
in another prompt, which is planned anew as well; the difference is what fetching, verifying and
keeping it took. Timed is the span from the call to its first event, which comes when the picture
is planned and queued. In the pool alone, with adapters of the base's size: `AdapterPool.get` of a
version never seen, and again.

The Registry is a process of its own on SQLite with a directory, reached over gRPC.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from bench.renderer_figures import Step, milliseconds, quantile
from bench.renderer_servers import CONCEPT, Caller, Services
from perfuse.client.registry import RegistryClient
from perfuse.names import ConceptName
from perfuse_renderer.pool import AdapterPool

TENANT = "cold"
_PROMPTS = ("a photo of <{}> at night", "a photo of <{}> by day")


async def measure_renderer(services: Services, versions: int, advance: Step) -> dict[str, Any]:
    """Cold and warm calls of the Renderer.

    Args:
        services: with a Renderer, and with so many versions of the tenant `cold`, all unseen.
        versions: how many.
        advance: told after every version.
    """
    cold: list[float] = []
    warm: list[float] = []
    async with Caller(services) as caller:
        for number in range(1, versions + 1):
            for prompt, found in zip(_PROMPTS, (cold, warm), strict=True):
                began = time.perf_counter()
                moments = []
                # To its end, so that no step of this picture meets the next one's planning.
                async for _ in caller.render(TENANT, prompt.format(f"{CONCEPT}@{number}"), steps=1):
                    moments.append(time.perf_counter())
                found.append(moments[0] - began)
            advance()
    return _summary(cold[1:], warm[1:])


async def measure_pool(
    services: Services, folder: Path, versions: int, advance: Step
) -> dict[str, Any]:
    """The pool alone; arguments as above, and a folder for what it keeps on disk."""
    cold: list[float] = []
    warm: list[float] = []
    ((_, authorization),) = services.metadata[TENANT]
    async with RegistryClient(services.registry.target) as client:
        pool = AdapterPool(client, folder / "pool")
        for number in range(1, versions + 1):
            name = ConceptName(TENANT, CONCEPT).version(str(number))
            for found in (cold, warm):
                began = time.perf_counter()
                await pool.get(TENANT, name, authorization)
                found.append(time.perf_counter() - began)
            await asyncio.sleep(0)
            advance()
    return _summary(cold[1:], warm[1:])


def _summary(cold: list[float], warm: list[float]) -> dict[str, Any]:
    """Without the first turn, in which channels open and code is run for the first time."""
    added = [first - second for first, second in zip(cold, warm, strict=True)]
    return {
        "cold": milliseconds(cold),
        "warm": milliseconds(warm),
        "added": milliseconds(added),
        "p99_less_p99_ms": round(1000 * (quantile(cold, 0.99) - quantile(warm, 0.99)), 2),
    }
