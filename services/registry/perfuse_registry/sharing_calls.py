"""The calls about what tenants share with each other, and about what they keep."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from perfuse.names import ConceptName, GrantName, TenantName
from perfuse.serving.edge import Call
from perfuse.serving.guard import rpc
from perfuse.v1 import quotas_pb2
from perfuse.v1 import registry_pb2 as wire
from perfuse_registry import messages
from perfuse_registry.installation_calls import InstallationCalls, mutation


class SharingCalls(InstallationCalls):
    """Answers them; a further part of the service."""

    @rpc
    async def CreateGrant(self, request: wire.CreateGrantRequest, call: Call) -> wire.Grant:
        parent = ConceptName.parse(request.parent, "parent")
        made = await call.in_thread(
            self._registry.grants.create,
            mutation(call, request.request_id),
            parent.grant(request.grant_id),
            messages.access(request.grant.access),
        )
        return messages.grant(made)

    @rpc
    async def GetGrant(self, request: wire.GetGrantRequest, call: Call) -> wire.Grant:
        name = GrantName.parse(request.name)
        return messages.grant(
            await call.in_thread(self._registry.grants.get, call.caller.tenant, name)
        )

    @rpc
    async def ListGrants(
        self, request: wire.ListGrantsRequest, call: Call
    ) -> wire.ListGrantsResponse:
        parent = ConceptName.parse(request.parent, "parent")
        page = await call.in_thread(
            self._registry.grants.list, call.caller.tenant, parent, messages.query(request)
        )
        return wire.ListGrantsResponse(
            grants=map(messages.grant, page.items), next_page_token=page.next_page_token
        )

    @rpc
    async def DeleteGrant(self, request: wire.DeleteGrantRequest, call: Call) -> Empty:
        await call.in_thread(
            self._registry.grants.delete,
            mutation(call, request.request_id),
            GrantName.parse(request.name),
            request.etag,
        )
        return Empty()

    @rpc
    async def ListReceivedGrants(
        self, request: wire.ListReceivedGrantsRequest, call: Call
    ) -> wire.ListReceivedGrantsResponse:
        parent = TenantName.parse(request.parent, "parent")
        page = await call.in_thread(
            self._registry.grants.received, call.caller.tenant, parent, messages.query(request)
        )
        return wire.ListReceivedGrantsResponse(
            grants=map(messages.grant, page.items), next_page_token=page.next_page_token
        )

    @rpc
    async def GetStorageUsage(
        self, request: wire.GetStorageUsageRequest, call: Call
    ) -> wire.GetStorageUsageResponse:
        name = TenantName.parse(request.name)
        counted = await call.in_thread(self._registry.usage.of, call.caller.tenant, name)
        return wire.GetStorageUsageResponse(
            quotas=[
                quotas_pb2.QuotaUsage(quota=each.quota, used=each.used, limit=each.limit)
                for each in counted
            ]
        )
