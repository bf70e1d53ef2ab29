"""The Renderer through a real server: what comes is what was asked for, and says so."""

from __future__ import annotations

import asyncio
import io
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import torch
from PIL import Image

from perfuse.adapter import Adapter
from perfuse.attach import BaseModel, PlannedConcept, generate, plan
from perfuse.client import from_rpc_error
from perfuse.errors import InvalidArgument, NotFound, PerfuseError
from perfuse.serving.audit_log import AuditLog, verify
from perfuse.serving.edge import Edge
from perfuse.serving.guard import unguarded
from perfuse.serving.testing import IssuedTokens, Served, serve
from perfuse.serving.validation import ProtovalidateValidator
from perfuse.v1 import renderer_pb2 as wire
from perfuse.v1.renderer_pb2_grpc import (
    RendererServiceStub,
    add_RendererServiceServicer_to_server,
)
from perfuse_renderer.engine.schedulers import make_scheduler
from perfuse_renderer.planning import Planner
from perfuse_renderer.pool import AdapterPool
from perfuse_renderer.servicer import RendererServicer
from perfuse_renderer.studio import Studio

from .shelf import Shelf
from .stages import Stage

NAME = "baseModels/tiny"


@dataclass
class Place:
    """A running Renderer."""

    served: Served
    stage: Stage
    shelf: Shelf

    def stub(self, tenant: str = "acme") -> Any:
        return self.served.stub(RendererServiceStub, tenant, "renderer")


@asynccontextmanager
async def renderer(
    base: BaseModel, stage: Stage, audit: AuditLog | None = None
) -> AsyncIterator[Place]:
    tokens, shelf = IssuedTokens(), Shelf(base)
    pool = AdapterPool(shelf)
    studio = Studio(NAME, base, Planner(base, pool), stage.backend, guidance=3.0)
    edge = Edge(tokens, ProtovalidateValidator())
    servicer = RendererServicer({NAME: studio}, pool, edge, audit=audit)
    part = (add_RendererServiceServicer_to_server, servicer)
    async with serve(part, edge=edge, tokens=tokens) as served:
        yield Place(served, stage, shelf)


def through(base: BaseModel, stage: Stage, work: Callable[[Place], Awaitable[None]]) -> None:
    async def run() -> None:
        async with renderer(base, stage) as place:
            await work(place)

    asyncio.run(run())


def settings(prompt: str = "a photo of <tom>", **fields: Any) -> wire.RenderSettings:
    given: dict[str, Any] = {"seeds": [7], "steps": 3, "width": 16, "height": 16}
    return wire.RenderSettings(prompt=prompt, **(given | fields))


async def refusal(call: Any) -> PerfuseError:
    async def answered() -> None:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answered()
    return from_rpc_error(caught.value)


def test_every_method_is_guarded() -> None:
    service = wire.DESCRIPTOR.services_by_name["RendererService"]
    assert unguarded(service, RendererServicer) == []


