"""One render on its way through replicas."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException

from perfuse.attach import ConditioningPlan
from perfuse.errors import DeadlineExceeded, PerfuseError, ResourceExhausted, Unavailable
from perfuse_renderer.engine.render import Ended, Event, Failed, Finished, Queued, Stepped
from perfuse_renderer.engine.row import Picture
from perfuse_renderer.plan_store import PlanStore
from perfuse_renderer.traffic import Message, Parcel, Refused, Sketch

_ATTEMPTS = 2
_SLACK = 2.0
"""Seconds after a deadline that the replica has to say so itself."""

_log = logging.getLogger(__name__)


class Sender:
    """A front door as replicas know it.

    Args:
        render: the handle's method, streaming.
        plans: where plans are put for replicas to fetch.
        patience: seconds that a render waits for a replica to take it in.
        lease: seconds that a render goes on without a word of the front door's.
    """

    def __init__(self, render: Any, plans: PlanStore, patience: float, lease: float) -> None:
        self.render, self.plans, self.patience, self.lease = render, plans, patience, lease
        self.name = uuid.uuid4().hex
        self.newest = self.losses = 0
        self._numbers = itertools.count(1)

    def number(self) -> int:
        """Of the next parcel."""
        self.newest = next(self._numbers)
        return self.newest


class Journey:
    """Sends a render to a replica, and once more to another if that one is lost.

    Args:
        sender: on whose behalf, among front doors.
        tenant: on whose behalf, among callers.
        pictures: what to render.
        deadline: by `time.monotonic()`, or None.
        preview_every: steps between previews; 0 for none.

    Attributes:
        messages: everything that the caller is to hear; filled whether or not the caller listens,
            so that a slow one holds nothing up. The last one is `Ended` or `Refused`.
        number: of the parcel that is on its way; 0 before there is one.
    """

    def __init__(
        self,
        sender: Sender,
        tenant: str,
        pictures: Sequence[Picture],
        deadline: float | None,
        preview_every: int,
    ) -> None:
        self.messages: asyncio.Queue[Event | Refused] = asyncio.Queue()
        self.number = 0
        self._sender = sender
        self._tenant = tenant
        self._pictures = tuple(pictures)
        self._deadline = deadline
        self._preview_every = preview_every
        self._begun: set[int] = set()
        self._left = set(range(len(self._pictures)))
        self._taken = False
        self._answered = False
        self._over = asyncio.Event()
        self._answers: Any = None

    @property
    def running(self) -> int:
        """Pictures that have begun."""
        return len(self._begun & self._left)

    @property
    def waiting(self) -> int:
        """Pictures that have not."""
        return len(self._left - self._begun)

    def stop(self) -> None:
        """Have the replica stop; nothing more is heard."""
        self._over.set()
        if self._answers is not None:
            cancel(self._answers)

    def give_up(self, error: PerfuseError) -> None:
        """End it with an error."""
        if not self._over.is_set():
            self.stop()
            self.messages.put_nowait(Ended(error) if self._taken else Refused(error))

    async def go(self) -> None:
        """Travel, until it has ended."""
        try:
            for attempt in range(_ATTEMPTS):
                if attempt:
                    self._sender.losses += 1
                    _log.warning("a replica was lost; its renders begin again on another")
                    # They may have been lost with it.
                    self._sender.plans.forget(plan.digest for plan in self._plans())
                if await self._attempt():
                    return
                if not self._left:
                    self._hear(Ended(), ())
                    return
            raise later(
                f"{_ATTEMPTS} replicas were lost while they rendered this. Call again later"
            )
        except PerfuseError as error:
            self.give_up(error)
        except Exception as error:
            _log.error("a render failed", exc_info=error)
            self.give_up(PerfuseError("the render failed for a fault of the Renderer's own"))

    async def _attempt(self) -> bool:
        """Have the pictures that are left rendered by one replica; whether it saw that through."""
        sent = sorted(self._left)
        self._begun.clear()
        self._answered = False
        parcel = await self._parcel(sent)
        if self._over.is_set():
            return True
        answers = self._answers = self._sender.render.remote(parcel)
        try:
            while not self._over.is_set():
                async with asyncio.timeout(self._seconds()):
                    messages: Sequence[Message] = await anext(answers)
                self._answered = True
                for message in messages:
                    self._hear(message, sent)
        except TimeoutError:
            raise self._too_late() from None
        except BackPressureError:
            full = ResourceExhausted("too many renders wait for a replica. Call again later")
            full.retry_after = 1.0
            raise full from None
        except asyncio.CancelledError:
            # Ray's word for a replica that was taken away, unless it is this task's own end.
            if (task := asyncio.current_task()) and task.cancelling():
                raise
            return self._over.is_set()
        except (RayError, RayServeException, StopAsyncIteration) as error:
            # An error of Ray's inside a replica is a plan that was lost on its way.
            if isinstance(error, RayTaskError) and not isinstance(error.cause, RayError):
                raise
            _log.debug("a replica was lost", exc_info=error)
            return self._over.is_set()
        finally:
            cancel(answers)
        return True

    async def _parcel(self, sent: Sequence[int]) -> Parcel:
        references = await self._sender.plans.references(self._plans())
        self.number = self._sender.number()
        return Parcel(
            tenant=self._tenant,
            sketches=tuple(Sketch.of(self._pictures[index]) for index in sent),
            plans=references,
            seconds=None if self._deadline is None else self._deadline - time.monotonic(),
            preview_every=self._preview_every,
            front_door=self._sender.name,
            number=self.number,
            lease=self._sender.lease,
        )

    def _hear(self, message: Message, sent: Sequence[int]) -> None:
        """Take one message of a replica, which counts the pictures that it was sent."""
        if self._over.is_set():
            return
        match message:
            case Queued():
                self._taken = True
            case Ended() | Refused():
                self._over.set()
                if isinstance(message, Refused) and self._taken:
                    message = Ended(message.error)
            case Stepped(index) | Finished(index) | Failed(index):
                message = replace(message, index=sent[index])
                self._begun.add(message.index)
                if not isinstance(message, Stepped):
                    self._left.discard(message.index)
            case _:
                message = replace(message, index=sent[message.index])
        self.messages.put_nowait(message)

    def _plans(self) -> list[ConditioningPlan]:
        pictures = [self._pictures[index] for index in self._left]
        plans = [plan for picture in pictures for plan in (picture.plan, picture.negative)]
        return list({plan.digest: plan for plan in plans}.values())

    def _seconds(self) -> float | None:
        """How long to wait for the next message."""
        waits = [] if self._answered else [self._sender.patience]
        if self._deadline is not None:
            waits.append(max(0.0, self._deadline + _SLACK - time.monotonic()))
        return min(waits, default=None)

    def _too_late(self) -> PerfuseError:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return DeadlineExceeded(
                "the render's deadline passed before all its pictures were done"
            )
        return later("no replica was free to take the render in. Call again later")


def cancel(answers: Any) -> None:
    """Cancel a call through a handle, whatever has become of it."""
    # The result of a call that failed before it was sent is raised here once more.
    with contextlib.suppress(Exception):
        answers.cancel()


def later(text: str) -> Unavailable:
    """For the moment it cannot be done."""
    error = Unavailable(text)
    error.retry_after = 1.0
    return error
