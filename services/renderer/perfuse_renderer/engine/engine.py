"""The engine: chooses rows for every step, steps them together, and lets each come and go alone.

One thread owns the denoiser. Before every step it drops what was cancelled or is too late, and
picks the rows that step: from the tenant that had least of the denoiser so far, then the next, one
row at a time, until the batch is full. A row may wait between any two of its steps, so a tenant
that comes late does not wait for another's pictures to end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict, deque
from functools import partial

import torch

from perfuse.attach import BaseModel, attach, denoise, is_attached
from perfuse.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    NotFinite,
    PerfuseError,
    Unavailable,
)
from perfuse_renderer.engine.admission import Admission
from perfuse_renderer.engine.decoder import Decoder
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.engine.pace import Pace
from perfuse_renderer.engine.render import (
    Failed,
    Finished,
    Place,
    Previewed,
    Render,
    Stepped,
)
from perfuse_renderer.engine.row import Row
from perfuse_renderer.engine.shares import Shares
from perfuse_renderer.engine.stepper import Denoise, Stepper

_log = logging.getLogger(__name__)

_FIRST_GUESS = 0.01
"""Seconds of a lane's step before any was measured; only ratios matter until then."""


class Engine:
    """Renders on one resident base model.

    Args:
        base: the base model; attached here if it is not.
        settings: limits.
        denoiser: one step of the denoiser; another may be given to compile or to watch it.
    """

    def __init__(
        self,
        base: BaseModel,
        settings: EngineSettings | None = None,
        denoiser: Denoise = denoise,
    ) -> None:
        self.base = base
        self.settings = settings or EngineSettings()
        self.pace = Pace()
        self.steps_taken = 0
        self._attachment = None if is_attached(base.unet) else attach(base.unet)
        self._stepper = Stepper(base, denoiser, self.settings.max_lanes, pad=self.settings.pad)
        self._decoder = Decoder(base)
        self._shares = Shares()
        self._queues: dict[str, deque[Place]] = defaultdict(deque)
        self._admission = Admission(self.settings, self.pace)
        self._wake = threading.Condition()
        self._closing = False
        self._draining = False
        self._thread = threading.Thread(target=self._run, name="perfuse-engine", daemon=True)
        self._thread.start()

    # For callers, from any thread.

    def submit(self, render: Render) -> None:
        """Take a render in, or refuse it at once.

        Raises:
            ResourceExhausted: the queue is full, or the deadline cannot be met.
            Unavailable: the engine is draining.
        """
        places = [Place(render, index) for index in range(len(render.pictures))]
        with self._wake:
            if self._draining:
                raise _draining()
            ahead = self._admission.admit(render, places, self._queues)
            self._queues[render.tenant].extend(places)
            render.tell(ahead)
            self._wake.notify()

    def wake(self) -> None:
        """Have cancelled renders noticed although nothing steps."""
        with self._wake:
            self._wake.notify()

    @property
    def running(self) -> int:
        """Pictures that have begun."""
        with self._wake:
            return sum(place.row is not None for queue in self._queues.values() for place in queue)

    @property
    def waiting(self) -> int:
        """Pictures that have not."""
        with self._wake:
            return sum(place.row is None for queue in self._queues.values() for place in queue)

    def drain(self, grace: float) -> None:
        """Take nothing more in, finish what is here, give up what is not done after `grace` s."""
        with self._wake:
            self._draining = True
            self._wake.notify()
        until = time.monotonic() + grace
        while time.monotonic() < until and self.running + self.waiting:
            time.sleep(0.01)
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self._decoder.close()
        if self._attachment is not None:
            self._attachment.detach()

    # The engine's thread.

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._closing and not any(self._queues.values()):
                    self._wake.wait()
                if self._closing:
                    self._give_all_up()
                    return
            try:
                self._cycle()
            except Exception:
                # Whatever it was, it must not end everyone's renders with it.
                _log.exception("a cycle of the engine failed")
                time.sleep(0.1)

    def _cycle(self) -> None:
        """Drop what nobody waits for, choose rows, step them."""
        with self._wake:
            self._drop_lost()
            chosen = self._choose()
        ready = [place for place in chosen if self._begin(place)]
        if ready:
            self._step(ready)

    def _drop_lost(self) -> None:
        moment = time.monotonic()
        for tenant, queue in list(self._queues.items()):
            for place in [place for place in queue if _is_lost(place.render, moment)]:
                queue.remove(place)
                place.render.give_up(_reason(place.render))
            if not queue:
                del self._queues[tenant]
        self._shares.present(self._queues)

    def _choose(self) -> list[Place]:
        """The rows of the next step: of one size, fairly by tenant, each tenant's oldest first."""
        left = {tenant: deque(queue) for tenant, queue in self._queues.items()}
        begun = sum(place.row is not None for queue in left.values() for place in queue)
        chosen: list[Place] = []
        lanes, planned = 0, defaultdict[str, float](float)
        while left:
            tenant = self._shares.order(left, planned)[0]
            place = left[tenant].popleft()
            if not left[tenant]:
                del left[tenant]
            if chosen and place.size != chosen[0].size:
                continue
            if lanes and lanes + place.picture.lanes > self._stepper.max_lanes:
                continue
            if place.row is None:
                if begun >= self.settings.max_begun:
                    continue
                begun += 1
            chosen.append(place)
            lanes += place.picture.lanes
            seconds = self.pace.lane_seconds(place.size) or _FIRST_GUESS
            planned[tenant] += seconds * place.picture.lanes
            if lanes >= self._stepper.max_lanes:
                break
        return chosen

    def _begin(self, place: Place) -> bool:
        if place.row is not None:
            return True
        try:
            place.row = Row(self.base, place.picture)
        except Exception as error:
            self._fail(place, error)
            return False
        if place.render.began is None:
            place.render.began = time.monotonic()
        return True

    def _step(self, places: list[Place]) -> None:
        stepped = self._stepper.step(places)
        self.steps_taken += 1
        self._account(stepped.advanced, stepped.seconds, stepped.lanes)
        for place, error in stepped.failed:
            self._fail(place, error)
        for place in stepped.advanced:
            self._tell(place)

    def _account(self, places: list[Place], seconds: float, lanes: int) -> None:
        if not places:
            return
        self.pace.learn(places[0].size, lanes, seconds)
        for place in places:
            self._shares.charge(place.render.tenant, seconds * place.picture.lanes / lanes)

    def _tell(self, place: Place) -> None:
        row, render = place.row, place.render
        if row is None:
            return
        render.tell(Stepped(place.index, row.step, row.steps))
        if row.done:
            self._remove(place)
            if row.is_finite:
                self._decoder.decode(row.latents, partial(_finished, place))
            else:
                self._fail(
                    place,
                    NotFinite(
                        f"the picture of seed {place.picture.seed} left the finite numbers. Use "
                        "another seed, more steps or less guidance"
                    ),
                )
        elif render.preview_every and row.step % render.preview_every == 0:
            self._decoder.decode(row.latents, partial(_previewed, place, row.step))

    def _fail(self, place: Place, error: Exception) -> None:
        self._remove(place)
        if not isinstance(error, PerfuseError):
            _log.error("a picture failed", exc_info=error)
            error = PerfuseError("the picture failed for a fault of the Renderer's own")
        place.render.settle(Failed(place.index, error))

    def _remove(self, place: Place) -> None:
        with self._wake:
            queue = self._queues.get(place.render.tenant)
            if queue is not None and place in queue:
                queue.remove(place)
                if not queue:
                    del self._queues[place.render.tenant]

    def _give_all_up(self) -> None:
        for queue in self._queues.values():
            for place in queue:
                place.render.give_up(_draining())
        self._queues.clear()


def _finished(place: Place, result: torch.Tensor | Exception) -> None:
    if isinstance(result, torch.Tensor):
        place.render.settle(Finished(place.index, result))
    else:
        _log.error("a picture could not be decoded", exc_info=result)
        failure = PerfuseError("the picture failed for a fault of the Renderer's own")
        place.render.settle(Failed(place.index, failure))


def _previewed(place: Place, step: int, result: torch.Tensor | Exception) -> None:
    if isinstance(result, torch.Tensor):
        place.render.tell(Previewed(place.index, step, result))


def _is_lost(render: Render, moment: float) -> bool:
    late = render.deadline is not None and moment >= render.deadline
    return render.cancelled or render.ended or late


def _reason(render: Render) -> PerfuseError | None:
    if render.cancelled:
        return FailedPrecondition("the render was cancelled")
    return DeadlineExceeded("the render's deadline passed before all its pictures were done")


def _draining() -> Unavailable:
    error = Unavailable("this Renderer is ending. Call again; another one will answer")
    error.retry_after = 1.0
    return error
