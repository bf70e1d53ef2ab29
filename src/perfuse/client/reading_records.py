"""From messages about consent and about who did what to what callers see."""

from __future__ import annotations

from typing import Any

from perfuse.client import records
from perfuse.client.values import moment
from perfuse.v1 import audit_pb2, consent_pb2


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
