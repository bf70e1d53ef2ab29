"""What the rules return: resources as plain values, each with a text form for replays."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from perfuse.names import ConceptName, ImageSetName, TrainingRunName, VersionName


class RunState(StrEnum):
    """Where a run is."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether nothing will ever change about it."""
        return self in ENDED


ENDED = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One image of a set, as it is kept."""

    file_name: str
    digest: str
    width: int
    height: int
    has_mask: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """Pictures of one thing; in lists without the single images."""

    tenant: str
    image_set_id: str
    uid: str
    keep: bool
    emptied: bool
    revision: int
    create_time: datetime
    update_time: datetime
    expire_time: datetime
    images: tuple[Image, ...] = ()

    @property
    def name(self) -> ImageSetName:
        """Its resource name."""
        return ImageSetName(self.tenant, self.image_set_id)

    @property
    def etag(self) -> str:
        """Changes with every change."""
        return etag_of(self.uid, self.revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationPoint:
    """One validation."""

    step: int
    loss: float
    best: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A training run; in lists without the single validations."""

    tenant: str
    run_id: str
    uid: str
    concept_id: str
    image_set_id: str
    base_model_id: str
    super_category: str
    key_lock: str
    settings: dict[str, Any]
    description: str
    labels: dict[str, str]
    exclusive: bool
    state: RunState
    step: int
    loss: float | None
    attempt: int
    digest: str | None
    version_number: int | None
    error_reason: str
    error_message: str
    next_sequence: int
    revision: int
    create_time: datetime
    update_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    validations: tuple[ValidationPoint, ...] = ()

    @property
    def name(self) -> TrainingRunName:
        """Its resource name."""
        return TrainingRunName(self.tenant, self.run_id)

    @property
    def concept(self) -> ConceptName:
        """What it learns."""
        return ConceptName(self.tenant, self.concept_id)

    @property
    def image_set(self) -> ImageSetName:
        """What it learns from."""
        return ImageSetName(self.tenant, self.image_set_id)

    @property
    def version(self) -> VersionName | None:
        """What came of it."""
        if self.version_number is None:
            return None
        return self.concept.version(self.version_number)

    @property
    def etag(self) -> str:
        """Changes with every change."""
        return etag_of(self.uid, self.revision)


class EventKind(StrEnum):
    """What an event tells."""

    STATE = "STATE"
    PROGRESS = "PROGRESS"
    VALIDATION = "VALIDATION"
    SIMILARITY = "SIMILARITY"
    PREVIEW = "PREVIEW"


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a run.

    Attributes:
        sequence: from 1, without gaps.
        event_time: when it happened.
        kind: which of the messages `body` holds the fields of.
        body: plain JSON.
        blob: digest of a preview's file.
    """

    sequence: int
    event_time: datetime
    kind: EventKind
    body: dict[str, Any] = field(default_factory=dict)
    blob: str | None = None


def etag_of(uid: str, revision: int) -> str:
    """The etag of a resource: a name's later holder never has an earlier one's (AIP-154)."""
    return f'"{uid[:8]}-{revision}"'
