"""Prompts longer than the encoder are refused, or read in chunks, as the request says."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import torch
from google.protobuf.json_format import MessageToDict
from PIL import Image

from perfuse.adapter import Adapter
from perfuse.attach import BaseModel, PlannedConcept, generate, plan, unconditional
from perfuse.errors import InvalidArgument, PromptRefused
from perfuse.method import KeyLock
from perfuse.v1 import renderer_pb2 as wire
from perfuse_renderer import messages
from perfuse_renderer.backend import LocalBackend
from perfuse_renderer.engine.engine import Engine
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.engine.render import Failed, Finished
from perfuse_renderer.engine.schedulers import make_scheduler
from perfuse_renderer.pictures import encode
from perfuse_renderer.planning import Asker, Planner
from perfuse_renderer.pool import AdapterPool
from perfuse_renderer.studio import Commission, Studio

from .shelf import TOKEN, Shelf

ACME = Asker("acme", TOKEN)
LONG = "a photo of <tom@2> " + "big red cat " * 30 + "beside <rex>"


@asynccontextmanager
async def studio(base: BaseModel) -> AsyncIterator[tuple[Studio, Shelf]]:
    shelf = Shelf(base)
    engine = Engine(base, EngineSettings(max_lanes=8))
    try:
        planner = Planner(base, AdapterPool(shelf))
        yield Studio("baseModels/tiny", base, planner, LocalBackend(engine), 3.0), shelf
    finally:
        await asyncio.to_thread(engine.drain, 0.0)


def within(base: BaseModel, work: Callable[[Studio, Shelf], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with studio(base) as (made, shelf):
            await work(made, shelf)

    asyncio.run(run())


async def commission(made: Studio, prompt: str, **settings: Any) -> Commission:
    given = {"steps": 3, "width": 16, "height": 16, "seeds": [7], "scheduler": "ddim"}
    asked = wire.RenderSettings(prompt=prompt, **(given | settings))
    return await made.commission(ACME, messages.order(asked))


async def pixels(made: Studio, *works: Commission) -> list[torch.Tensor]:
    """The first picture of each, all asked for at once."""

    async def one(work: Commission) -> torch.Tensor:
        events = [event async for event in made.render("acme", work, deadline=None)]
        assert not [event for event in events if isinstance(event, Failed)]
        return next(event.pixels for event in events if isinstance(event, Finished))

    return list(await asyncio.gather(*map(one, works)))


@pytest.mark.parametrize("said", [wire.LONG_PROMPT_UNSPECIFIED, wire.LONG_PROMPT_REFUSE])
def test_unless_it_is_asked_for_nothing_is_split(base: BaseModel, said: wire.LongPrompt) -> None:
    async def work(made: Studio, shelf: Shelf) -> None:
        with pytest.raises(PromptRefused, match=r"the limit falls after '.*': shorten it by"):
            await commission(made, LONG, long_prompt=said)

    within(base, work)


@pytest.mark.parametrize("lock", [KeyLock.LOCAL, KeyLock.GLOBAL])
def test_a_long_prompt_becomes_the_library_s_picture(base: BaseModel, lock: KeyLock) -> None:
    async def work(made: Studio, shelf: Shelf) -> None:
        asked = {"key_lock": getattr(wire, f"RENDER_LOCK_{lock.value}")}
        done = await commission(
            made, LONG, long_prompt=wire.LONG_PROMPT_CHUNK, guidance=3.0, **asked
        )
        concepts = [
            PlannedConcept("tom@2", Adapter.from_bytes(shelf.files[1])),
            PlannedConcept("rex", shelf.others["rex"]),
        ]
        expected = plan(base, LONG, concepts, key_lock=lock, max_chunks=4)
        assert done.pictures[0].plan.digest == expected.digest
        assert done.pictures[0].negative.digest == unconditional(base, 2).digest
        (found,) = await pixels(made, done)
        stock = generate(
            base,
            [expected],
            seeds=[7],
            steps=3,
            guidance=3.0,
            height=16,
            width=16,
            scheduler=make_scheduler(base, "ddim"),
            output="pt",
        )[0]
        assert torch.equal(found, (stock.float() * 255).round().to(torch.uint8))
        record = messages.record(made.record(done, 0))
        assert record.chunk_count == 2
        told = MessageToDict(record, preserving_proto_field_name=True)
        picture = Image.open(io.BytesIO(encode(found, "PNG", told)))
        assert json.loads(picture.info["perfuse"])["chunk_count"] == 2

    within(base, work)


def test_the_shorter_prompt_is_filled_up(base: BaseModel) -> None:
    async def work(made: Studio, shelf: Shelf) -> None:
        chunked = {"long_prompt": wire.LONG_PROMPT_CHUNK, "guidance": 3.0}
        both = await commission(made, LONG, negative_prompt="a hat", **chunked)
        (picture,) = both.pictures
        assert picture.negative.digest == plan(base, "a hat", min_chunks=2).digest
        both = await commission(made, "a hat", negative_prompt=LONG, **chunked)
        (picture,) = both.pictures
        assert picture.plan.digest == plan(base, "a hat", min_chunks=2).digest
        assert made.record(both, 0).chunk_count == 2
        # Without guidance nothing is compared, and the prompt stays as it is.
        alone = await commission(
            made, "a hat", negative_prompt=LONG, **(chunked | {"guidance": 1.0})
        )
        assert alone.pictures[0].plan.digest == plan(base, "a hat").digest
        assert len(await pixels(made, both, alone)) == 2
        # Nor does the permission change a prompt that needs none.
        short = await commission(made, "a hat", **chunked)
        assert short.pictures[0].plan.digest == plan(base, "a hat").digest
        assert made.record(short, 0).chunk_count == 1

    within(base, work)


def test_long_and_short_ones_beside_each_other_are_what_they_are_alone(base: BaseModel) -> None:
    async def work(made: Studio, shelf: Shelf) -> None:
        works = [
            await commission(made, prompt, seeds=[seed], long_prompt=wire.LONG_PROMPT_CHUNK)
            for seed in range(3)
            for prompt in (LONG, "a <tom>", f"{LONG} {LONG}")
        ]
        assert {len(work.pictures[0].plan.chunks) for work in works} == {1, 2, 3}
        together = await pixels(made, *works)
        for asked, found in zip(works, together, strict=True):
            (alone,) = await pixels(made, asked)
            assert torch.equal(alone, found)

    within(base, work)


def test_there_is_an_end_to_length(base: BaseModel) -> None:
    async def work(made: Studio, shelf: Shelf) -> None:
        with pytest.raises(PromptRefused, match="4 chunks of 75 do not hold"):
            await commission(made, LONG * 4, long_prompt=wire.LONG_PROMPT_CHUNK)

    within(base, work)


def test_a_scheduler_that_cannot_is_a_fault_of_the_request(base: BaseModel) -> None:
    async def work(made: Studio, shelf: Shelf) -> None:
        trained = base.pipeline.scheduler.config.num_train_timesteps
        with pytest.raises(InvalidArgument, match=r"settings\.steps: the scheduler ddim cannot"):
            await commission(made, "a cat", steps=trained + 1)

    within(base, work)
