"""The calls that concern the whole installation: base models, questions of fit, upkeep."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from perfuse.names import BaseModelName, TenantName, VersionName
from perfuse.serving.edge import Call, Edge
from perfuse.serving.guard import rpc
from perfuse.storage.requests import Mutation
from perfuse.v1 import registry_pb2 as wire
from perfuse.v1.registry_pb2_grpc import RegistryServiceServicer
from perfuse_registry import messages
from perfuse_registry.catalog.ownership import require_own
from perfuse_registry.registry import Registry


class InstallationCalls(RegistryServiceServicer):
    """Answers them; the other half of the service is `servicer.RegistryServicer`."""

    def __init__(self, registry: Registry, edge: Edge) -> None:
        self.edge = edge
        edge.on_refusal = registry.audit.refused
        self._registry = registry

    # Base models.

    @rpc
    async def CreateBaseModel(
        self, request: wire.CreateBaseModelRequest, call: Call
    ) -> wire.BaseModel:
        made = await call.in_thread(
            self._registry.base_models.create,
            mutation(call, request.request_id),
            messages.described_base_model(request.base_model_id, request.base_model),
        )
        return messages.base_model(made)

    @rpc
    async def GetBaseModel(self, request: wire.GetBaseModelRequest, call: Call) -> wire.BaseModel:
        name = BaseModelName.parse(request.name)
        return messages.base_model(await call.in_thread(self._registry.base_models.get, name))

    @rpc
    async def ListBaseModels(
        self, request: wire.ListBaseModelsRequest, call: Call
    ) -> wire.ListBaseModelsResponse:
        page = await call.in_thread(
            self._registry.base_models.list, call.caller.tenant, messages.query(request)
        )
        return wire.ListBaseModelsResponse(
            base_models=map(messages.base_model, page.items),
            next_page_token=page.next_page_token,
        )

    @rpc
    async def DeleteBaseModel(self, request: wire.DeleteBaseModelRequest, call: Call) -> Empty:
        await call.in_thread(
            self._registry.base_models.delete,
            mutation(call, request.request_id),
            BaseModelName.parse(request.name),
            request.etag,
        )
        return Empty()

    # Questions and upkeep.

    @rpc
    async def CheckCompatibility(
        self, request: wire.CheckCompatibilityRequest, call: Call
    ) -> wire.CheckCompatibilityResponse:
        differences = await call.in_thread(
            self._registry.checks.compatibility,
            call.caller.tenant,
            VersionName.parse(request.version, "version"),
            BaseModelName.parse(request.base_model, "base_model"),
        )
        return wire.CheckCompatibilityResponse(compatible=not differences, differences=differences)

    @rpc
    async def CheckBlend(
        self, request: wire.CheckBlendRequest, call: Call
    ) -> wire.CheckBlendResponse:
        require_own(call.caller.tenant, TenantName.parse(request.parent, "parent"))
        names = [VersionName.parse(name, "versions") for name in request.versions]
        return messages.blend_check(
            await call.in_thread(self._registry.checks.blend, call.caller.tenant, names)
        )

    @rpc
    async def VerifyIntegrity(
        self, request: wire.VerifyIntegrityRequest, call: Call
    ) -> wire.VerifyIntegrityResponse:
        return messages.integrity_report(
            await call.in_thread(self._registry.integrity.verify, request.tenant)
        )

    @rpc
    async def CollectGarbage(
        self, request: wire.CollectGarbageRequest, call: Call
    ) -> wire.CollectGarbageResponse:
        collected = await call.in_thread(self._registry.garbage.collect, dry_run=request.dry_run)
        if not request.dry_run:
            await call.in_thread(self._registry.audit.record, mutation(call, ""), "CollectGarbage")
        return messages.collected(collected)


def mutation(call: Call, request_id: str) -> Mutation:
    """Who changes something, and under which id it is done once."""
    # A UUID is the same in capitals.
    return Mutation(
        call.caller.tenant, call.caller.subject, request_id.lower(), call.request_id, call.peer
    )
