"""What is left of an erased concept, as a plain value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum

from perfuse.names import ErasureName


class Fate(StrEnum):
    """What became of an adapter's bytes."""

    PENDING = "PENDING"
    REMOVED = "REMOVED"
    KEPT = "KEPT"


@dataclass(frozen=True, slots=True)
class ErasedAdapter:
    """A file that the concept had; `holder_count` other concepts of the tenant have it too.

    `preview` says that it is a preview's and no adapter.
    """

    digest: str
    size_bytes: int
    state: Fate
    holder_count: int
    preview: bool = False


@dataclass(frozen=True, slots=True)
class TrainerCounts:
    """What the Trainer removed; see `TrainerErasure` of the API."""

    run_count: int = 0
    ended_run_count: int = 0
    image_set_count: int = 0
    kept_image_set_count: int = 0
    file_count: int = 0

    def to_json(self) -> dict[str, int]:
        """Its fields, for a row and a receipt."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """The tombstone.

    Attributes:
        settle_time: When the last of its bytes were removed, or found to be others' too.
        trainer, trainer_time: What the Trainer said, and when; None before.
        adapters: By digest; empty in lists.
    """

    tenant: str
    concept_id: str
    uid: str
    eraser: str
    erase_time: datetime
    version_count: int
    alias_count: int
    grant_count: int
    consent_count: int
    settle_time: datetime | None = None
    trainer: TrainerCounts | None = None
    trainer_time: datetime | None = None
    adapters: tuple[ErasedAdapter, ...] = ()

    @property
    def name(self) -> ErasureName:
        """Its resource name."""
        return ErasureName(self.tenant, self.concept_id)

    @property
    def complete_time(self) -> datetime | None:
        """When Registry and Trainer had both removed what they kept; None before."""
        if self.settle_time is None or self.trainer_time is None:
            return None
        return max(self.settle_time, self.trainer_time)
