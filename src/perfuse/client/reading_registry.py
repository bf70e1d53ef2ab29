"""From the Registry's messages to what callers see."""

from __future__ import annotations

from typing import Any

from perfuse.client import resources
from perfuse.client.attachments import CurvePoint, VersionPreview
from perfuse.client.values import key_lock, moment
from perfuse.v1 import registry_pb2


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
        create_time=moment(sent, "create_time"),
        update_time=moment(sent, "update_time"),
        delete_time=moment(sent, "delete_time"),
        purge_time=moment(sent, "purge_time"),
        etag=sent.etag,
        likeness=sent.likeness,
        train_consent_expire_time=moment(sent, "train_consent_expire_time"),
        render_consent_expire_time=moment(sent, "render_consent_expire_time"),
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
        key_lock=key_lock(sent.key_lock),
        placeholder=sent.placeholder,
        super_category=sent.super_category,
        bias=sent.bias,
        temperature=sent.temperature,
        training=dict(sent.training),
        training_run=sent.training_run,
        description=sent.description,
        labels=dict(sent.labels),
        create_time=moment(sent, "create_time"),
        update_time=moment(sent, "update_time"),
        etag=sent.etag,
        likeness=sent.likeness,
        render_consent_expire_time=moment(sent, "render_consent_expire_time"),
        attachment_bytes=sent.attachment_bytes,
        previews=tuple(map(version_preview, sent.previews)),
        curve=tuple(map(_curve_point, sent.curve)),
    )


def version_preview(sent: registry_pb2.VersionPreview) -> VersionPreview:
    """A preview of a version."""
    return VersionPreview(
        digest=sent.digest,
        size_bytes=sent.size_bytes,
        media_type=sent.media_type,
        width=sent.width,
        height=sent.height,
        step=sent.step,
        caption=sent.caption,
    )


def _curve_point(sent: registry_pb2.CurvePoint) -> CurvePoint:
    return CurvePoint(
        step=sent.step,
        validation_loss=sent.validation_loss if sent.HasField("validation_loss") else None,
        similarity=sent.similarity if sent.HasField("similarity") else None,
    )


def alias(sent: registry_pb2.Alias) -> resources.Alias:
    """An alias."""
    return resources.Alias(
        name=sent.name,
        uid=sent.uid,
        version=sent.version,
        create_time=moment(sent, "create_time"),
        update_time=moment(sent, "update_time"),
        etag=sent.etag,
    )


def alias_move(sent: registry_pb2.AliasMove) -> resources.AliasMove:
    """A move of an alias."""
    return resources.AliasMove(
        from_version=sent.from_version,
        to_version=sent.to_version,
        move_time=moment(sent, "move_time"),
        mover=sent.mover,
    )


def grant(sent: registry_pb2.Grant) -> resources.Grant:
    """A grant."""
    access: Any = registry_pb2.GrantAccess.Name(sent.access).removeprefix("GRANT_ACCESS_")
    return resources.Grant(
        name=sent.name,
        uid=sent.uid,
        access=access,
        super_category=sent.super_category,
        create_time=moment(sent, "create_time"),
        etag=sent.etag,
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
        create_time=moment(sent, "create_time"),
        update_time=moment(sent, "update_time"),
        etag=sent.etag,
    )
