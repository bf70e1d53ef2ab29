"""Where rows are stepped: behind one Protocol, in this process or elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

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

    async def drain(self, grace: float) -> None:
        """Take nothing more in, and end what is here within `grace` seconds."""
        ...


class LocalBackend:
    """The engine on its own thread in this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def render(
        self,
        tenant: str,
        pictures: Sequence[Picture],
        *,
        deadline: float | None,
        preview_every: int,
    ) -> AsyncIterator[Event]:
        """See `Backend.render`."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()

        def tell(event: Event) -> None:
            # A loop that was closed has nobody left to tell.
            if not loop.is_closed():
                loop.call_soon_threadsafe(events.put_nowait, event)

        render = Render(tenant, pictures, tell, deadline=deadline, preview_every=preview_every)
        self._engine.submit(render)
        try:
            while True:
                event = await events.get()
                yield event
                if isinstance(event, Ended):
                    return
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

    async def drain(self, grace: float) -> None:
        """See `Backend.drain`."""
        await asyncio.to_thread(self._engine.drain, grace)
