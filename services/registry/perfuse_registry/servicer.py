"""`perfuse.v1.RegistryService`: each rpc is message to value, the rule, value to message."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from perfuse.names import (
    AliasName,
    ConceptName,
    TenantName,
    VersionName,
)
from perfuse.serving.edge import Call
from perfuse.serving.guard import rpc
from perfuse.v1 import registry_pb2 as wire
from perfuse_registry import messages, version_messages
from perfuse_registry.catalog import concepts, versions
from perfuse_registry.catalog.ownership import require_own
from perfuse_registry.consent_calls import ConsentCalls
from perfuse_registry.erasure_calls import ErasureCalls
from perfuse_registry.installation_calls import mutation
from perfuse_registry.sharing_calls import SharingCalls


class RegistryServicer(SharingCalls, ConsentCalls, ErasureCalls):
    """Answers the Registry's calls; the caller's tenant comes from the edge."""

    # Concepts.

    @rpc
    async def CreateConcept(self, request: wire.CreateConceptRequest, call: Call) -> wire.Concept:
        parent, sent = TenantName.parse(request.parent, "parent"), request.concept
        made = await call.in_thread(
            self._registry.concepts.create,
            mutation(call, request.request_id),
            ConceptName(parent.tenant, request.concept_id),
            super_category=sent.super_category,
            display_name=sent.display_name,
            description=sent.description,
            labels=dict(sent.labels),
            likeness=sent.likeness,
        )
        return messages.concept(made)

    @rpc
    async def GetConcept(self, request: wire.GetConceptRequest, call: Call) -> wire.Concept:
        name = ConceptName.parse(request.name)
        return messages.concept(
            await call.in_thread(self._registry.concepts.get, call.caller.tenant, name)
        )

    @rpc
    async def ListConcepts(
        self, request: wire.ListConceptsRequest, call: Call
    ) -> wire.ListConceptsResponse:
        parent = TenantName.parse(request.parent, "parent")
        page = await call.in_thread(
            self._registry.concepts.list, call.caller.tenant, parent, messages.query(request)
        )
        return wire.ListConceptsResponse(
            concepts=map(messages.concept, page.items), next_page_token=page.next_page_token
        )

    @rpc
    async def UpdateConcept(self, request: wire.UpdateConceptRequest, call: Call) -> wire.Concept:
        sent = request.concept
        changed = await call.in_thread(
            self._registry.concepts.update,
            mutation(call, request.request_id),
            ConceptName.parse(sent.name, "concept.name"),
            sent.etag,
            messages.changes(
                sent, request.update_mask, concepts.MUTABLE, {"super_category", "likeness"}
            ),
        )
        return messages.concept(changed)

    @rpc
    async def DeleteConcept(self, request: wire.DeleteConceptRequest, call: Call) -> wire.Concept:
        deleted = await call.in_thread(
            self._registry.concepts.delete,
            mutation(call, request.request_id),
            ConceptName.parse(request.name),
            request.etag,
            force=request.force,
        )
        return messages.concept(deleted)

    @rpc
    async def UndeleteConcept(
        self, request: wire.UndeleteConceptRequest, call: Call
    ) -> wire.Concept:
        restored = await call.in_thread(
            self._registry.concepts.undelete,
            mutation(call, request.request_id),
            ConceptName.parse(request.name),
            request.etag,
        )
        return messages.concept(restored)

    # Versions.

    @rpc
    async def CreateVersion(self, request: wire.CreateVersionRequest, call: Call) -> wire.Version:
        made = await call.in_thread(
            self._registry.versions.create,
            mutation(call, request.request_id),
            ConceptName.parse(request.parent, "parent"),
            request.adapter,
            request.digest,
            training_run=request.version.training_run,
            description=request.version.description,
            labels=dict(request.version.labels),
            attached=version_messages.attached(request),
            validate_only=request.validate_only,
        )
        return version_messages.version(made)

    @rpc
    async def GetVersion(self, request: wire.GetVersionRequest, call: Call) -> wire.Version:
        name = VersionName.parse(request.name)
        return version_messages.version(
            await call.in_thread(self._registry.versions.get, call.caller.tenant, name)
        )

    @rpc
    async def ListVersions(
        self, request: wire.ListVersionsRequest, call: Call
    ) -> wire.ListVersionsResponse:
        parent = ConceptName.parse(request.parent, "parent")
        page = await call.in_thread(
            self._registry.versions.list, call.caller.tenant, parent, messages.query(request)
        )
        response = wire.ListVersionsResponse(next_page_token=page.next_page_token)
        for each in page.items:
            version_messages.version(each, response.versions.add())
        return response

    @rpc
    async def UpdateVersion(self, request: wire.UpdateVersionRequest, call: Call) -> wire.Version:
        sent = request.version
        changed = await call.in_thread(
            self._registry.versions.update,
            mutation(call, request.request_id),
            VersionName.parse(sent.name, "version.name"),
            sent.etag,
            messages.changes(sent, request.update_mask, versions.MUTABLE, {"training_run"}),
        )
        return version_messages.version(changed)

    @rpc
    async def DeleteVersion(self, request: wire.DeleteVersionRequest, call: Call) -> Empty:
        await call.in_thread(
            self._registry.versions.delete,
            mutation(call, request.request_id),
            VersionName.parse(request.name),
            request.etag,
        )
        return Empty()

    @rpc
    async def BatchGetVersions(
        self, request: wire.BatchGetVersionsRequest, call: Call
    ) -> wire.BatchGetVersionsResponse:
        require_own(call.caller.tenant, TenantName.parse(request.parent, "parent"))
        names = [VersionName.parse(name, "names") for name in request.names]
        found = await call.in_thread(self._registry.versions.batch_get, call.caller.tenant, names)
        response = wire.BatchGetVersionsResponse()
        for each in found:
            version_messages.version(each, response.versions.add())
        return response

    @rpc
    async def DownloadAdapter(
        self, request: wire.DownloadAdapterRequest, call: Call
    ) -> wire.DownloadAdapterResponse:
        version, data = await call.in_thread(
            self._registry.versions.download,
            call.caller.tenant,
            VersionName.parse(request.name),
            request.known_digest,
            custodian=call.through_custodian,
        )
        response = wire.DownloadAdapterResponse(adapter=data or b"", not_modified=data is None)
        version_messages.version(version, response.version)
        return response

    @rpc
    async def DownloadPreview(
        self, request: wire.DownloadPreviewRequest, call: Call
    ) -> wire.DownloadPreviewResponse:
        preview, data = await call.in_thread(
            self._registry.versions.preview,
            call.caller.tenant,
            VersionName.parse(request.name),
            request.digest,
        )
        return wire.DownloadPreviewResponse(preview=version_messages.preview(preview), picture=data)

    # Aliases.

    @rpc
    async def CreateAlias(self, request: wire.CreateAliasRequest, call: Call) -> wire.Alias:
        parent = ConceptName.parse(request.parent, "parent")
        made = await call.in_thread(
            self._registry.aliases.create,
            mutation(call, request.request_id),
            parent.alias(request.alias_id),
            VersionName.parse(request.alias.version, "alias.version"),
        )
        return messages.alias(made)

    @rpc
    async def GetAlias(self, request: wire.GetAliasRequest, call: Call) -> wire.Alias:
        name = AliasName.parse(request.name)
        return messages.alias(
            await call.in_thread(self._registry.aliases.get, call.caller.tenant, name)
        )

    @rpc
    async def ListAliases(
        self, request: wire.ListAliasesRequest, call: Call
    ) -> wire.ListAliasesResponse:
        parent = ConceptName.parse(request.parent, "parent")
        page = await call.in_thread(
            self._registry.aliases.list, call.caller.tenant, parent, messages.query(request)
        )
        return wire.ListAliasesResponse(
            aliases=map(messages.alias, page.items), next_page_token=page.next_page_token
        )

    @rpc
    async def UpdateAlias(self, request: wire.UpdateAliasRequest, call: Call) -> wire.Alias:
        sent = request.alias
        moved = await call.in_thread(
            self._registry.aliases.move,
            mutation(call, request.request_id),
            AliasName.parse(sent.name, "alias.name"),
            VersionName.parse(sent.version, "alias.version"),
            sent.etag,
        )
        return messages.alias(moved)

    @rpc
    async def DeleteAlias(self, request: wire.DeleteAliasRequest, call: Call) -> Empty:
        await call.in_thread(
            self._registry.aliases.delete,
            mutation(call, request.request_id),
            AliasName.parse(request.name),
            request.etag,
        )
        return Empty()

    @rpc
    async def ListAliasMoves(
        self, request: wire.ListAliasMovesRequest, call: Call
    ) -> wire.ListAliasMovesResponse:
        name = AliasName.parse(request.parent, "parent")
        page = await call.in_thread(
            self._registry.aliases.moves, call.caller.tenant, name, messages.query(request)
        )
        return wire.ListAliasMovesResponse(
            moves=[messages.alias_move(move, name.parent) for move in page.items],
            next_page_token=page.next_page_token,
        )


def request_kinds() -> list[type[Message]]:
    """Every kind of request, so that their rules can be compiled before the first call."""
    service = wire.DESCRIPTOR.services_by_name["RegistryService"]
    return [GetMessageClass(method.input_type) for method in service.methods]
