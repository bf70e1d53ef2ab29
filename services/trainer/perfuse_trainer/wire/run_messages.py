"""Training runs between the wire's messages and the rules' values; nothing is decided here."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from perfuse.errors import InvalidArgument
from perfuse.key_lock import KeyLock
from perfuse.v1 import registry_pb2
from perfuse.v1 import trainer_pb2 as wire
from perfuse_trainer.learning.mask_source import MaskSource
from perfuse_trainer.learning.settings import TrainingSettings
from perfuse_trainer.resources import Event, EventKind, Run
from perfuse_trainer.runs.run_settings import PreviewSettings, RunSettings

_KEY_LOCKS = {
    registry_pb2.KEY_LOCK_UNSPECIFIED: KeyLock.LOCAL,
    registry_pb2.KEY_LOCK_LOCAL: KeyLock.LOCAL,
    registry_pb2.KEY_LOCK_TRAINED_K: KeyLock.TRAINED_K,
}
_SENT_LOCKS = {
    "LOCAL": registry_pb2.KEY_LOCK_LOCAL,
    "TRAINED_K": registry_pb2.KEY_LOCK_TRAINED_K,
}
_MASK_SOURCES = {
    wire.MASK_SOURCE_UNSPECIFIED: MaskSource.NONE,
    wire.MASK_SOURCE_NONE: MaskSource.NONE,
    wire.MASK_SOURCE_UPLOADED: MaskSource.UPLOADED,
    wire.MASK_SOURCE_CLIPSEG: MaskSource.CLIPSEG,
    wire.MASK_SOURCE_CROSS_ATTENTION: MaskSource.CROSS_ATTENTION,
}
_SENT_SOURCES = {source: number for number, source in _MASK_SOURCES.items()}


def content(request: wire.CreateTrainingRunRequest) -> dict[str, Any]:
    """What a repeated request must ask for again, as plain JSON."""
    asked: dict[str, Any] = MessageToDict(request, preserving_proto_field_name=True)
    asked.pop("request_id", None)
    return asked


def settings(
    sent: wire.TrainingRun, placeholder: str, super_category: str, fingerprint: str
) -> RunSettings:
    """How a run is to be trained; what the caller left open is the paper's.

    Raises:
        InvalidArgument: a value outside its range.
    """
    given = sent.settings
    training: dict[str, Any] = {
        "super_category": super_category,
        "placeholder": placeholder,
        "key_lock": _KEY_LOCKS[sent.key_lock],
        "seed": given.seed,
    }
    # Zero means the default here, and would be no use for any of them.
    for name in ("steps", "batch", "validate_every", "patience", "output_rate", "temperature"):
        if getattr(given, name):
            training[name] = getattr(given, name)
    if given.render_temperature:
        training["render_temperature"] = given.render_temperature
    for name in ("flip", "embedding_rate", "bias", "render_bias"):
        if given.HasField(name):
            training[name] = getattr(given, name)
    previews = None
    if given.HasField("previews"):
        asked = {name: getattr(given.previews, name) for name in ("every", "steps", "guidance")}
        chosen: dict[str, Any] = {name: value for name, value in asked.items() if value}
        if given.previews.prompts:
            chosen["prompts"] = tuple(given.previews.prompts)
        previews = PreviewSettings(**chosen)
        for text in previews.prompts:
            if "<>" not in text:
                raise InvalidArgument.in_field(
                    "training_run.settings.previews.prompts",
                    f"{text[:80]!r} does not name the concept; write <> where it stands",
                )
    return RunSettings(
        training=TrainingSettings(**training),
        fingerprint=fingerprint,
        mask_source=_MASK_SOURCES[given.mask_source],
        previews=previews,
    )


def run(value: Run) -> wire.TrainingRun:
    """A run for the wire."""
    message = wire.TrainingRun(
        name=str(value.name),
        uid=value.uid,
        concept=str(value.concept),
        image_set=str(value.image_set),
        base_model=f"baseModels/{value.base_model_id}",
        super_category=value.super_category,
        key_lock=_SENT_LOCKS[value.key_lock],
        settings=_settings(RunSettings.from_json(value.settings), exclusive=value.exclusive),
        description=value.description,
        labels=value.labels,
        state=_state(value.state),
        step=value.step,
        loss=value.loss,
        validations=[
            wire.Validation(step=point.step, loss=point.loss, best=point.best)
            for point in value.validations
        ],
        version=str(value.version or ""),
        digest=value.digest or "",
        attempt=value.attempt,
        last_sequence=value.next_sequence - 1,
        create_time=timestamp(value.create_time),
        update_time=timestamp(value.update_time),
        start_time=timestamp(value.start_time),
        end_time=timestamp(value.end_time),
        etag=value.etag,
    )
    if value.error_reason:
        message.error.reason, message.error.message = value.error_reason, value.error_message
    return message


def event(value: Event, picture: bytes = b"") -> wire.WatchTrainingRunResponse:
    """An event for the wire.

    Args:
        value: the event.
        picture: a preview's file.
    """
    message = wire.WatchTrainingRunResponse(
        sequence=value.sequence, event_time=timestamp(value.event_time)
    )
    body = dict(value.body)
    match value.kind:
        case EventKind.STATE:
            error = body.pop("error", None)
            body["state"] = _state(body["state"])
            message.state_change.CopyFrom(wire.StateChange(**body))
            if error is not None:
                message.state_change.error.CopyFrom(wire.TrainingRunError(**error))
        case EventKind.PROGRESS:
            message.progress.CopyFrom(wire.TrainingProgress(**body))
        case EventKind.VALIDATION:
            message.validation.CopyFrom(wire.Validation(**body))
        case EventKind.SIMILARITY:
            message.similarity.CopyFrom(wire.Similarity(**body))
        case EventKind.PREVIEW:
            message.preview.CopyFrom(wire.PreviewPicture(**body, picture=picture))
    return message


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A moment for the wire."""
    if moment is None:
        return None
    sent = Timestamp()
    sent.FromDatetime(moment)
    return sent


def _state(name: str) -> wire.TrainingRunState:
    number: wire.TrainingRunState = wire.TrainingRunState.Value(f"TRAINING_RUN_STATE_{name}")
    return number


def _settings(value: RunSettings, *, exclusive: bool) -> wire.TrainingSettings:
    training = value.training
    sent = wire.TrainingSettings(
        steps=training.steps,
        batch=training.batch,
        seed=training.seed,
        mask_source=_SENT_SOURCES[value.mask_source],
        validate_every=training.validate_every,
        patience=training.patience or 0,
        flip=training.flip,
        output_rate=training.output_rate,
        embedding_rate=training.embedding_rate,
        bias=training.bias,
        temperature=training.temperature,
        render_bias=training.render_bias,
        render_temperature=training.render_temperature,
        exclusive=exclusive,
    )
    if value.previews is not None:
        previews = value.previews
        sent.previews.CopyFrom(
            wire.PreviewSettings(
                prompts=previews.prompts,
                every=previews.every,
                steps=previews.steps,
                guidance=previews.guidance,
            )
        )
    return sent
