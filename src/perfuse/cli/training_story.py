"""A training run as its events tell it: state, curves, the best validation, the newest preview."""

from __future__ import annotations

from dataclasses import dataclass, field

from perfuse.client import (
    PreviewPicture,
    RunError,
    Similarity,
    StateChange,
    TrainingEvent,
    TrainingProgress,
    TrainingRun,
    Validation,
)
from perfuse.client.training import RunState


@dataclass
class TrainingStory:
    """What is known of a run; events may be told in any number of watches, in order.

    Attributes:
        concept: its id.
        run: the run's id.
        state: as last told.
        step, steps: done, and in all; 0 while unknown.
        losses, similarities: of steps and of previews, from the first on.
        best: the lowest validation.
        preview: the newest picture.
        rate: steps a second.
        remaining: seconds at that rate.
        version: that came of it.
        error: why it failed.
    """

    concept: str
    run: str
    state: RunState = "QUEUED"
    step: int = 0
    steps: int = 0
    losses: list[float] = field(default_factory=list)
    similarities: list[float] = field(default_factory=list)
    best: Validation | None = None
    preview: PreviewPicture | None = None
    rate: float = 0.0
    remaining: float = 0.0
    version: str = ""
    error: RunError | None = None

    @classmethod
    def of(cls, run: TrainingRun) -> TrainingStory:
        """The story of a run before its events are heard."""
        return cls(
            concept=run.concept.rpartition("/")[2],
            run=run.id,
            state=run.state,
            step=run.step,
            steps=run.settings.steps or 0,
            version=run.version,
            error=run.error,
        )

    def hear(self, event: TrainingEvent) -> None:
        """Take an event in."""
        match event:
            case StateChange():
                self.state, self.version = event.state, event.version
                self.error = event.error
            case TrainingProgress():
                self.step, self.steps = event.step, event.steps
                self.losses.append(event.loss)
                self.rate, self.remaining = event.steps_per_second, event.remaining_seconds
            case Validation():
                if event.best or self.best is None:
                    self.best = event
            case Similarity():
                self.similarities.append(event.cosine)
            case PreviewPicture():
                self.preview = event
