"""Rows stepped by replicas elsewhere, reached through Ray Serve."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from perfuse.errors import Unavailable
from perfuse_renderer.engine.render import Ended, Event
from perfuse_renderer.engine.row import Picture
from perfuse_renderer.journey import Journey, Sender, cancel, later
from perfuse_renderer.plan_store import PlanStore
from perfuse_renderer.traffic import Condition, Refused, Wanted

_CHECK_SECONDS = 5.0
_LEASE_BEATS = 4

_log = logging.getLogger(__name__)


class ServeBackend:
    """Sends renders to the replica that has least to do.

    A replica that dies takes no render along: what it had not finished is rendered once more,
    from its seeds, by another.

    Args:
        handle: of the deployment of `EngineReplica`.
        plans: where plans are put for replicas to fetch.
        patience: seconds that a render waits for a replica to take it in, as while the first one
            starts.
        beat: seconds between two tellings of which renders are still wanted. Ray cancels as best
            it can, and tells no replica of a front door that died: what was not named for four
            beats stops.
    """

    def __init__(
        self, handle: Any, plans: PlanStore, *, patience: float = 30.0, beat: float = 5.0
    ) -> None:
        self._handle = handle
        self._beat = beat
        self._sender = Sender(
            handle.options(stream=True).render, plans, patience, _LEASE_BEATS * beat
        )
        self._journeys: set[Journey] = set()
        self._beating: asyncio.Task[None] | None = None
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
        if self._draining:
            raise _draining()
        journey = Journey(self._sender, tenant, pictures, deadline, preview_every)
        self._journeys.add(journey)
        travelling = asyncio.create_task(journey.go())
        if self._beating is None or self._beating.done():
            self._beating = asyncio.create_task(self._say_what_is_wanted())
        try:
            while True:
                message = await journey.messages.get()
                if isinstance(message, Refused):
                    raise message.error
                yield message
                if isinstance(message, Ended):
                    return
        finally:
            self._journeys.discard(journey)
            # At once, and not only when the task gets its turn.
            journey.stop()
            travelling.cancel()

    @property
    def running(self) -> int:
        """Pictures that this front door sent and that have begun."""
        return sum(journey.running for journey in tuple(self._journeys))

    @property
    def waiting(self) -> int:
        """Pictures that this front door sent and that have not."""
        return sum(journey.waiting for journey in tuple(self._journeys))

    @property
    def replica_losses(self) -> int:
        """See `Backend`."""
        return self._sender.losses

    async def check(self) -> None:
        """See `Backend.check`."""
        if self._draining:
            raise _draining()
        await self.condition()

    async def condition(self) -> Condition:
        """How one of the replicas is.

        Raises:
            Unavailable: none answers.
        """
        asked = self._handle.condition.remote()
        try:
            async with asyncio.timeout(_CHECK_SECONDS):
                answer: Condition = await asked
        except (TimeoutError, RayError, RayServeException) as error:
            _log.debug("no replica answers", exc_info=error)
            raise later("no replica of the Renderer answers. Call again later") from None
        else:
            return answer
        finally:
            cancel(asked)

    async def drain(self, grace: float) -> None:
        """See `Backend.drain`."""
        self._draining = True
        until = time.monotonic() + grace
        while self._journeys and time.monotonic() < until:
            await asyncio.sleep(0.02)
        for journey in list(self._journeys):
            journey.give_up(_draining())

    async def _say_what_is_wanted(self) -> None:
        while self._journeys:
            wanted = Wanted(
                self._sender.name,
                self._sender.newest,
                frozenset(journey.number for journey in self._journeys),
            )
            try:
                async with asyncio.timeout(self._beat):
                    await self._handle.broadcast("attend", wanted).results_async()
            except (TimeoutError, RayError, RayServeException) as error:
                # One that was lost is asked as well, until Serve knows.
                _log.debug("a replica does not attend", exc_info=error)
            await asyncio.sleep(self._beat)


def _draining() -> Unavailable:
    return later("this Renderer is ending. Call again; another one will answer")
