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
from collections.abc import Callable, Sequence
from functools import partial

import torch

from perfuse.attach import BaseModel, attach, denoise, is_attached
from perfuse.errors import NotFinite, PerfuseError, Unavailable
from perfuse_renderer.engine.admission import Admission
from perfuse_renderer.engine.compiled import CompiledDenoiser
from perfuse_renderer.engine.decoder import Decoder
from perfuse_renderer.engine.errands import Errands
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.engine.pace import Pace, Size
from perfuse_renderer.engine.queues import Queues
from perfuse_renderer.engine.render import (
    Failed,
    Finished,
    Place,
    Previewed,
    Render,
    Stepped,
)
from perfuse_renderer.engine.row import Row
from perfuse_renderer.engine.stepper import Denoise, Stepper
from perfuse_renderer.engine.warming import warm

_log = logging.getLogger(__name__)


class Engine:
    """Renders on one resident base model.

    Args:
        base: the base model; attached here if it is not.
        settings: limits.
        denoiser: one step of the denoiser, as `perfuse.attach.denoise`; another may be given to
            watch it. None takes the one that the settings ask for.
        decoder: from latents to pixels; another may be given likewise.
        clock: seconds, by which the denoiser's time is shared out.
    """

    def __init__(
        self,
        base: BaseModel,
        settings: EngineSettings | None = None,
        denoiser: Denoise | None = None,
        *,
        decoder: Decoder | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.base = base
        self.settings = settings or EngineSettings()
        self.pace = Pace()
        self.steps_taken = 0
        self._attachment = None if is_attached(base.unet) else attach(base.unet)
        if denoiser is None and self.settings.compile:
            denoiser = CompiledDenoiser(base, cuda_graphs=self.settings.cuda_graphs)
        self._stepper = Stepper(
            base,
            denoiser or denoise,
            self.settings.max_lanes,
            buckets=self.settings.buckets() if self.settings.pad else (),
            clock=clock,
        )
        self._decoder = decoder or Decoder(base)
        self._queues = Queues(self.settings, self.pace)
        self._errands = Errands()
        self._admission = Admission(self.settings, self.pace)
        self._wake = threading.Condition()
        self._resting = False
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
            ahead = self._admission.admit(render, places, self._queues.by_tenant)
            self._queues.add(places)
            render.tell(ahead)
            self._wake.notify()

    def warm_up(
        self,
        sizes: Sequence[Size] = (),
        lanes: Sequence[int] = (),
        chunks: Sequence[int] = (1,),
    ) -> None:
        """Step every kind of batch that renders will need, so that the first caller's is fast.

        Where the denoiser is compiled, it is for these kinds alone; others are stepped without.
        Blocks until it is done; what renders are here wait meanwhile. Afterwards the pace is
        known, and as many lanes as fit into the device's memory are the most.

        Args:
            sizes: heights and widths in pixels; empty for the base model's own.
            lanes: rows of a batch, each up to `max_lanes`; empty for all of
                `EngineSettings.buckets`.
            chunks: of the text that rows attend to; long prompts have several.

        Raises:
            FailedPrecondition: not even the smallest batch fits into memory, or the denoiser
                cannot be compiled.
            Unavailable: the engine is draining.
        """
        own = self.base.unet.config.sample_size * self.base.pipeline.vae_scale_factor
        warming = partial(
            warm,
            *(self.base, self._stepper, self._decoder, self.pace),
            sizes or [(own, own)],
            lanes or self.settings.buckets(),
            chunks,
        )
        # Compiled graphs belong to the thread that made them, so theirs is the engine's.
        with self._wake:
            if self._draining:
                raise _draining()
            done = self._errands.add(warming)
            self._wake.notify()
        done.result()

    def wake(self) -> None:
        """Have cancelled renders noticed although nothing steps."""
        with self._wake:
            self._wake.notify()

    @property
    def running(self) -> int:
        """Pictures that have begun."""
        with self._wake:
            return self._queues.running

    @property
    def waiting(self) -> int:
        """Pictures that have not."""
        with self._wake:
            return self._queues.waiting

    @property
    def idle(self) -> bool:
        """Whether nothing is left to step, and all that was stepped is told or being decoded."""
        with self._wake:
            return self._resting and not self._queues and not self._errands

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
                while not self._closing and not self._errands and not self._queues:
                    self._resting = True
                    self._wake.wait()
                self._resting = False
                if self._closing:
                    self._give_all_up()
                    return
                errand = self._errands.take()
            if errand is not None:
                self._errands.run(*errand)
                continue
            try:
                self._cycle()
            except Exception:
                # Whatever it was, it must not end everyone's renders with it.
                _log.exception("a cycle of the engine failed")
                time.sleep(0.1)

    def _cycle(self) -> None:
        """Drop what nobody waits for, choose rows, step them."""
        with self._wake:
            self._queues.drop_lost()
            chosen = self._queues.choose(self._stepper.max_lanes)
        ready = [place for place in chosen if self._begin(place)]
        if ready:
            self._step(ready)

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
        lanes = sum(place.picture.lanes for place in stepped.advanced)
        for place in stepped.advanced:
            self._tell(place, place.picture.lanes / lanes, stepped.seconds)

    def _account(self, places: list[Place], seconds: float, lanes: int) -> None:
        if not places:
            return
        self.pace.learn(places[0].size, lanes, seconds)
        with self._wake:
            self._queues.charge(places, seconds, lanes)

    def _tell(self, place: Place, share: float, seconds: float) -> None:
        row, render = place.row, place.render
        if row is None:
            return
        render.tell(Stepped(place.index, row.step, row.steps, share * seconds, share))
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
            self._queues.remove(place)

    def _give_all_up(self) -> None:
        self._queues.give_all_up(_draining())
        self._errands.give_all_up(_draining())


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


def _draining() -> Unavailable:
    error = Unavailable("this Renderer is ending. Call again; another one will answer")
    error.retry_after = 1.0
    return error
