"""Where rows are stepped: behind one Protocol, in this process or elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Protocol

from perfuse.errors import Unavailable
from perfuse_renderer.engine.engine import Engine
from perfuse_renderer.engine.render import Ended, Event, Render
from perfuse_renderer.engine.row import Picture


class Backend(Protocol):
    """Renders pictures of one base model."""

    def render(
        self,
        tenant: str,
        pictures: Sequence[Picture],
        *,
        deadline: float | None,
        preview_every: int,
    ) -> AsyncIterator[Event]:
        """Every event of a render, the last one `Ended`.

        Closing the iterator, for whatever reason, stops the render within one step.

        Raises:
            ResourceExhausted, Unavailable: it was not taken in.
        """
        ...

    @property
    def running(self) -> int:
        """Pictures that have begun."""
        ...

    @property
    def waiting(self) -> int:
        """Pictures that have not."""
        ...

    @property
    def replica_losses(self) -> int:
        """Renders so far that began anew since their replica was lost."""
        ...

    async def check(self) -> None:
        """Pass while renders can be taken in.

        Raises:
            Unavailable: none can.
        """
        ...

    async def drain(self, grace: float) -> None:
        """Take nothing more in, and end what is here within `grace` seconds."""
        ...


class LocalBackend:
    """The engine on its own thread in this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._draining = False

    async def render(
        self,
        tenant: str,
        pictures: Sequence[Picture],
        *,
        deadline: float | None,
        preview_every: int,
    ) -> AsyncIterator[Event]:
        """See `Backend.render`."""
        batches = self.batches(tenant, pictures, deadline=deadline, preview_every=preview_every)
        async with aclosing(batches) as heard:  # type: ignore[type-var]
            async for batch in heard:
                for event in batch:
                    yield event

    async def batches(
        self,
        tenant: str,
        pictures: Sequence[Picture],
        *,
        deadline: float | None,
        preview_every: int,
    ) -> AsyncIterator[list[Event]]:
        """The same events, as many at once as there are: for whoever pays by the message."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()

        def tell(event: Event) -> None:
            # A loop that was closed has nobody left to tell.
            if not loop.is_closed():
                loop.call_soon_threadsafe(events.put_nowait, event)

        render = Render(tenant, pictures, tell, deadline=deadline, preview_every=preview_every)
        self._engine.submit(render)
        try:
            batch: list[Event] = []
            while not batch or not isinstance(batch[-1], Ended):
                batch = [await events.get()]
                while not events.empty():
                    batch.append(events.get_nowait())
                yield batch
        finally:
            if not render.ended:
                render.cancel()
                self._engine.wake()

    @property
    def running(self) -> int:
        """See `Backend`."""
        return self._engine.running

    @property
    def waiting(self) -> int:
        """See `Backend`."""
        return self._engine.waiting

    @property
    def replica_losses(self) -> int:
        """See `Backend`: there are no replicas."""
        return 0

    async def check(self) -> None:
        """See `Backend.check`."""
        if self._draining:
            raise Unavailable("the engine is ending. Call again; another Renderer will answer")

    async def drain(self, grace: float) -> None:
        """See `Backend.drain`."""
        self._draining = True
        await asyncio.to_thread(self._engine.drain, grace)
