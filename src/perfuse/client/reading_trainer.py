"""From the Trainer's messages to what callers see."""

from __future__ import annotations

from typing import Any, cast

from perfuse.client import training
from perfuse.client.values import key_lock, moment, short_name
from perfuse.v1 import trainer_pb2


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
        expire_time=moment(sent, "expire_time"),
        create_time=moment(sent, "create_time"),
        update_time=moment(sent, "update_time"),
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
        key_lock=key_lock(sent.key_lock),
        settings=training_settings(sent.settings),
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
        create_time=moment(sent, "create_time"),
        update_time=moment(sent, "update_time"),
        start_time=moment(sent, "start_time"),
        end_time=moment(sent, "end_time"),
        etag=sent.etag,
    )


def training_event(sent: trainer_pb2.WatchTrainingRunResponse) -> training.TrainingEvent | None:
    """An event of a run; None for a kind that this release does not know."""
    at: dict[str, Any] = {"sequence": sent.sequence, "time": moment(sent, "event_time")}
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


def training_settings(sent: trainer_pb2.TrainingSettings) -> training.TrainingSettings:
    """How a run is trained; what is unset is None."""
    previews = None
    if sent.HasField("previews"):
        previews = training.PreviewSettings(
            prompts=tuple(sent.previews.prompts),
            every=sent.previews.every or None,
            steps=sent.previews.steps or None,
            guidance=sent.previews.guidance or None,
        )
    masks = short_name(trainer_pb2.MaskSource.Name, sent.mask_source, "MASK_SOURCE_")
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
    name: Any = short_name(trainer_pb2.TrainingRunState.Name, number, "TRAINING_RUN_STATE_")
    return name  # type: ignore[no-any-return]
