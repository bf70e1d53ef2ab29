"""Between the wire's messages and the Renderer's values; nothing is decided here."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from perfuse.errors import InvalidArgument
from perfuse.method import KeyLock
from perfuse.v1 import renderer_pb2 as wire
from perfuse_renderer.planning import ConceptSettings
from perfuse_renderer.studio import Record, RenderOrder

_LOCKS = {
    wire.RENDER_LOCK_UNSPECIFIED: None,
    wire.RENDER_LOCK_LOCAL: KeyLock.LOCAL,
    wire.RENDER_LOCK_GLOBAL: KeyLock.GLOBAL,
}
FORMATS = {
    "PNG": wire.PICTURE_FORMAT_PNG,
    "JPEG": wire.PICTURE_FORMAT_JPEG,
    "WEBP": wire.PICTURE_FORMAT_WEBP,
}
_NAMES = {number: name for name, number in FORMATS.items()}


def format_name(form: wire.PictureFormat) -> str:
    """`PNG`, `JPEG` or `WEBP`; PNG where none is said."""
    return _NAMES.get(form, "PNG")


def order(settings: wire.RenderSettings) -> RenderOrder:
    """What a caller asks to be rendered.

    Raises:
        InvalidArgument: a placeholder with two settings.
    """
    concepts: dict[str, ConceptSettings] = {}
    for said in settings.concepts:
        if said.placeholder in concepts:
            raise InvalidArgument.in_field(
                "settings.concepts", f"<{said.placeholder[:80]}> is there twice; say it once"
            )
        concepts[said.placeholder] = ConceptSettings(
            bias=said.bias if said.HasField("bias") else None,
            temperature=said.temperature if said.HasField("temperature") else None,
            version=said.version or None,
        )
    return RenderOrder(
        prompt=settings.prompt,
        negative_prompt=settings.negative_prompt,
        concepts=concepts,
        key_lock=_LOCKS[settings.key_lock],
        seeds=tuple(settings.seeds),
        image_count=settings.image_count,
        width=settings.width,
        height=settings.height,
        steps=settings.steps,
        guidance=settings.guidance if settings.HasField("guidance") else None,
        scheduler=settings.scheduler,
        in_chunks=settings.long_prompt == wire.LONG_PROMPT_CHUNK,
    )


def record(value: Record) -> wire.RenderRecord:
    """A record for the wire."""
    moment = Timestamp()
    moment.FromDatetime(value.render_time)
    return wire.RenderRecord(
        base_model=value.base_model,
        base_model_fingerprint=value.base_model_fingerprint,
        prompt=value.prompt,
        negative_prompt=value.negative_prompt,
        concepts=[
            wire.RenderedConcept(
                placeholder=concept.placeholder,
                version=str(concept.version),
                digest=concept.digest,
                bias=concept.bias,
                temperature=concept.temperature,
            )
            for concept in value.concepts
        ],
        key_lock=value.key_lock,
        plan_digest=value.plan_digest,
        negative_plan_digest=value.negative_plan_digest,
        seed=value.seed,
        width=value.width,
        height=value.height,
        steps=value.steps,
        guidance=value.guidance,
        scheduler=value.scheduler,
        release=value.release,
        render_time=moment,
        chunk_count=value.chunk_count,
    )
