"""All that a run was asked to do, as its row keeps it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from perfuse.key_lock import KeyLock
from perfuse_trainer.learning.mask_source import MaskSource
from perfuse_trainer.learning.settings import TrainingSettings


@dataclass(frozen=True, slots=True)
class PreviewSettings:
    """Pictures of the unfinished concept.

    Attributes:
        prompts: in which `<>` stands for the concept.
        every: training steps between them.
        steps: of denoising.
        guidance: scale of classifier-free guidance.
    """

    prompts: tuple[str, ...] = ("a photo of a <>",)
    every: int = 100
    steps: int = 15
    guidance: float = 7.5


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a run is trained.

    Attributes:
        training: of the optimisation.
        fingerprint: of the base model, as the Registry has it.
        mask_source: where masks come from.
        previews: None for none.
    """

    training: TrainingSettings
    fingerprint: str
    mask_source: MaskSource = MaskSource.NONE
    previews: PreviewSettings | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` gives the same settings."""
        return asdict(self)

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> RunSettings:
        """What `to_json` gave."""
        training = kept["training"]
        previews = kept["previews"]
        if previews is not None:
            previews = PreviewSettings(**{**previews, "prompts": tuple(previews["prompts"])})
        return cls(
            training=TrainingSettings(**{**training, "key_lock": KeyLock(training["key_lock"])}),
            fingerprint=kept["fingerprint"],
            mask_source=MaskSource(kept["mask_source"]),
            previews=previews,
        )
