"""Between the wire's messages and the rules' values; nothing is decided here."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from perfuse.errors import InvalidArgument
from perfuse.storage.listing import Query
from perfuse.storage.moments import now
from perfuse.v1 import consent_pb2
from perfuse.v1 import registry_pb2 as wire
from perfuse_registry.catalog import resources
from perfuse_registry.catalog.checks import BlendCheck
from perfuse_registry.garbage import Collected
from perfuse_registry.integrity import Report

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ACCESS = {
    resources.Access.RENDER: wire.GRANT_ACCESS_RENDER,
    resources.Access.READ: wire.GRANT_ACCESS_READ,
}
_SCOPES = {
    resources.Scope.TRAIN: consent_pb2.CONSENT_SCOPE_TRAIN,
    resources.Scope.RENDER: consent_pb2.CONSENT_SCOPE_RENDER,
}


def concept(value: resources.Concept) -> wire.Concept:
    """A concept for the wire."""
    latest = value.latest_number
    return wire.Concept(
        name=str(value.name),
        uid=value.uid,
        display_name=value.display_name,
        super_category=value.super_category,
        description=value.description,
        labels=value.labels,
        latest_version=str(value.name.version(latest)) if latest is not None else "",
        create_time=timestamp(value.create_time),
        update_time=timestamp(value.update_time),
        delete_time=timestamp(value.delete_time),
        purge_time=timestamp(value.purge_time),
        etag=value.etag,
        likeness=value.likeness,
        train_consent_expire_time=timestamp(value.train_until),
        render_consent_expire_time=timestamp(value.render_until),
    )


def consent(value: resources.Consent) -> consent_pb2.Consent:
    """A consent for the wire, as it stands at this moment."""
    moment = now()
    state = consent_pb2.CONSENT_STATE_ACTIVE
    if value.revoke_time is not None:
        state = consent_pb2.CONSENT_STATE_REVOKED
    elif value.expire_time <= moment:
        state = consent_pb2.CONSENT_STATE_EXPIRED
    elif value.start_time > moment:
        state = consent_pb2.CONSENT_STATE_PENDING
    scopes = ((value.train, resources.Scope.TRAIN), (value.render, resources.Scope.RENDER))
    return consent_pb2.Consent(
        name=str(value.name),
        uid=value.uid,
        giver=value.giver,
        scopes=[_SCOPES[scope] for given, scope in scopes if given],
        start_time=timestamp(value.start_time),
        expire_time=timestamp(value.expire_time),
        revoke_time=timestamp(value.revoke_time),
        state=state,
        recorder=value.recorder,
        revoker=value.revoker,
        create_time=timestamp(value.create_time),
        update_time=timestamp(value.revoke_time or value.create_time),
        etag=value.etag,
    )


def scopes(sent: Iterable[int]) -> set[resources.Scope]:
    """What a consent is to allow."""
    return {scope for scope, number in _SCOPES.items() if number in sent}


def moment(sent: Message, field: str) -> datetime | None:
    """A moment that a caller gave; None where it is unset.

    Raises:
        InvalidArgument: it is none that there is.
    """
    if not sent.HasField(field):
        return None
    try:
        told: datetime = getattr(sent, field).ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument.in_field(
            f"consent.{field}", "it is no moment from the year 1 to 9999; give one"
        ) from None
    return told


def alias(value: resources.Alias) -> wire.Alias:
    """An alias for the wire."""
    return wire.Alias(
        name=str(value.name),
        uid=value.uid,
        version=str(value.version),
        create_time=timestamp(value.create_time),
        update_time=timestamp(value.update_time),
        etag=value.etag,
    )


def alias_move(value: resources.AliasMove, parent: Any) -> wire.AliasMove:
    """A line of the history of an alias of the concept `parent`."""

    def named(number: int | None) -> str:
        return "" if number is None else str(parent.version(number))

    return wire.AliasMove(
        from_version=named(value.from_number),
        to_version=named(value.to_number),
        move_time=timestamp(value.move_time),
        mover=value.mover,
    )


def grant(value: resources.Grant) -> wire.Grant:
    """A grant for the wire."""
    return wire.Grant(
        name=str(value.name),
        uid=value.uid,
        access=_ACCESS[value.access],
        super_category=value.super_category,
        create_time=timestamp(value.create_time),
        update_time=timestamp(value.create_time),
        etag=value.etag,
    )


def access(sent: wire.GrantAccess) -> resources.Access:
    """What a grant is to allow.

    Raises:
        InvalidArgument: it does not say.
    """
    for known, value in _ACCESS.items():
        if value == sent:
            return known
    raise InvalidArgument.in_field(
        "grant.access", "it says nothing; choose GRANT_ACCESS_RENDER or GRANT_ACCESS_READ"
    )


def base_model(value: resources.BaseModel) -> wire.BaseModel:
    """A base model for the wire."""
    return wire.BaseModel(
        name=str(value.name),
        uid=value.uid,
        display_name=value.display_name,
        fingerprint=value.fingerprint,
        architecture=value.architecture,
        conditioning_width=value.conditioning_width,
        layers=[wire.Layer(name=name, width=width) for name, width in value.layers],
        encoders=[wire.Encoder(name=name, width=width) for name, width in value.encoders],
        covariance_digest=value.covariance_digest,
        create_time=timestamp(value.create_time),
        update_time=timestamp(value.update_time),
        etag=value.etag,
        labels=value.labels,
    )


def described_base_model(base_model_id: str, sent: wire.BaseModel) -> resources.BaseModel:
    """A base model as a caller describes it; what only the Registry gives is blank."""
    moment = now()
    return resources.BaseModel(
        base_model_id=base_model_id,
        uid="",
        display_name=sent.display_name,
        fingerprint=sent.fingerprint,
        architecture=sent.architecture,
        conditioning_width=sent.conditioning_width,
        layers=tuple((layer.name, layer.width) for layer in sent.layers),
        encoders=tuple((encoder.name, encoder.width) for encoder in sent.encoders),
        covariance_digest=sent.covariance_digest,
        revision=0,
        create_time=moment,
        update_time=moment,
        labels=dict(sent.labels),
    )


def blend_check(value: BlendCheck) -> wire.CheckBlendResponse:
    """A verdict on a blend for the wire."""
    return wire.CheckBlendResponse(
        blendable=not value.problems,
        problems=value.problems,
        pairs=[
            wire.ConceptPair(
                first=str(pair.first),
                second=str(pair.second),
                cosine=0.0 if pair.withheld else pair.cosine,
                too_close=pair.too_close,
                cosine_withheld=pair.withheld,
            )
            for pair in value.pairs
        ],
    )


def integrity_report(value: Report) -> wire.VerifyIntegrityResponse:
    """What a verification found, for the wire."""
    return wire.VerifyIntegrityResponse(
        checked_count=value.checked,
        damaged=[
            wire.DamagedAdapter(
                tenant=damage.tenant,
                digest=damage.digest,
                versions=damage.versions,
                problem=damage.problem,
            )
            for damage in value.damaged
        ],
        damaged_count=value.damaged_count,
        unreferenced_count=value.unreferenced,
        unreferenced_bytes=value.unreferenced_bytes,
    )


def collected(value: Collected) -> wire.CollectGarbageResponse:
    """What a collection did, for the wire."""
    return wire.CollectGarbageResponse(
        purged_concept_count=value.purged_concepts,
        condemned_count=value.condemned,
        removed_count=value.removed,
        removed_bytes=value.removed_bytes,
        spared_count=value.spared,
        expired_request_count=value.expired_requests,
    )


def query(request: Any) -> Query:
    """What a list request asks for, whichever of the list fields it has."""
    has = request.DESCRIPTOR.fields_by_name
    return Query(
        page_size=request.page_size,
        page_token=request.page_token,
        filter=request.filter if "filter" in has else "",
        order_by=request.order_by if "order_by" in has else "",
        show_deleted=request.show_deleted if "show_deleted" in has else False,
    )


def changes(
    sent: Message, mask: FieldMask, mutable: Iterable[str], immutable: Iterable[str] = ()
) -> dict[str, Any]:
    """The fields to change, with their new values (AIP-134).

    Without a mask those that are set, with `*` all; fields that only the Registry gives are left
    out of either.

    Raises:
        InvalidArgument: the mask names a field that cannot be changed, or that there is not.
    """
    allowed = sorted(mutable)
    known = sent.DESCRIPTOR.fields_by_name
    paths = list(mask.paths)
    if paths == ["*"]:
        paths = allowed
    elif not paths:
        paths = [path for path in allowed if getattr(sent, path)]
    for path in paths:
        if path not in known or path in set(immutable):
            what = "is fixed" if path in set(immutable) else "is no field"
            raise InvalidArgument.in_field(
                "update_mask", f"{path[:80]!r} {what}; change {', '.join(allowed)}"
            )
    return {path: _plain(getattr(sent, path)) for path in paths if path in allowed}


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else dict(value)


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A moment for the wire; None for none."""
    return None if moment is None else tell(Timestamp(), moment)


def tell(told: Timestamp, moment: datetime) -> Timestamp:
    """As `Timestamp.FromDatetime`, in a tenth of its time."""
    since = moment - _EPOCH
    told.seconds = since.days * 86400 + since.seconds
    told.nanos = since.microseconds * 1000
    return told
