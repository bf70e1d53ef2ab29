"""What a Renderer cached of an erased concept goes, beside a real Registry, for grantees too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from registry.served import Installation, Tenant

from perfuse.attach import BaseModel
from perfuse.client.registry import RegistryClient
from perfuse.errors import ConceptErased, NotFound, Unavailable
from perfuse.v1 import erasure_pb2
from perfuse.v1 import registry_pb2 as wire
from perfuse_renderer.forgetting import Forgetting
from perfuse_renderer.planning import Asker, Planner
from perfuse_renderer.pool import FRESH_SECONDS, AdapterPool

from .test_sharing import Clock, registry, teach  # noqa: F401


@dataclass
class Door:
    """What a Renderer plans with."""

    pool: AdapterPool
    planner: Planner
    forgetting: Forgetting
    clock: Clock
    tokens: Installation

    async def plan(self, tenant: Tenant, prompt: str) -> None:
        token = self.tokens.tokens.issue(tenant.id, "renderer")
        await self.planner.plan(Asker(tenant.id, f"Bearer {token}"), prompt, {}, None)

    @property
    def kept(self) -> tuple[int, int, int]:
        """Adapters in memory, plans, prepared concepts."""
        caches = self.planner.caches
        return self.pool.count, caches["plans"].count, caches["concepts"].count


@asynccontextmanager
async def door(base: BaseModel, behind: Installation, disk: Path) -> AsyncIterator[Door]:
    own = f"Bearer {behind.tokens.issue('platform', 'custodian')}"
    clock = Clock()
    async with RegistryClient(behind.target, custody=own) as client:
        pool = AdapterPool(client, disk, clock=clock)
        planner = Planner(base, pool)
        pool.on_forget.append(planner.forget)
        yield Door(pool, planner, Forgetting(client, pool), clock, behind)


def erase(tenant: Tenant, concept_id: str = "tom") -> None:
    name = f"{tenant.name}/concepts/{concept_id}"
    found = tenant.call.GetConcept(wire.GetConceptRequest(name=name))
    tenant.admin.EraseConcept(erasure_pb2.EraseConceptRequest(name=name, etag=found.etag))


def test_everything_cached_goes_with_one_turn_and_the_rest_stays(
    base: BaseModel,
    registry: Installation,  # noqa: F811
    tmp_path: Path,
) -> None:
    acme, rival = registry.tenant(), registry.tenant()
    teach(base, acme, 1)
    teach(base, acme, 2, "tim")
    acme.grant(rival)

    async def work() -> None:
        async with door(base, registry, tmp_path) as renderer:
            shared = f"a photo of <{acme.id}/tom>"
            await renderer.plan(acme, "a photo of <tom>")
            await renderer.plan(rival, shared)
            await renderer.plan(acme, "a photo of <tim>")
            await renderer.pool.written()
            assert renderer.kept == (2, 2, 2)
            assert len(list(tmp_path.iterdir())) == 2
            await renderer.forgetting.turn()
            assert renderer.kept == (2, 2, 2)
            erase(acme)
            await renderer.forgetting.turn()
            assert renderer.kept == (1, 1, 1)
            assert len(list(tmp_path.iterdir())) == 1
            # No name is fresh any more either.
            with pytest.raises(ConceptErased):
                await renderer.plan(acme, "a photo of <tom>")
            with pytest.raises(NotFound):
                await renderer.plan(rival, shared)
            await renderer.plan(acme, "a photo of <tim>")
            assert renderer.kept == (1, 1, 1)

    asyncio.run(work())


def test_without_a_credential_of_its_own_it_is_used_no_longer_than_any_name(
    base: BaseModel,
    registry: Installation,  # noqa: F811
    tmp_path: Path,
) -> None:
    acme = registry.tenant()
    teach(base, acme, 3)

    async def work() -> None:
        async with door(base, registry, tmp_path) as renderer:
            await renderer.plan(acme, "a photo of <tom>")
            await renderer.pool.written()
            erase(acme)
            renderer.clock.now += FRESH_SECONDS
            with pytest.raises(ConceptErased):
                await renderer.plan(acme, "a photo of <tom>")
            # Who asks has it forgotten.
            assert renderer.kept == (0, 0, 0)
            assert list(tmp_path.iterdir()) == []

    asyncio.run(work())


def test_a_disk_of_before_is_looked_through_at_the_start(
    base: BaseModel,
    registry: Installation,  # noqa: F811
    tmp_path: Path,
) -> None:
    acme = registry.tenant()
    teach(base, acme, 4)

    async def work() -> None:
        async with door(base, registry, tmp_path) as renderer:
            await renderer.plan(acme, "a photo of <tom>")
            await renderer.pool.written()
        assert len(list(tmp_path.iterdir())) == 1
        erase(acme)
        async with (
            door(base, registry, tmp_path) as renderer,
            renderer.forgetting.going_on(),
        ):
            for _ in range(200):
                if not list(tmp_path.iterdir()):
                    break
                await asyncio.sleep(0.05)
        assert list(tmp_path.iterdir()) == []

    asyncio.run(work())


def test_what_could_not_be_asked_is_asked_again(
    base: BaseModel,
    registry: Installation,  # noqa: F811
    tmp_path: Path,
) -> None:
    acme = registry.tenant()
    teach(base, acme, 5)

    async def work() -> None:
        async with door(base, registry, tmp_path) as renderer:
            await renderer.plan(acme, "a photo of <tom>")
            erase(acme)
            asked = renderer.forgetting._source.erased

            async def away(after: object) -> None:
                raise Unavailable("the Registry does not answer")

            renderer.forgetting._source.erased = away  # type: ignore[method-assign, assignment]
            await renderer.forgetting.turn()
            assert renderer.kept[0] == 1
            renderer.forgetting._source.erased = asked  # type: ignore[method-assign]
            await renderer.forgetting.turn()
            assert renderer.kept == (0, 0, 0)

    asyncio.run(work())
