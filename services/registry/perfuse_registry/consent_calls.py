"""The calls about people's consent, and about who did what."""

from __future__ import annotations

from perfuse.names import ConceptName, ConsentName
from perfuse.serving import audit_events
from perfuse.serving.edge import Call
from perfuse.serving.guard import rpc
from perfuse.serving.roles import OPERATOR
from perfuse.v1 import audit_pb2, consent_pb2
from perfuse_registry import messages
from perfuse_registry.installation_calls import InstallationCalls, mutation


class ConsentCalls(InstallationCalls):
    """Answers them, for `servicer.RegistryServicer` to inherit."""

    @rpc
    async def CreateConsent(
        self, request: consent_pb2.CreateConsentRequest, call: Call
    ) -> consent_pb2.Consent:
        sent = request.consent
        made = await call.in_thread(
            self._registry.consents.create,
            mutation(call, request.request_id),
            ConceptName.parse(request.parent, "parent"),
            request.consent_id,
            giver=sent.giver,
            scopes=messages.scopes(sent.scopes),
            start_time=messages.moment(sent, "start_time"),
            expire_time=messages.moment(sent, "expire_time"),
        )
        return messages.consent(made)

    @rpc
    async def GetConsent(
        self, request: consent_pb2.GetConsentRequest, call: Call
    ) -> consent_pb2.Consent:
        name = ConsentName.parse(request.name)
        return messages.consent(
            await call.in_thread(self._registry.consents.get, call.caller.tenant, name)
        )

    @rpc
    async def ListConsents(
        self, request: consent_pb2.ListConsentsRequest, call: Call
    ) -> consent_pb2.ListConsentsResponse:
        parent = ConceptName.parse(request.parent, "parent")
        page = await call.in_thread(
            self._registry.consents.list, call.caller.tenant, parent, messages.query(request)
        )
        return consent_pb2.ListConsentsResponse(
            consents=map(messages.consent, page.items), next_page_token=page.next_page_token
        )

    @rpc
    async def RevokeConsent(
        self, request: consent_pb2.RevokeConsentRequest, call: Call
    ) -> consent_pb2.Consent:
        revoked = await call.in_thread(
            self._registry.consents.revoke,
            mutation(call, request.request_id),
            ConsentName.parse(request.name),
            request.etag,
        )
        return messages.consent(revoked)

    @rpc
    async def ListAuditEvents(
        self, request: audit_pb2.ListAuditEventsRequest, call: Call
    ) -> audit_pb2.ListAuditEventsResponse:
        page = await call.in_thread(
            self._registry.audit.list,
            call.caller.tenant,
            request.parent,
            messages.query(request),
            everyone=OPERATOR in call.caller.roles,
        )
        return audit_events.page(page.items, page.next_page_token)