def test_a_render_tells_how_it_goes_and_ends_in_the_library_s_picture(
    base: BaseModel, stage: Stage
) -> None:
    async def work(place: Place) -> None:
        request = wire.RenderRequest(
            settings=settings(
                "a <tom@2> with <shades>",
                negative_prompt="a <rex>",
                seeds=[7, 8],
                steps=4,
                guidance=2.5,
                scheduler="euler",
                concepts=[wire.ConceptSettings(placeholder="tom@2", bias=0.4)],
            ),
            preview_every=2,
        )
        events = [event async for event in place.stub().Render(request)]
        kinds = [event.WhichOneof("event") for event in events]
        assert kinds[0] == "queued"
        assert kinds.count("progress") == 8
        assert kinds.count("image") == 2
        previews = [event.preview for event in events if event.HasField("preview")]
        assert sorted(preview.image_index for preview in previews) == [0, 1]
        assert Image.open(io.BytesIO(previews[0].picture)).format == "JPEG"
        drawn = [event.image for event in events if event.HasField("image")]
        images = {image.image_index: image for image in drawn}
        tom = Adapter.from_bytes(place.shelf.files[1])
        expected = generate(
            base,
            [
                plan(
                    base,
                    "a <tom> with <shades>",
                    [
                        PlannedConcept("tom", tom, bias=0.4),
                        PlannedConcept("shades", place.shelf.others["shades"]),
                    ],
                )
            ]
            * 2,
            seeds=[7, 8],
            negative=plan(base, "a <rex>", [PlannedConcept("rex", place.shelf.others["rex"])]),
            steps=4,
            guidance=2.5,
            height=16,
            width=16,
            scheduler=make_scheduler(base, "euler"),
            output="pt",
        )
        for index in (0, 1):
            picture = Image.open(io.BytesIO(images[index].picture))
            pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)
            stock = (expected[index].float() * 255).round().to(torch.uint8)
            assert int((pixels.int() - stock.int()).abs().max()) <= 1
            record = images[index].record
            assert record.seed == 7 + index
            assert json.loads(picture.info["perfuse"])["plan_digest"] == record.plan_digest
        said = {c.placeholder: c for c in images[0].record.concepts}
        assert set(said) == {"tom@2", "shades", "rex"}
        assert said["tom@2"].version == "tenants/acme/concepts/tom/versions/2"
        assert said["tom@2"].bias == pytest.approx(0.4)
        assert images[0].record.scheduler == "euler"
        assert images[0].record.key_lock == "LOCAL"

    through(base, stage, work)


def test_the_unary_twin_gives_the_same_pictures(base: BaseModel, stage: Stage) -> None:
    async def work(place: Place) -> None:
        asked = settings(seeds=[1, 2, 3])
        answer = await place.stub().GenerateImages(wire.GenerateImagesRequest(settings=asked))
        assert [image.record.seed for image in answer.images] == [1, 2, 3]
        request = wire.RenderRequest(settings=asked)
        streamed = {
            event.image.image_index: event.image
            async for event in place.stub().Render(request)
            if event.HasField("image")
        }

        def pixels(image: wire.RenderedImage) -> Any:
            return np.asarray(Image.open(io.BytesIO(image.picture)))

        for index, image in enumerate(answer.images):
            assert (pixels(image) == pixels(streamed[index])).all()

    through(base, stage, work)


@pytest.mark.parametrize(
    ("form", "name"),
    [
        (wire.PICTURE_FORMAT_UNSPECIFIED, "PNG"),
        (wire.PICTURE_FORMAT_JPEG, "JPEG"),
        (wire.PICTURE_FORMAT_WEBP, "WEBP"),
    ],
)
def test_pictures_come_in_the_format_asked_for(
    base: BaseModel, stage: Stage, form: Any, name: str
) -> None:
    async def work(place: Place) -> None:
        request = wire.GenerateImagesRequest(settings=settings(format=form))
        (image,) = (await place.stub().GenerateImages(request)).images
        assert Image.open(io.BytesIO(image.picture)).format == name

    through(base, stage, work)


def test_what_is_left_open_is_chosen_and_told(base: BaseModel, stage: Stage) -> None:
    async def work(place: Place) -> None:
        request = wire.GenerateImagesRequest(
            settings=wire.RenderSettings(prompt="a photo of a cat", image_count=2, steps=2)
        )
        first, second = (await place.stub().GenerateImages(request)).images
        assert first.record.seed != second.record.seed
        assert first.record.base_model == NAME
        assert first.record.guidance == 3.0
        assert first.record.key_lock == ""
        again = settings("a photo of a cat", seeds=[first.record.seed], steps=2, width=0, height=0)
        (repeated,) = (
            await place.stub().GenerateImages(wire.GenerateImagesRequest(settings=again))
        ).images
        assert repeated.record.plan_digest == first.record.plan_digest
        one = Image.open(io.BytesIO(first.picture))
        other = Image.open(io.BytesIO(repeated.picture))
        assert (np.asarray(one) == np.asarray(other)).all()

    through(base, stage, work)


