"""A Renderer beside a real Registry: whose concepts a prompt reaches, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from bases import random_adapter
from registry import samples
from registry.served import Installation, Tenant, installed

from perfuse.attach import BaseModel
from perfuse.client import from_rpc_error
from perfuse.client.registry import RegistryClient
from perfuse.errors import FailedPrecondition, NotFound, PerfuseError, QuotaExceeded
from perfuse.quotas import Quotas
from perfuse.serving.edge import Edge
from perfuse.serving.metrics import QUOTA_REFUSALS
from perfuse.serving.testing import Served, serve
from perfuse.serving.validation import ProtovalidateValidator
from perfuse.v1 import registry_pb2
from perfuse.v1 import renderer_pb2 as wire
from perfuse.v1.renderer_pb2_grpc import (
    RendererServiceStub,
    add_RendererServiceServicer_to_server,
)
from perfuse_renderer.metering import IMAGES, STEP_SECONDS, Meter
from perfuse_renderer.planning import Planner
from perfuse_renderer.pool import FRESH_SECONDS, AdapterPool
from perfuse_renderer.servicer import RendererServicer
from perfuse_renderer.studio import Studio

from . import stages


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Place:
    """A Renderer, the Registry that it asks, and the clock that it goes by."""

    served: Served
    registry: Installation
    clock: Clock
    edge: Edge

    async def render(self, tenant: Tenant, prompt: str, **fields: Any) -> list[Any]:
        """The pictures of a prompt, as a caller of this tenant."""
        given: dict[str, Any] = {"seeds": [7], "steps": 2, "width": 16, "height": 16} | fields
        request = wire.GenerateImagesRequest(settings=wire.RenderSettings(prompt=prompt, **given))
        stub: Any = self.served.stub(RendererServiceStub, tenant.id, "renderer")
        try:
            return list((await stub.GenerateImages(request)).images)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None

    async def digests(self, tenant: Tenant, prompt: str) -> list[str]:
        """Digests of the adapters that a picture was rendered with."""
        (image,) = await self.render(tenant, prompt)
        return [concept.digest for concept in image.record.concepts]


@pytest.fixture(scope="module")
def registry(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    described = registry_pb2.BaseModel(
        fingerprint=base.fingerprint,
        architecture=base.architecture,
        conditioning_width=base.conditioning_width,
        layers=[registry_pb2.Layer(name=each.name, width=each.width) for each in base.layers],
        encoders=[registry_pb2.Encoder(name=x.name, width=x.width) for x in base.encoders],
    )
    with installed("sqlite+directory", tmp_path_factory.mktemp("registry")) as installation:
        installation.operator.CreateBaseModel(
            registry_pb2.CreateBaseModelRequest(base_model_id="tiny", base_model=described)
        )
        yield installation


def teach(base: BaseModel, tenant: Tenant, seed: int, concept_id: str = "tom") -> str:
    """A concept with one version, aliased `prod`; the version's digest."""
    tenant.concept(concept_id)
    data = random_adapter(base, seed, "cat").to_bytes()
    made = tenant.call.CreateVersion(samples.upload(f"{tenant.name}/concepts/{concept_id}", data))
    tenant.alias("prod", made)
    return str(made.digest)


@asynccontextmanager
async def renderer(
    base: BaseModel, registry: Installation, home: Path, *, custody: bool, quotas: Quotas
) -> AsyncIterator[Place]:
    clock, tokens = Clock(), registry.tokens
    own = f"Bearer {tokens.issue('platform', 'custodian')}" if custody else ""
    with stages.local(base, home) as stage:
        async with RegistryClient(registry.target, custody=own) as client:
            pool = AdapterPool(client, clock=clock)
            studio = Studio("baseModels/tiny", base, Planner(base, pool), stage.backend)
            edge = Edge(tokens, ProtovalidateValidator())
            servicer = RendererServicer(
                {"baseModels/tiny": studio}, pool, edge, Meter(quotas, clock)
            )
            part = (add_RendererServiceServicer_to_server, servicer)
            async with serve(part, edge=edge, tokens=tokens) as served:
                yield Place(served, registry, clock, edge)


Through = Callable[..., None]


@pytest.fixture
def through(base: BaseModel, registry: Installation, tmp_path: Path) -> Through:
    """Run a test's work against a Renderer."""

    def run(
        work: Callable[[Place], Awaitable[None]], *, custody: bool = True, limits: str = ""
    ) -> None:
        file = tmp_path / "quotas.toml"
        file.write_text(limits)

        async def go() -> None:
            place = renderer(base, registry, tmp_path, custody=custody, quotas=Quotas(file))
            async with place as made:
                await work(made)

        asyncio.run(go())

    return run


async def refused(call: Awaitable[Any], kind: type[PerfuseError]) -> PerfuseError:
    with pytest.raises(kind) as caught:
        await call
    return caught.value


