"""A shelf of adapters in the Registry's place: the same answers, counted, and faults on request.

It shares everything with every tenant but those whose credentials are `revoked`.
"""

from __future__ import annotations

import asyncio
from datetime import datetime

from bases import random_adapter

from perfuse.adapter import Adapter
from perfuse.attach import BaseModel
from perfuse.client.registry import FoundVersion
from perfuse.errors import ConsentRevoked, NotFound, Unavailable
from perfuse.names import ConceptName, VersionName

TOM = ConceptName("acme", "tom")
TOKEN = "Bearer a"


class Shelf:
    """Concepts of the tenant acme: `tom` with four versions, and others with one each."""

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        made = [random_adapter(base, seed, "cat") for seed in range(4)]
        self.files = [adapter.to_bytes() for adapter in made]
        self.digests = [adapter.digest for adapter in made]
        self.others = {
            # As a file rounds it.
            name: Adapter.from_bytes(random_adapter(base, 10 + seed, category).to_bytes())
            for seed, (name, category) in enumerate({"rex": "dog", "shades": "hat"}.items())
        }
        self.fingerprint = base.fingerprint
        self.prod = 1
        self.likeness = False
        self.consent_until: datetime | None = None
        self.away = False
        self.revoked: set[str] = set()
        self.asked = 0
        self.downloads = 0
        self.shared: list[bool] = []
        self.gate: asyncio.Event | None = None

    def found(self, name: VersionName) -> FoundVersion:
        number = {"prod": self.prod, "latest": 4}.get(name.version, name.number)
        if name.tenant != "acme":
            raise NotFound(f"{name} does not exist, or is not yours to see")
        if name.concept in self.others:
            digest, number = self.others[name.concept].digest, 1
        elif name.concept == "tom" and number is not None and number <= len(self.files):
            digest = self.digests[number - 1]
        else:
            raise NotFound(f"{name} does not exist, or is not yours to see")
        return FoundVersion(
            name.parent.version(number),
            digest,
            "baseModels/b",
            self.fingerprint,
            "cat",
            0.7,
            0.1,
            self.likeness,
            self.consent_until,
        )

    async def version(self, name: VersionName, authorization: str) -> FoundVersion:
        self.asked += 1
        if self.away:
            raise Unavailable("away")
        if authorization in self.revoked:
            raise NotFound(f"{name} does not exist, or is not yours to see")
        return self.found(name)

    async def adapter(
        self, name: VersionName, authorization: str, *, shared: bool = False
    ) -> tuple[FoundVersion, bytes]:
        self.downloads += 1
        self.shared.append(shared)
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise Unavailable("away")
        if self.likeness and self.consent_until is None:
            raise ConsentRevoked(f"the consent to rendering {name} was revoked")
        found = self.found(name)
        if name.concept in self.others:
            return found, self.others[name.concept].to_bytes()
        return found, self.files[self.digests.index(found.digest)]
