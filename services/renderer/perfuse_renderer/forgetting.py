"""Forgetting: what was cached of concepts that were erased goes, in memory and on disk.

A Renderer with a credential of its own asks the Registry every few seconds what was erased of late,
and at its start what ever was, for its disk is older than its process. What was being fetched or
planned meanwhile is caught by asking for the same minute again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Protocol

import structlog

from perfuse.client.erased import Erased
from perfuse.errors import PerfuseError
from perfuse_renderer.pool import AdapterPool

SECONDS = 5.0
"""Between two questions."""

_AGAIN = timedelta(minutes=5)
"""How far back each asks, for clocks that differ and for what was under way."""


class Erasures(Protocol):
    """Where erasures are asked for: `perfuse.client.registry.RegistryClient`."""

    async def erased(self, after: datetime | None) -> Erased:
        """What was erased later than that, or ever."""
        ...


class Forgetting:
    """Asks, and has the pool forget.

    Args:
        source: of erasures.
        pool: of adapters.
    """

    def __init__(self, source: Erasures, pool: AdapterPool) -> None:
        self._source, self._pool = source, pool
        self._since: datetime | None = None
        self._log = structlog.get_logger("perfuse_renderer.forgetting")

    async def turn(self) -> None:
        """Ask once; what cannot be asked or removed now is tried at the next turn."""
        asked = datetime.now(UTC)
        try:
            await self._pool.forget(await self._source.erased(self._since))
        except (PerfuseError, OSError) as error:
            self._log.warning("erasures_unknown", problem=str(error))
        else:
            self._since = asked - _AGAIN

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Ask again and again meanwhile."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        while True:
            await self.turn()
            await asyncio.sleep(SECONDS)
