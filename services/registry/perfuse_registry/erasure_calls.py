"""The calls about concepts that go for good."""

from __future__ import annotations

from perfuse.names import ConceptName, ErasureName
from perfuse.serving.edge import Call
from perfuse.serving.guard import rpc
from perfuse.serving.roles import CUSTODIAN, DELEGATE, OPERATOR
from perfuse.v1 import erasure_pb2 as wire
from perfuse_registry import erasure_messages, messages
from perfuse_registry.catalog.erased import Erasure
from perfuse_registry.installation_calls import InstallationCalls, mutation


class ErasureCalls(InstallationCalls):
    """Answers them, for `servicer.RegistryServicer` to inherit."""

    @rpc
    async def EraseConcept(self, request: wire.EraseConceptRequest, call: Call) -> wire.Erasure:
        return self._told(
            await call.in_thread(
                self._registry.erasures.erase,
                mutation(call, request.request_id),
                ConceptName.parse(request.name),
                request.etag,
            )
        )

    @rpc
    async def GetErasure(self, request: wire.GetErasureRequest, call: Call) -> wire.Erasure:
        name = ErasureName.parse(request.name)
        return self._told(
            await call.in_thread(self._registry.erasures.get, call.caller.tenant, name)
        )

    @rpc
    async def ListErasures(
        self, request: wire.ListErasuresRequest, call: Call
    ) -> wire.ListErasuresResponse:
        page = await call.in_thread(
            self._registry.erasures.list,
            call.caller.tenant,
            request.parent,
            messages.query(request),
            everyone=not call.caller.roles.isdisjoint((OPERATOR, DELEGATE, CUSTODIAN)),
            unconfirmed_only=request.unconfirmed_only,
            with_adapters=request.with_adapters,
            after=messages.moment(request, "after"),
        )
        return wire.ListErasuresResponse(
            erasures=map(erasure_messages.erasure, page.items), next_page_token=page.next_page_token
        )

    @rpc
    async def ConfirmErasure(self, request: wire.ConfirmErasureRequest, call: Call) -> wire.Erasure:
        return self._told(
            await call.in_thread(
                self._registry.erasures.confirm,
                mutation(call, ""),
                ErasureName.parse(request.name),
                erasure_messages.trainer_counts(request.trainer),
            )
        )

    def _told(self, erasure: Erasure) -> wire.Erasure:
        return erasure_messages.erasure(erasure, self._registry.erasures.receipt(erasure))
