"""A render: some pictures that one caller asked for together, and what happens to them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from perfuse.errors import FailedPrecondition, PerfuseError
from perfuse_renderer.engine.row import Picture, Row


@dataclass(frozen=True, slots=True)
class Queued:
    """No picture has begun; so many of the tenant's and others' steps come first."""

    position: int
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class Stepped:
    """A picture made a step.

    Attributes:
        seconds: of the denoiser that were its part of the step.
        share: of the step; those of all pictures of the batch add up to 1.
    """

    index: int
    step: int
    steps: int
    seconds: float = field(default=0.0, compare=False)
    share: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Previewed:
    """A picture as it would be if it ended now: `[3, h, w]` uint8 on the CPU."""

    index: int
    step: int
    pixels: torch.Tensor


@dataclass(frozen=True, slots=True)
class Finished:
    """A picture is done: `[3, h, w]` uint8 on the CPU."""

    index: int
    pixels: torch.Tensor


@dataclass(frozen=True, slots=True)
class Failed:
    """A picture will not come; the others of its render go on."""

    index: int
    error: PerfuseError


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more comes: all pictures finished or failed, or the whole render was given up.

    Attributes:
        error: why it was given up: cancelled, past its deadline, drained. None where it was not.
    """

    error: PerfuseError | None = None


Event = Queued | Stepped | Previewed | Finished | Failed | Ended
Sink = Callable[[Event], None]


class Render:
    """Pictures that belong together.

    Args:
        tenant: on whose behalf.
        pictures: at least one; all of one size.
        sink: told every event, on the engine's threads; it must not block.
        deadline: by `time.monotonic()`, or None.
        preview_every: steps between previews; 0 for none.

    Attributes:
        rows: index → row of the pictures that have begun and not ended.
    """

    def __init__(
        self,
        tenant: str,
        pictures: Sequence[Picture],
        sink: Sink,
        *,
        deadline: float | None = None,
        preview_every: int = 0,
    ) -> None:
        self.tenant = tenant
        self.pictures = tuple(pictures)
        self.deadline = deadline
        self.preview_every = preview_every
        self.began: float | None = None
        self.submitted = time.monotonic()
        self._sink = sink
        self._cancelled = threading.Event()
        self._left = len(self.pictures)
        self._ended = False
        # A sink may cancel the render that it is told of.
        self._lock = threading.RLock()

    def cancel(self) -> None:
        """Give it up, from any thread; the engine notices before its next step.

        Once this has returned, the sink is told nothing more but the end.
        """
        with self._lock:
            self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether it was given up by its caller."""
        return self._cancelled.is_set()

    @property
    def ended(self) -> bool:
        """Whether `Ended` was told."""
        return self._ended

    def tell(self, event: Queued | Stepped | Previewed) -> None:
        """Tell how it goes, unless it has ended or nobody listens any more."""
        with self._lock:
            if not self._ended and not self.cancelled:
                self._sink(event)

    def settle(self, event: Finished | Failed) -> None:
        """Tell the end of one picture, and with the last one the end of all."""
        with self._lock:
            if self.cancelled:
                self.give_up(None)
            if self._ended:
                return
            self._sink(event)
            self._left -= 1
            if self._left == 0:
                self._end(None)

    def give_up(self, error: PerfuseError | None) -> None:
        """End it as a whole, whatever its pictures are at; where it was cancelled, for that."""
        with self._lock:
            if not self._ended:
                cancelled = FailedPrecondition("the render was cancelled")
                self._end(cancelled if self.cancelled else error)

    def _end(self, error: PerfuseError | None) -> None:
        self._ended = True
        self._sink(Ended(error))


@dataclass(slots=True, eq=False)
class Place:
    """One picture of a render in the engine's queue; its row is made when its turn comes."""

    render: Render
    index: int
    row: Row | None = None

    @property
    def picture(self) -> Picture:
        """What it will be."""
        return self.render.pictures[self.index]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels, which decide what a step takes."""
        return self.picture.height, self.picture.width

    @property
    def shape(self) -> tuple[int, int, int]:
        """Places of one shape can share a batch: height, width, and positions of the text.

        Text of several chunks has a batch of its own. Filled up and masked it could share one, but
        attention would then add up other numbers of terms than alone, and by slower kernels.
        """
        return *self.size, self.picture.positions

    @property
    def lane_steps(self) -> int:
        """What is left to do, in lanes times steps."""
        done = self.row.step if self.row else 0
        return self.picture.lanes * max(0, self.picture.steps - done)