def test_a_grantee_renders_with_what_it_cannot_download(
    base: BaseModel, registry: Installation, through: Through
) -> None:
    acme, globex = registry.tenant(), registry.tenant()
    theirs = teach(base, acme, 1)
    own = teach(base, globex, 2)

    async def work(place: Place) -> None:
        for version in ("", "@prod", "@1", "@latest"):
            written = f"a <{acme.id}/tom{version}>"
            missing = await refused(place.render(globex, written), NotFound)
            assert acme.id in str(missing)
        acme.grant(globex, "RENDER")
        for version in ("", "@prod", "@1", "@latest"):
            # The same id on both sides, alone and together: neither stands in for the other.
            assert await place.digests(globex, f"a <{acme.id}/tom{version}>") == [theirs]
            assert await place.digests(globex, f"a <tom{version}>") == [own]
            assert await place.digests(acme, f"a <tom{version}>") == [theirs]
        both = await place.digests(globex, f"<tom> and <{acme.id}/tom>")
        assert both == [own, theirs]
        # A grant has one direction.
        await refused(place.render(acme, f"a <{globex.id}/tom>"), NotFound)
        download = registry_pb2.DownloadAdapterRequest(name=f"{acme.name}/concepts/tom/versions/1")
        with pytest.raises(Exception, match="for rendering alone"):
            globex.call.DownloadAdapter(download)

    through(work)


@pytest.mark.parametrize("access", ["RENDER", "READ"])
def test_a_revocation_holds_within_five_seconds_though_everything_is_cached(
    base: BaseModel, registry: Installation, through: Through, access: str
) -> None:
    acme, globex = registry.tenant(), registry.tenant()
    theirs = teach(base, acme, 3)
    acme.grant(globex, access)

    async def work(place: Place) -> None:
        written = f"a <{acme.id}/tom@1>"
        assert await place.digests(globex, written) == [theirs]
        acme.revoke(globex)
        place.clock.now += FRESH_SECONDS - 0.01
        assert await place.digests(globex, written) == [theirs]
        place.clock.now += 0.01
        gone = await refused(place.render(globex, written), NotFound)
        never = await refused(place.render(globex, f"a <{acme.id}/tim@1>"), NotFound)
        assert str(gone).replace("tom", "tim") == str(never)
        assert await place.digests(acme, "a <tom@1>") == [theirs]
        acme.grant(globex, access)
        assert await place.digests(globex, written) == [theirs]

    through(work)


def test_without_a_credential_of_its_own_a_renderer_says_what_it_lacks(
    base: BaseModel, registry: Installation, through: Through
) -> None:
    acme, globex = registry.tenant(), registry.tenant()
    teach(base, acme, 4)
    read = teach(base, acme, 5, "rex")
    acme.grant(globex, "RENDER")
    acme.grant(globex, "READ", "rex")

    async def work(place: Place) -> None:
        lacking = await refused(place.render(globex, f"a <{acme.id}/tom>"), FailedPrecondition)
        assert "PERFUSE_RENDERER_REGISTRY_TOKEN" in str(lacking)
        # What may be read needs none, nor do one's own.
        assert await place.digests(globex, f"a <{acme.id}/rex>") == [read]
        assert await place.digests(acme, "a <rex>") == [read]

    through(work, custody=False)


def test_quotas_hold_by_the_minute_and_are_told(
    base: BaseModel, registry: Installation, through: Through
) -> None:
    acme, globex = registry.tenant(), registry.tenant()
    limits = f"[tenants.{acme.id}]\nimages_per_minute = 3\n"

    async def told(place: Place) -> dict[str, Any]:
        stub: Any = place.served.stub(RendererServiceStub, acme.id, "reader")
        answer = await stub.GetRendererStatus(wire.GetRendererStatusRequest())
        return {each.quota: each for each in answer.quotas}

    async def work(place: Place) -> None:
        await place.render(acme, "a cat", seeds=[1, 2])
        over = await refused(place.render(acme, "a cat", seeds=[1, 2]), QuotaExceeded)
        assert isinstance(over, QuotaExceeded)
        assert (over.quota, over.limit, over.resource) == (IMAGES, 3, acme.name)
        assert over.retry_after == pytest.approx(61.0)
        # A refused prompt costs nothing.
        await refused(place.render(acme, "a <nobody>"), NotFound)
        found = await told(place)
        assert (found[IMAGES].used, found[IMAGES].limit) == (2, 3)
        assert found[STEP_SECONDS].used > 0
        assert not found[STEP_SECONDS].HasField("limit")
        await place.render(globex, "a cat", seeds=[1, 2, 3, 4])
        place.clock.now += over.retry_after or 0.0
        await place.render(acme, "a cat", seeds=[1, 2])
        counted = place.edge.metrics.registry.get_sample_value(QUOTA_REFUSALS, {"quota": IMAGES})
        assert counted == 1

    through(work, limits=limits)
