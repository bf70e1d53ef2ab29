"""What a caller asks to be trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from perfuse.names import ConceptName, ImageSetName
from perfuse_trainer.runs.run_settings import RunSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOrder:
    """What a caller asks for.

    Attributes:
        run_id: of the run; may be empty.
        exclusive: share no forward pass with other runs.
        consent_until: until when the person whose likeness it is to learn has consented; None where
            the concept is no likeness.
        traceparent: the span that asks, as `perfuse.serving.tracing.carried` gives it.
    """

    tenant: str
    run_id: str
    concept: ConceptName
    image_set: ImageSetName
    base_model_id: str
    settings: RunSettings
    description: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    exclusive: bool = False
    consent_until: datetime | None = None
    traceparent: str | None = None