@pytest.mark.parametrize(
    ("asked", "kind", "message"),
    [
        (settings("a <Tom>"), InvalidArgument, "at character 2"),
        (settings("a <nobody>"), NotFound, "not yours to see"),
        (settings("a <globex/tom>"), NotFound, "not yours to see"),
        (settings(base_model="baseModels/other"), NotFound, "is not resident here"),
        (settings(width=17), InvalidArgument, "not a multiple"),
        (settings(scheduler="best"), InvalidArgument, "choose one of"),
        (settings(image_count=2), InvalidArgument, "not both"),
        (
            settings(concepts=[wire.ConceptSettings(placeholder="rex", bias=0.5)]),
            InvalidArgument,
            "is not in the prompt",
        ),
        (settings(steps=500), InvalidArgument, "settings.steps"),
        (settings("cat " * 200), InvalidArgument, "the limit falls"),
    ],
)
def test_refusals_say_what_and_where(
    base: BaseModel,
    stage: Stage,
    asked: wire.RenderSettings,
    kind: type[PerfuseError],
    message: str,
) -> None:
    async def work(place: Place) -> None:
        for call in (
            place.stub().Render(wire.RenderRequest(settings=asked)),
            place.stub().GenerateImages(wire.GenerateImagesRequest(settings=asked)),
        ):
            error = await refusal(call)
            assert isinstance(error, kind)
            assert message in str(error)
        assert not await place.stage.busy()

    through(base, stage, work)


def test_whenever_a_call_is_cancelled_the_engine_stops(base: BaseModel, stage: Stage) -> None:
    """Thirty of thirty: on receipt of a message, a moment later, and before the first one."""

    async def work(place: Place) -> None:
        place.stage.slow(0.03)
        chance = random.Random(4)
        for attempt in range(30):
            request = wire.RenderRequest(settings=settings(steps=190, seeds=[attempt]))
            call = place.stub().Render(request)
            if attempt % 3:
                heard, enough = 0, chance.randrange(3)
                async for event in call:
                    heard += event.HasField("progress")
                    if heard > enough:
                        break
            if attempt % 3 != 1:
                await asyncio.sleep(0.06 * chance.random())
            call.cancel()
            before = await place.stage.steps()
            # The step that is being made, and one that begins before the news is there.
            assert await place.stage.idle() - before <= 2
        status = await place.stub().GetRendererStatus(wire.GetRendererStatusRequest())
        assert (status.running_count, status.waiting_count) == (0, 0)

    through(base, stage, work)


def test_a_caller_who_vanishes_takes_the_render_along(base: BaseModel, stage: Stage) -> None:
    async def work(place: Place) -> None:
        place.stage.slow(0.03)
        token = place.served.token("acme", "renderer")
        async with grpc.aio.insecure_channel(place.served.target) as channel:
            request = wire.RenderRequest(settings=settings(steps=190, image_count=3, seeds=[]))
            metadata = (("authorization", f"Bearer {token}"),)
            call = RendererServiceStub(channel).Render(request, metadata=metadata)
            async for event in call:
                if event.HasField("progress"):
                    break
            assert place.stage.backend.running
        before = await place.stage.steps()
        assert await place.stage.idle() - before <= 3

    through(base, stage, work)


def test_a_deadline_stops_a_render(base: BaseModel, stage: Stage) -> None:
    async def work(place: Place) -> None:
        # Of a size that was never rendered, so that admission has no forecast.
        request = wire.GenerateImagesRequest(settings=settings(steps=190, width=40))
        place.stage.slow(0.05)
        error = await refusal(place.stub().GenerateImages(request, timeout=3.0))
        assert error.status == "DEADLINE_EXCEEDED"
        before = await place.stage.steps()
        assert await place.stage.idle() - before <= 2

    through(base, stage, work)


