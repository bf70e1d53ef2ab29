"""One thing at a time, and every tenant's turn comes round."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Turns at something that one caller has at a time; tenants that wait take them in rotation.

    However many of one tenant's callers wait, another tenant's next one waits for one of them.
    """

    def __init__(self) -> None:
        self._taken = False
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[None]:
        """Wait for a turn, and have it for as long as the context is open."""
        if self._taken:
            mine = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(tenant, deque()).append(mine)
            try:
                await mine
            except asyncio.CancelledError:
                # It may have come in the very moment in which nobody wanted it any more.
                if mine.done() and not mine.cancelled():
                    self._pass_on(tenant)
                raise
        self._taken = True
        try:
            yield
        finally:
            self._pass_on(tenant)

    def _pass_on(self, had: str) -> None:
        """Give the turn that `had` had to whoever waits longest of another tenant, if any does."""
        while self._waiting:
            tenant = next((each for each in self._waiting if each != had), had)
            queue = self._waiting.pop(tenant)
            following = queue.popleft()
            if queue:
                self._waiting[tenant] = queue
            if not following.done():
                following.set_result(None)
                return
        self._taken = False
