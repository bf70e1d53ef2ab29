"""Consents to the use of a living person's likeness, as callers use them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from perfuse.client import reading_records as reading
from perfuse.client._async.calls import Calls
from perfuse.client.records import Consent, ConsentScope
from perfuse.client.writing import consent_scopes, request_id_or_new, timestamp
from perfuse.v1 import consent_pb2 as wire


class Consents:
    """Consents of the Registry: without a live one a likeness is neither trained nor rendered."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def create(
        self,
        concept: str,
        *,
        giver: str,
        expire_time: datetime,
        scopes: Sequence[ConsentScope] = ("TRAIN", "RENDER"),
        start_time: datetime | None = None,
        consent_id: str = "",
        request_id: str = "",
    ) -> Consent:
        """Record a consent.

        Args:
            concept: id or name of a concept that was made as a likeness.
            giver: who consented, or where that is written.
            expire_time: until when it counts; with a time zone.
            scopes: to what.
            start_time: from when on it counts; None for at once.
            consent_id: its id to be; drawn by default.
            request_id: the same for the same wish, so that it is done once; drawn by default.

        Raises:
            FailedPrecondition: the concept is no likeness.
        """
        request = wire.CreateConsentRequest(
            parent=str(self._calls.names.concept(concept)),
            consent_id=consent_id,
            consent=wire.Consent(
                giver=giver,
                scopes=consent_scopes(scopes),
                start_time=timestamp("start_time", start_time),
                expire_time=timestamp("expire_time", expire_time),
            ),
            request_id=request_id_or_new(request_id),
        )
        return reading.consent(await self._calls.call("registry", "CreateConsent", request))

    async def get(self, concept: str, consent: str = "") -> Consent:
        """A consent.

        Args:
            concept: id or name; or the consent's whole name, and no consent.
            consent: its id.

        Raises:
            NotFound: there is none that the caller may see.
        """
        request = wire.GetConsentRequest(name=str(self._calls.names.consent(concept, consent)))
        return reading.consent(await self._calls.call("registry", "GetConsent", request))

    async def list(self, concept: str, *, page_size: int = 0) -> AsyncIterator[Consent]:
        """A concept's consents, the newest first, revoked and expired ones too."""
        parent = str(self._calls.names.concept(concept))
        request = wire.ListConsentsRequest(parent=parent, page_size=page_size)
        async for each in self._calls.pages("registry", "ListConsents", request, "consents"):
            yield reading.consent(each)

    async def revoke(self, concept: str, consent: str = "", *, etag: str = "") -> Consent:
        """Take a consent back for good.

        Args:
            concept: id or name; or the consent's whole name, and no consent.
            consent: its id.
            etag: refuse if the consent is not the one that has it.

        Raises:
            NotFound: there is none.
            EtagMismatch: it is another one.
        """
        request = wire.RevokeConsentRequest(
            name=str(self._calls.names.consent(concept, consent)),
            etag=etag,
            request_id=request_id_or_new(""),
        )
        return reading.consent(await self._calls.call("registry", "RevokeConsent", request))
