"""Audit events on the wire, and refused calls on their way into the record; for every service."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from perfuse.v1 import audit_pb2 as wire


class Event(Protocol):
    """`perfuse.storage.audit.AuditEvent`."""

    @property
    def id(self) -> int: ...
    @property
    def event_time(self) -> datetime: ...
    @property
    def tenant(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def rpc(self) -> str: ...
    @property
    def resource(self) -> str: ...
    @property
    def code(self) -> str: ...
    @property
    def request_id(self) -> str: ...
    @property
    def call_id(self) -> str: ...
    @property
    def peer(self) -> str: ...


def page(events: Iterable[Event], next_page_token: str) -> wire.ListAuditEventsResponse:
    """A page of events for the wire."""
    response = wire.ListAuditEventsResponse(next_page_token=next_page_token)
    for event in events:
        moment = Timestamp()
        moment.FromDatetime(event.event_time)
        response.audit_events.add(
            sequence=event.id,
            event_time=moment,
            tenant=event.tenant,
            subject=event.subject,
            rpc=event.rpc,
            resource=event.resource,
            code=event.code,
            request_id=event.request_id,
            call_id=event.call_id,
            peer=event.peer,
        )
    return response
