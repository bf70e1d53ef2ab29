"""From messages about consent and about who did what to what callers see."""

from __future__ import annotations

from typing import Any

from perfuse.client import records
from perfuse.client.values import moment, short_name
from perfuse.v1 import audit_pb2, consent_pb2, erasure_pb2


def consent(sent: consent_pb2.Consent) -> records.Consent:
    """A consent."""
    scopes: Any = tuple(
        consent_pb2.ConsentScope.Name(each).removeprefix("CONSENT_SCOPE_") for each in sent.scopes
    )
    state: Any = consent_pb2.ConsentState.Name(sent.state).removeprefix("CONSENT_STATE_")
    return records.Consent(
        name=sent.name,
        uid=sent.uid,
        giver=sent.giver,
        scopes=scopes,
        state=state,
        start_time=moment(sent, "start_time"),
        expire_time=moment(sent, "expire_time"),
        revoke_time=moment(sent, "revoke_time"),
        recorder=sent.recorder,
        revoker=sent.revoker,
        create_time=moment(sent, "create_time"),
        etag=sent.etag,
    )


def erasure(sent: erasure_pb2.Erasure) -> records.Erasure:
    """An erasure."""
    counts = (
        "run_count",
        "ended_run_count",
        "image_set_count",
        "kept_image_set_count",
        "file_count",
    )
    told = sent.HasField("trainer")
    return records.Erasure(
        name=sent.name,
        concept=sent.concept,
        uid=sent.uid,
        eraser=sent.eraser,
        erase_time=moment(sent, "erase_time"),
        state=short_name(erasure_pb2.ErasureState.Name, sent.state, "ERASURE_STATE_"),
        complete_time=moment(sent, "complete_time"),
        version_count=sent.version_count,
        alias_count=sent.alias_count,
        grant_count=sent.grant_count,
        consent_count=sent.consent_count,
        adapters=tuple(
            records.ErasedAdapter(
                digest=each.digest,
                size_bytes=each.size_bytes,
                state=short_name(
                    erasure_pb2.ErasedAdapterState.Name, each.state, "ERASED_ADAPTER_STATE_"
                ),
                holder_count=each.holder_count,
                preview=each.preview,
            )
            for each in sent.adapters
        ),
        trainer={name: getattr(sent.trainer, name) for name in counts} if told else None,
        unconfirmed=tuple(sent.unconfirmed),
        receipt=sent.receipt,
        receipt_mac=sent.receipt_mac,
    )


def audit_event(sent: audit_pb2.AuditEvent) -> records.AuditEvent:
    """An audit event."""
    return records.AuditEvent(
        sequence=sent.sequence,
        event_time=moment(sent, "event_time"),
        tenant=sent.tenant,
        subject=sent.subject,
        rpc=sent.rpc,
        resource=sent.resource,
        code=sent.code,
        request_id=sent.request_id,
        call_id=sent.call_id,
        peer=sent.peer,
    )
