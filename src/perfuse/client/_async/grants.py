"""Grants of concepts to other tenants, as callers use them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from perfuse.client import reading_registry as reading
from perfuse.client._async.calls import Calls
from perfuse.client.resources import Grant, GrantAccess
from perfuse.client.writing import grant_access, request_id_or_new
from perfuse.v1 import registry_pb2 as wire


class Grants:
    """Grants of the Registry: which other tenants may use a concept."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def create(
        self,
        concept: str,
        grantee: str,
        access: GrantAccess = "RENDER",
        *,
        request_id: str = "",
    ) -> Grant:
        """Let another tenant use a concept, from now on.

        Args:
            concept: id or name.
            grantee: id of the other tenant, which need not be known here.
            access: RENDER to render with it; READ to read and download its versions too, which
                cannot be taken back of what was downloaded.
            request_id: the same for the same wish, so that it is done once; drawn by default.

        Raises:
            AlreadyExists: it was granted before, with whatever access; delete that first.
        """
        request = wire.CreateGrantRequest(
            parent=str(self._calls.names.concept(concept)),
            grant_id=grantee,
            grant=wire.Grant(access=grant_access(access)),
            request_id=request_id_or_new(request_id),
        )
        return reading.grant(await self._calls.call("registry", "CreateGrant", request))

    async def get(self, concept: str, grantee: str = "") -> Grant:
        """A grant, for its owner or its grantee.

        Args:
            concept: id or name; or the grant's whole name, and no grantee.
            grantee: id of the other tenant.

        Raises:
            NotFound: there is none that the caller may see.
        """
        request = wire.GetGrantRequest(name=str(self._calls.names.grant(concept, grantee)))
        return reading.grant(await self._calls.call("registry", "GetGrant", request))

    async def list(self, concept: str, *, page_size: int = 0) -> AsyncIterator[Grant]:
        """A concept's grants, by grantee."""
        parent = str(self._calls.names.concept(concept))
        request = wire.ListGrantsRequest(parent=parent, page_size=page_size)
        async for each in self._calls.pages("registry", "ListGrants", request, "grants"):
            yield reading.grant(each)

    async def received(self, *, page_size: int = 0) -> AsyncIterator[Grant]:
        """What other tenants grant to the caller's, the oldest first."""
        request = wire.ListReceivedGrantsRequest(
            parent=self._calls.names.parent, page_size=page_size
        )
        async for each in self._calls.pages("registry", "ListReceivedGrants", request, "grants"):
            yield reading.grant(each)

    async def delete(self, concept: str, grantee: str = "", *, etag: str = "") -> None:
        """Take a grant back.

        The Registry refuses the grantee from the next call on, and Renderers within seconds; see
        the operating notes.

        Args:
            concept: id or name; or the grant's whole name, and no grantee.
            grantee: id of the other tenant.
            etag: refuse if the grant is not the one that has it.

        Raises:
            NotFound: there is none.
            EtagMismatch: it is another one.
        """
        request = wire.DeleteGrantRequest(
            name=str(self._calls.names.grant(concept, grantee)),
            etag=etag,
            request_id=request_id_or_new(""),
        )
        await self._calls.call("registry", "DeleteGrant", request)
