"""What the Trainer keeps and tells, as callers see it. Nothing here is a protobuf message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from perfuse.client.resources import StoredLock

MaskSource = Literal["NONE", "UPLOADED", "CLIPSEG", "CROSS_ATTENTION"]
RunState = Literal["QUEUED", "RUNNING", "CANCELLING", "SUCCEEDED", "FAILED", "CANCELLED"]

ENDED: frozenset[RunState] = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
"""States after which nothing more happens to a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One picture of an image set, as it is kept.

    Attributes:
        digest: of the bytes that were sent.
        width, height: pixels, upright.
    """

    file_name: str
    digest: str
    width: int
    height: int
    has_mask: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """Pictures of one thing.

    Attributes:
        name: `tenants/{tenant}/imageSets/{image_set}`.
        images: by file name; lists of sets leave them out.
        keep: whether the images stay when the last run that uses them has ended.
        emptied: whether the images were deleted.
        expire_time: when they are deleted at the latest.
    """

    name: str
    uid: str
    images: tuple[Image, ...] = ()
    keep: bool = False
    emptied: bool = False
    expire_time: datetime | None = None
    create_time: datetime | None = None
    update_time: datetime | None = None
    etag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewSettings:
    """Pictures of an unfinished concept; None takes what the Trainer has by default.

    Attributes:
        prompts: in which `<>` stands for the concept; at most 4.
        every: training steps between previews.
        steps: denoising steps of each.
        guidance: of each.
    """

    prompts: tuple[str, ...] = ()
    every: int | None = None
    steps: int | None = None
    guidance: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """How a run is trained; None takes the paper's value.

    Attributes:
        steps: of the optimiser, 400 by default.
        batch: rows of a step, 16 by default.
        seed: of every draw.
        mask_source: where soft masks over the subject come from.
        validate_every: steps between validations, 25 by default.
        patience: validations without a better one after which the run ends early; None for never.
        flip: probability that a picture is mirrored; 0 for asymmetric things.
        output_rate, embedding_rate: learning rates, 0.03 and 0.006 by default.
        bias, temperature: of the gate in training.
        render_bias, render_temperature: that the version suggests for rendering.
        previews: None for none.
        exclusive: share no pass with other runs: slower, and the bytes depend on nothing else.
    """

    steps: int | None = None
    batch: int | None = None
    seed: int = 0
    mask_source: MaskSource = "NONE"
    validate_every: int | None = None
    patience: int | None = None
    flip: float | None = None
    output_rate: float | None = None
    embedding_rate: float | None = None
    bias: float | None = None
    temperature: float | None = None
    render_bias: float | None = None
    render_temperature: float | None = None
    previews: PreviewSettings | None = None
    exclusive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunError:
    """Why a run failed.

    Attributes:
        reason: for machines, as `perfuse.errors` spells it.
        message: for people.
    """

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """A run came into a state.

    Attributes:
        sequence: of the event; a watcher goes on after it.
        error: why it failed.
        version: that came of it, once it has succeeded.
        attempt: how often it was begun or gone on with.
    """

    sequence: int
    time: datetime | None
    state: RunState
    error: RunError | None = None
    version: str = ""
    attempt: int = 0

    @property
    def ended(self) -> bool:
        """Whether this was the run's last event."""
        return self.state in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingProgress:
    """How far a run is.

    Attributes:
        step, steps: done, and in all.
        loss: of the step.
        steps_per_second: of late.
        remaining_seconds: at that rate.
    """

    sequence: int
    time: datetime | None
    step: int
    steps: int
    loss: float
    steps_per_second: float
    remaining_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """The loss on fixed noise and timesteps; `best` where it is the lowest so far.

    `sequence` and `time` are of the event, and absent among a run's own validations.
    """

    step: int
    loss: float
    best: bool
    sequence: int = 0
    time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    """Cosine between previews and the training pictures, as an image encoder sees them."""

    sequence: int
    time: datetime | None
    step: int
    cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewPicture:
    """A picture of the unfinished concept, a PNG."""

    sequence: int
    time: datetime | None
    step: int
    prompt: str
    picture: bytes = field(repr=False)


TrainingEvent = StateChange | TrainingProgress | Validation | Similarity | PreviewPicture


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """One attempt to learn a concept.

    Attributes:
        name: `tenants/{tenant}/trainingRuns/{training_run}`.
        concept: that the version becomes one of.
        image_set: that it learns from.
        settings: as the Trainer understood them.
        step: done so far.
        loss: of the last step, None before the first.
        validations: so far; lists of runs leave them out.
        version: that came of it, empty until then.
        digest: of the adapter.
        error: why it failed.
        attempt: how often it was begun or gone on with.
        last_sequence: of its last event.
    """

    name: str
    uid: str
    concept: str
    image_set: str
    base_model: str
    super_category: str
    key_lock: StoredLock
    settings: TrainingSettings
    state: RunState
    step: int = 0
    loss: float | None = None
    validations: tuple[Validation, ...] = ()
    version: str = ""
    digest: str = ""
    error: RunError | None = None
    attempt: int = 0
    last_sequence: int = 0
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    create_time: datetime | None = None
    update_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    etag: str = ""

    @property
    def id(self) -> str:
        """The last part of the name."""
        return self.name.rpartition("/")[2]

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in ENDED