def test_tenants_with_concepts_of_one_name_never_cross(base: BaseModel, stage: Stage) -> None:
    """Two tenants render `<tom>` at once, many times: each gets its own every time."""

    async def work(place: Place) -> None:
        own = place.shelf.found

        def found(name: Any) -> Any:
            if name.tenant != "globex":
                return own(name)
            version = own(type(name)("acme", name.concept, "3"))
            return type(version)(name.parent.version(3), *_rest(version))

        place.shelf.found = found  # type: ignore[method-assign]
        digests: dict[str, set[str]] = {"acme": set(), "globex": set()}
        plans: dict[str, set[str]] = {"acme": set(), "globex": set()}

        async def ask(tenant: str, seed: int) -> None:
            request = wire.GenerateImagesRequest(settings=settings(seeds=[seed], steps=2))
            (image,) = (await place.stub(tenant).GenerateImages(request)).images
            (concept,) = image.record.concepts
            assert concept.version.startswith(f"tenants/{tenant}/")
            digests[tenant].add(concept.digest)
            plans[tenant].add(image.record.plan_digest)

        await asyncio.gather(*(ask(tenant, seed) for seed in range(12) for tenant in digests))
        assert digests == {"acme": {place.shelf.digests[3]}, "globex": {place.shelf.digests[2]}}
        assert plans["acme"].isdisjoint(plans["globex"])

    through(base, stage, work)


def _rest(version: Any) -> list[Any]:
    names = ("digest", "base_model", "fingerprint", "super_category", "bias", "temperature")
    return [getattr(version, name) for name in names]


def test_the_status_says_what_is_resident(base: BaseModel, stage: Stage) -> None:
    async def work(place: Place) -> None:
        await place.stub().GenerateImages(wire.GenerateImagesRequest(settings=settings()))
        status = await place.stub().GetRendererStatus(wire.GetRendererStatusRequest())
        (resident,) = status.base_models
        assert (resident.name, resident.fingerprint) == (NAME, base.fingerprint)
        assert "euler" in status.schedulers
        assert status.resident_adapter_count == 1
        assert (status.running_count, status.waiting_count) == (0, 0)

    through(base, stage, work)


def test_strangers_are_refused(base: BaseModel, stage: Stage) -> None:
    async def work(place: Place) -> None:
        stub = RendererServiceStub(place.served.channel)
        request = wire.GenerateImagesRequest(settings=settings())
        assert (await refusal(stub.GenerateImages(request))).status == "UNAUTHENTICATED"

    through(base, stage, work)


def test_who_rendered_what_is_recorded_and_no_word_of_the_prompt(
    base: BaseModel, stage: Stage, tmp_path: Path
) -> None:
    path = tmp_path / "audit.jsonl"

    async def work() -> None:
        async with renderer(base, stage, AuditLog(path)) as place:
            stub = place.stub()
            await stub.GenerateImages(
                wire.GenerateImagesRequest(settings=settings("an ochre <tom@2> and <shades>"))
            )
            await refusal(
                stub.GenerateImages(
                    wire.GenerateImagesRequest(settings=settings("an ochre <nobody>"))
                )
            )
            await stub.GetRendererStatus(wire.GetRendererStatusRequest())
            reader = place.served.stub(RendererServiceStub, "acme", "reader")
            await refusal(reader.GenerateImages(wire.GenerateImagesRequest(settings=settings())))

    asyncio.run(work())
    told = [json.loads(line) for line in path.read_text().splitlines()]
    concepts = "tenants/acme/concepts"
    assert [(event["rpc"], event["resources"], event["code"]) for event in told] == [
        ("GenerateImages", [f"{concepts}/shades/versions/1", f"{concepts}/tom/versions/2"], "OK"),
        ("GenerateImages", [], "NOT_FOUND"),
        ("GenerateImages", [], "PERMISSION_DENIED"),
    ]
    assert "ochre" not in path.read_text()
    assert verify(path) == 3
