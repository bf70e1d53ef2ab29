"""Who did what, as admins and operators read it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Literal

from perfuse.client import reading_records as reading
from perfuse.client._async.calls import Calls
from perfuse.client.records import AuditEvent
from perfuse.v1 import audit_pb2 as wire


class Audit:
    """The record that Registry and Trainer each keep of who changed what."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def list(
        self,
        *,
        service: Literal["registry", "trainer"] = "registry",
        filter: str = "",
        all_tenants: bool = False,
        page_size: int = 0,
    ) -> AsyncIterator[AuditEvent]:
        """Events, the newest first; for the tenant's admins and for operators.

        Args:
            service: whose record.
            filter: as in AIP-160, over event_time, subject, rpc, resource, code, request_id and
                call_id.
            all_tenants: those of every tenant, for operators alone.
            page_size: events of one call; 0 leaves it to the service.
        """
        parent = "tenants/-" if all_tenants else self._calls.names.parent
        request = wire.ListAuditEventsRequest(parent=parent, filter=filter, page_size=page_size)
        async for each in self._calls.pages(service, "ListAuditEvents", request, "audit_events"):
            yield reading.audit_event(each)
