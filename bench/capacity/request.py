"""One request for pictures, as the engine's queues see it, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """How a request ended; each ends in exactly one way."""

    FINISHED = "finished"
    REFUSED = "refused"
    LATE = "late"


@dataclass(slots=True, eq=False)
class Picture:
    """What a picture takes."""

    steps: int
    lanes: int
    height: int = 1
    width: int = 1
    positions: int = 77


@dataclass(slots=True)
class Row:
    """A picture that has begun."""

    steps: int
    step: int = 0

    @property
    def done(self) -> bool:
        """Whether the last step is behind it."""
        return self.step >= self.steps


class Request:
    """Pictures that one caller asked for together; stands where the engine has its `Render`.

    Args:
        tenant: on whose behalf.
        began: seconds, when it came.
        pictures: at least one.
        deadline: seconds, or None.

    Attributes:
        outcome: None until it ended.
        latency: seconds from its coming to its end.
    """

    __slots__ = (
        *("began", "cancelled", "deadline", "ended", "latency", "left"),
        *("on_end", "outcome", "pictures", "tenant"),
    )

    def __init__(
        self, tenant: str, began: float, pictures: list[Picture], deadline: float | None = None
    ) -> None:
        self.tenant = tenant
        self.began = began
        self.pictures = pictures
        self.deadline = deadline
        self.left = len(pictures)
        self.cancelled = False
        self.ended = False
        self.outcome: Outcome | None = None
        self.latency = 0.0
        self.on_end: Callable[[], None] | None = None

    def give_up(self, _error: Exception | None = None) -> None:
        """Called by the engine's queues for one that is past its deadline."""
        if not self.ended:
            # The caller heard of it at its deadline, whenever the queues looked.
            self.end(Outcome.LATE, self.deadline if self.deadline is not None else self.began)

    def end(self, outcome: Outcome, moment: float) -> None:
        """It has ended.

        Raises:
            RuntimeError: it had ended before.
        """
        if self.outcome is not None:
            raise RuntimeError(f"a request that was {self.outcome} became {outcome}")
        self.ended = True
        self.outcome = outcome
        self.latency = moment - self.began
        if self.on_end is not None:
            self.on_end()
