"""From messages to what callers see; the only place that knows both, for answers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

from perfuse.client import rendering, resources, training
from perfuse.v1 import registry_pb2, renderer_pb2, trainer_pb2


def concept(sent: registry_pb2.Concept) -> resources.Concept:
    """A concept."""
    return resources.Concept(
        name=sent.name,
        uid=sent.uid,
        super_category=sent.super_category,
        display_name=sent.display_name,
        description=sent.description,
        labels=dict(sent.labels),
        latest_version=sent.latest_version,
        create_time=_time(sent, "create_time"),
        update_time=_time(sent, "update_time"),
        delete_time=_time(sent, "delete_time"),
        purge_time=_time(sent, "purge_time"),
        etag=sent.etag,
    )


def version(sent: registry_pb2.Version) -> resources.Version:
    """A version."""
    return resources.Version(
        name=sent.name,
        uid=sent.uid,
        digest=sent.digest,
        size_bytes=sent.size_bytes,
        base_model=sent.base_model,
        base_model_fingerprint=sent.base_model_fingerprint,
        key_lock=_lock(sent.key_lock),
        placeholder=sent.placeholder,
        super_category=sent.super_category,
        bias=sent.bias,
        temperature=sent.temperature,
        training=dict(sent.training),
        training_run=sent.training_run,
        description=sent.description,
        labels=dict(sent.labels),
        create_time=_time(sent, "create_time"),
        update_time=_time(sent, "update_time"),
        etag=sent.etag,
    )


def alias(sent: registry_pb2.Alias) -> resources.Alias:
    """An alias."""
    return resources.Alias(
        name=sent.name,
        uid=sent.uid,
        version=sent.version,
        create_time=_time(sent, "create_time"),
        update_time=_time(sent, "update_time"),
        etag=sent.etag,
    )


def alias_move(sent: registry_pb2.AliasMove) -> resources.AliasMove:
    """A move of an alias."""
    return resources.AliasMove(
        from_version=sent.from_version,
        to_version=sent.to_version,
        move_time=_time(sent, "move_time"),
        mover=sent.mover,
    )


def base_model(sent: registry_pb2.BaseModel) -> resources.BaseModel:
    """A base model."""
    return resources.BaseModel(
        name=sent.name,
        fingerprint=sent.fingerprint,
        architecture=sent.architecture,
        conditioning_width=sent.conditioning_width,
        layers={layer.name: layer.width for layer in sent.layers},
        encoders={encoder.name: encoder.width for encoder in sent.encoders},
        covariance_digest=sent.covariance_digest,
        display_name=sent.display_name,
        labels=dict(sent.labels),
        uid=sent.uid,
        create_time=_time(sent, "create_time"),
        update_time=_time(sent, "update_time"),
        etag=sent.etag,
    )


def image_set(sent: trainer_pb2.ImageSet) -> training.ImageSet:
    """An image set."""
    return training.ImageSet(
        name=sent.name,
        uid=sent.uid,
        images=tuple(
            training.Image(
                file_name=image.file_name,
                digest=image.digest,
                width=image.width,
                height=image.height,
                has_mask=image.has_mask,
            )
            for image in sent.images
        ),
        keep=sent.keep,
        emptied=sent.emptied,
        expire_time=_time(sent, "expire_time"),
        create_time=_time(sent, "create_time"),
        update_time=_time(sent, "update_time"),
        etag=sent.etag,
    )


def training_run(sent: trainer_pb2.TrainingRun) -> training.TrainingRun:
    """A training run."""
    return training.TrainingRun(
        name=sent.name,
        uid=sent.uid,
        concept=sent.concept,
        image_set=sent.image_set,
        base_model=sent.base_model,
        super_category=sent.super_category,
        key_lock=_lock(sent.key_lock),
        settings=_training_settings(sent.settings),
        state=_state(sent.state),
        step=sent.step,
        loss=sent.loss if sent.HasField("loss") else None,
        validations=tuple(
            training.Validation(step=each.step, loss=each.loss, best=each.best)
            for each in sent.validations
        ),
        version=sent.version,
        digest=sent.digest,
        error=_run_error(sent),
        attempt=sent.attempt,
        last_sequence=sent.last_sequence,
        description=sent.description,
        labels=dict(sent.labels),
        create_time=_time(sent, "create_time"),
        update_time=_time(sent, "update_time"),
        start_time=_time(sent, "start_time"),
        end_time=_time(sent, "end_time"),
        etag=sent.etag,
    )


def training_event(sent: trainer_pb2.WatchTrainingRunResponse) -> training.TrainingEvent | None:
    """An event of a run; None for a kind that this release does not know."""
    at: dict[str, Any] = {"sequence": sent.sequence, "time": _time(sent, "event_time")}
    match sent.WhichOneof("event"):
        case "state_change":
            change = sent.state_change
            return training.StateChange(
                **at,
                state=_state(change.state),
                error=_run_error(change),
                version=change.version,
                attempt=change.attempt,
            )
        case "progress":
            done = sent.progress
            return training.TrainingProgress(
                **at,
                step=done.step,
                steps=done.steps,
                loss=done.loss,
                steps_per_second=done.steps_per_second,
                remaining_seconds=done.remaining_seconds,
            )
        case "validation":
            found = sent.validation
            return training.Validation(**at, step=found.step, loss=found.loss, best=found.best)
        case "similarity":
            return training.Similarity(
                **at, step=sent.similarity.step, cosine=sent.similarity.cosine
            )
        case "preview":
            seen = sent.preview
            return training.PreviewPicture(
                **at, step=seen.step, prompt=seen.prompt, picture=seen.picture
            )
    return None


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
        format=_short(renderer_pb2.PictureFormat.Name, sent.format, "PICTURE_FORMAT_"),
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
            render_time=_time(record, "render_time"),
        ),
    )


def _training_settings(sent: trainer_pb2.TrainingSettings) -> training.TrainingSettings:
    previews = None
    if sent.HasField("previews"):
        previews = training.PreviewSettings(
            prompts=tuple(sent.previews.prompts),
            every=sent.previews.every or None,
            steps=sent.previews.steps or None,
            guidance=sent.previews.guidance or None,
        )
    masks = _short(trainer_pb2.MaskSource.Name, sent.mask_source, "MASK_SOURCE_")
    zero_is_unset = ("steps", "batch", "validate_every", "patience", "output_rate", "temperature")
    optional = ("flip", "embedding_rate", "bias", "render_bias")
    return training.TrainingSettings(
        **{name: getattr(sent, name) or None for name in zero_is_unset},
        **{name: getattr(sent, name) if sent.HasField(name) else None for name in optional},
        render_temperature=sent.render_temperature or None,
        seed=sent.seed,
        mask_source="NONE" if masks == "UNSPECIFIED" else cast(training.MaskSource, masks),
        previews=previews,
        exclusive=sent.exclusive,
    )


def _run_error(sent: Any) -> training.RunError | None:
    if not sent.HasField("error"):
        return None
    return training.RunError(reason=sent.error.reason, message=sent.error.message)


def _state(number: int) -> training.RunState:
    name: Any = _short(trainer_pb2.TrainingRunState.Name, number, "TRAINING_RUN_STATE_")
    return name  # type: ignore[no-any-return]


def _lock(number: int) -> resources.StoredLock:
    name: Any = _short(registry_pb2.KeyLock.Name, number, "KEY_LOCK_")
    # Unspecified means LOCAL wherever an adapter's lock is told.
    return "LOCAL" if name == "UNSPECIFIED" else name


def _short(name_of: Callable[[Any], str], number: int, prefix: str) -> Any:
    """A value's name without its prefix; the number, where a later release named it."""
    try:
        return name_of(number).removeprefix(prefix)
    except ValueError:
        return str(number)


def _time(message: Any, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    moment: datetime = getattr(message, field).ToDatetime(tzinfo=UTC)
    return moment
