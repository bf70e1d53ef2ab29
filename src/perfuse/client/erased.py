"""What services ask the Registry about erasures, and tell it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from perfuse.names import ConceptName
from perfuse.v1 import erasure_pb2


@dataclass(frozen=True, slots=True)
class Erased:
    """Concepts that were erased, and digests of the adapters that they had."""

    concepts: frozenset[ConceptName]
    digests: frozenset[str]


class ErasureCalls:
    """The calls, for `RegistryClient` to inherit."""

    _stub: Any
    _custody: str
    _call: Any

    async def unconfirmed_erasures(self, authorization: str) -> list[ConceptName]:
        """Concepts of every tenant that were erased, of which the Trainer has yet to say so.

        Args:
            authorization: of a service that may act for tenants (role `delegate`).

        Raises:
            PerfuseError: as the Registry refused.
        """
        found: list[ConceptName] = []
        request = erasure_pb2.ListErasuresRequest(
            parent="tenants/-", page_size=1000, unconfirmed_only=True
        )
        while True:
            # A delegate always names a tenant; here it is all the same which.
            page = await self._call(self._stub.ListErasures, request, authorization, "every")
            found += [ConceptName.parse(each.concept) for each in page.erasures]
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found

    async def erased(self, after: datetime | None) -> Erased:
        """What was erased later than `after`, of every tenant, asked with the service's custody.

        Raises:
            PerfuseError: as the Registry refused.
        """
        concepts: set[ConceptName] = set()
        digests: set[str] = set()
        request = erasure_pb2.ListErasuresRequest(
            parent="tenants/-", page_size=100, with_adapters=True
        )
        if after is not None:
            request.after.FromDatetime(after)
        while True:
            page = await self._call(self._stub.ListErasures, request, self._custody)
            for each in page.erasures:
                concepts.add(ConceptName.parse(each.concept))
                digests.update(adapter.digest for adapter in each.adapters)
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return Erased(frozenset(concepts), frozenset(digests))

    async def confirm_erasure(
        self, concept: ConceptName, removed: Mapping[str, int], authorization: str
    ) -> None:
        """Say what the Trainer removed of an erased concept.

        Args:
            concept: that was erased.
            removed: counts by field of `TrainerErasure`.
            authorization: as `unconfirmed_erasures`.

        Raises:
            PerfuseError: as the Registry refused.
        """
        request = erasure_pb2.ConfirmErasureRequest(
            name=str(concept.erasure), trainer=erasure_pb2.TrainerErasure(**removed)
        )
        await self._call(self._stub.ConfirmErasure, request, authorization, concept.tenant)
