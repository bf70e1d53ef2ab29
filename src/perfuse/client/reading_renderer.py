"""From the Renderer's messages to what callers see."""

from __future__ import annotations

from perfuse.client import rendering
from perfuse.client.reading_quotas import quota_usage
from perfuse.client.values import moment, short_name
from perfuse.v1 import renderer_pb2


def render_event(sent: renderer_pb2.RenderResponse) -> rendering.RenderEvent | None:
    """An event of a render; None for a kind that this release does not know."""
    match sent.WhichOneof("event"):
        case "queued":
            return rendering.Queued(
                position=sent.queued.position,
                expected_wait_seconds=sent.queued.expected_wait_seconds,
            )
        case "progress":
            done = sent.progress
            return rendering.Progress(
                image_index=done.image_index, step=done.step, steps=done.steps
            )
        case "preview":
            seen = sent.preview
            return rendering.Preview(
                image_index=seen.image_index, step=seen.step, picture=seen.picture
            )
        case "image":
            return _rendered_image(sent.image)
    return None


def renderer_status(sent: renderer_pb2.GetRendererStatusResponse) -> rendering.RendererStatus:
    """What the Renderer says of itself."""
    return rendering.RendererStatus(
        base_models=tuple(
            rendering.ResidentBaseModel(
                name=base.name, fingerprint=base.fingerprint, picture_size=base.picture_size
            )
            for base in sent.base_models
        ),
        schedulers=tuple(sent.schedulers),
        running_count=sent.running_count,
        waiting_count=sent.waiting_count,
        resident_adapter_count=sent.resident_adapter_count,
        resident_adapter_bytes=sent.resident_adapter_bytes,
        quotas=tuple(map(quota_usage, sent.quotas)),
    )


def _rendered_image(sent: renderer_pb2.RenderedImage) -> rendering.RenderedImage:
    record = sent.record
    plain = (
        *("base_model", "base_model_fingerprint", "prompt", "negative_prompt", "key_lock"),
        *("plan_digest", "negative_plan_digest", "seed", "width", "height", "steps", "guidance"),
        *("scheduler", "release", "chunk_count"),
    )
    return rendering.RenderedImage(
        image_index=sent.image_index,
        picture=sent.picture,
        format=short_name(renderer_pb2.PictureFormat.Name, sent.format, "PICTURE_FORMAT_"),
        record=rendering.RenderRecord(
            **{name: getattr(record, name) for name in plain},
            concepts=tuple(
                rendering.RenderedConcept(
                    placeholder=each.placeholder,
                    version=each.version,
                    digest=each.digest,
                    bias=each.bias,
                    temperature=each.temperature,
                )
                for each in record.concepts
            ),
            render_time=moment(record, "render_time"),
        ),
    )
