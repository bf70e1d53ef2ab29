"""The Renderer, as callers use it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from perfuse.client import reading_renderer as reading
from perfuse.client._async.calls import Calls
from perfuse.client.rendering import (
    RenderedImage,
    RendererStatus,
    RenderEvent,
    RenderSettings,
)
from perfuse.client.writing import render_settings
from perfuse.v1 import renderer_pb2 as wire

RENDER_SECONDS = 600.0


class Renderer:
    """Renders prompts that name concepts."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def render(
        self, settings: RenderSettings, *, timeout: float = RENDER_SECONDS
    ) -> tuple[RenderedImage, ...]:
        """All pictures, in the order of their seeds.

        Args:
            settings: what to render.
            timeout: seconds; what cannot be done by then is refused at once.

        Raises:
            PromptRefused: a malformed or too long prompt; the message has the place.
            NotFound: a concept that the caller may not use, or that is not there.
            BaseModelMismatch: a concept of another base model.
            ResourceExhausted: the queue is full, or the deadline too near; `retry_after` says when.
        """
        found: list[RenderedImage] = []
        async for event in self.stream(settings, timeout=timeout):
            if isinstance(event, RenderedImage):
                found.append(event)
        return tuple(sorted(found, key=lambda image: image.image_index))

    async def stream(
        self,
        settings: RenderSettings,
        *,
        preview_every: int = 0,
        timeout: float = RENDER_SECONDS,
    ) -> AsyncIterator[RenderEvent]:
        """How a render goes: queued, progress, previews, and each picture as soon as it is done.

        Leaving the iteration ends the render within a step.

        Args:
            settings: what to render.
            preview_every: steps between previews of each picture; 0 for none.
            timeout: seconds.

        Raises:
            PerfuseError: as for `render`.
        """
        request = wire.RenderRequest(
            settings=render_settings(settings, self._calls.names), preview_every=preview_every
        )
        # Closed here and not when its memory is collected, which may be much later.
        async with aclosing(self._calls.stream("renderer", "Render", request, timeout)) as told:
            async for sent in told:
                event = reading.render_event(sent)
                if event is not None:
                    yield event

    async def status(self) -> RendererStatus:
        """What is resident, and how busy it is."""
        request = wire.GetRendererStatusRequest()
        return reading.renderer_status(
            await self._calls.call("renderer", "GetRendererStatus", request)
        )
