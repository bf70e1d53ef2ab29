"""Erasures, as callers use them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from perfuse.client import reading_records as reading
from perfuse.client._async.calls import Calls
from perfuse.client.records import Erasure
from perfuse.client.writing import request_id_or_new
from perfuse.v1 import erasure_pb2 as wire


class Erasures:
    """Erasures of the Registry; for a tenant's admins."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def erase(self, concept: str, *, etag: str, request_id: str = "") -> Erasure:
        """Erase a concept for good, deleted or not; nothing brings it back.

        Args:
            concept: id or name.
            etag: that the concept has, as `concepts.get` tells.
            request_id: the same for the same wish, so that it is done once; drawn by default.

        Raises:
            EtagMismatch: the concept is not the one that was read.
            ConceptErased: it was erased before.
        """
        request = wire.EraseConceptRequest(
            name=str(self._calls.names.concept(concept)),
            etag=etag,
            request_id=request_id_or_new(request_id),
        )
        return reading.erasure(await self._calls.call("registry", "EraseConcept", request))

    async def get(self, concept: str) -> Erasure:
        """How far the erasure of a concept is, with its receipt.

        Args:
            concept: id or name of what was erased.

        Raises:
            NotFound: no such concept was erased.
        """
        name = self._calls.names.concept(concept).erasure
        request = wire.GetErasureRequest(name=str(name))
        return reading.erasure(await self._calls.call("registry", "GetErasure", request))

    async def list(self) -> AsyncIterator[Erasure]:
        """The tenant's erasures, the newest first, without adapters and receipts."""
        request = wire.ListErasuresRequest(parent=self._calls.names.parent)
        async for each in self._calls.pages("registry", "ListErasures", request, "erasures"):
            yield reading.erasure(each)
