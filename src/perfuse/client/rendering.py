"""What the Renderer is asked and tells, as callers see it. Nothing here is a protobuf message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from perfuse.client.quotas import QuotaUsage

RenderLock = Literal["LOCAL", "GLOBAL"]
PictureFormat = Literal["PNG", "JPEG", "WEBP"]

SUFFIX: Mapping[PictureFormat, str] = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp"}
"""Of a file in each format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptSettings:
    """What is asked of one concept; None takes what its version suggests.

    Attributes:
        bias: 0 to 1, towards editability; lower is closer to the concept's looks.
        temperature: of its gate.
        version: number, alias or `latest`, in place of what the placeholder says.
    """

    bias: float | None = None
    temperature: float | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderSettings:
    """What to render.

    Attributes:
        prompt: names concepts in place: `<tom>`, `<tom@prod>`, `<tom@7>`, `<acme/tom>`.
        negative_prompt: may name concepts too.
        concepts: placeholder without its brackets, as written in the prompt → its settings.
        key_lock: None takes the lock that the versions were trained with.
        seeds: one for each picture; empty: `count` seeds drawn by the Renderer.
        count: of pictures where there are no seeds; 1 by default.
        width, height: pixels; None takes the base model's own.
        steps: of denoising; None takes the Renderer's.
        guidance: None takes the Renderer's; 1 or less is none.
        scheduler: by name, as the Renderer's status lists them; empty takes the base model's.
        format: of the files.
        base_model: `baseModels/{id}` or the id; empty where the Renderer has only one.
        chunk_long_prompts: read a prompt that is too long in chunks instead of refusing it.
    """

    prompt: str
    negative_prompt: str = ""
    concepts: Mapping[str, ConceptSettings] = field(default_factory=dict)
    key_lock: RenderLock | None = None
    seeds: tuple[int, ...] = ()
    count: int | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance: float | None = None
    scheduler: str = ""
    format: PictureFormat = "PNG"
    base_model: str = ""
    chunk_long_prompts: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedConcept:
    """A concept as it was rendered.

    Attributes:
        placeholder: as written.
        version: by number.
        digest: of its adapter.
    """

    placeholder: str
    version: str
    digest: str
    bias: float
    temperature: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderRecord:
    """Exactly what was rendered; a PNG carries it too.

    Attributes:
        plan_digest, negative_plan_digest: of the conditioning plans.
        key_lock: empty where the prompt names no concept.
        release: of the Renderer.
        chunk_count: in which the prompt was read.
    """

    base_model: str
    base_model_fingerprint: str
    prompt: str
    negative_prompt: str
    concepts: tuple[RenderedConcept, ...]
    key_lock: str
    plan_digest: str
    negative_plan_digest: str
    seed: int
    width: int
    height: int
    steps: int
    guidance: float
    scheduler: str
    release: str
    render_time: datetime | None
    chunk_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """The render waits; `position` pictures are ahead of it."""

    position: int
    expected_wait_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A picture made a step."""

    image_index: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """An unfinished picture, a small PNG."""

    image_index: int
    step: int
    picture: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedImage:
    """A finished picture.

    Attributes:
        image_index: among the pictures of its render.
        picture: the file's bytes.
    """

    image_index: int
    picture: bytes = field(repr=False)
    format: PictureFormat
    record: RenderRecord

    def save(self, path: str | Path) -> Path:
        """Write the file; a suffix that is missing is added, a folder is made.

        Returns:
            Where it lies.
        """
        place = Path(path)
        # What follows a dot may belong to a number, as in `bias-0.4`.
        if place.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
            place = place.with_name(place.name + SUFFIX[self.format])
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(self.picture)
        return place


RenderEvent = Queued | Progress | Preview | RenderedImage


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidentBaseModel:
    """A base model that can be rendered on; `picture_size` is its own, in pixels."""

    name: str
    fingerprint: str
    picture_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RendererStatus:
    """What is resident, how busy it is, and what the caller's tenant had in the last minute."""

    base_models: tuple[ResidentBaseModel, ...]
    schedulers: tuple[str, ...]
    running_count: int
    waiting_count: int
    resident_adapter_count: int
    resident_adapter_bytes: int
    quotas: tuple[QuotaUsage, ...] = ()
