"""Replicas behind Ray Serve: lost, cancelled, refused and drained, the pictures stay the same."""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from perfuse.attach import BaseModel, ConditioningPlan, plan
from perfuse.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    PerfuseError,
    ResourceExhausted,
    Unavailable,
)
from perfuse_renderer import journey
from perfuse_renderer.engine.render import Ended, Event, Failed, Finished, Queued, Stepped
from perfuse_renderer.engine.row import Picture
from perfuse_renderer.plan_store import PlanStore
from perfuse_renderer.residence import forget_steps, load_base
from perfuse_renderer.serve_backend import ServeBackend
from perfuse_renderer.settings import RendererSettings
from perfuse_renderer.traffic import Parcel, Sketch, plan_bytes, plan_in

from .stages import SECONDS, Fleet, Stage
from .test_engine import picture


def events_of(backend: Any, pictures: list[Picture], **given: Any) -> AsyncIterator[Event]:
    settings: dict[str, Any] = {"deadline": None, "preview_every": 0} | given
    events: AsyncIterator[Event] = backend.render("acme", pictures, **settings)
    return events


async def rendered(backend: Any, pictures: list[Picture], **given: Any) -> list[Event]:
    async with asyncio.timeout(SECONDS):
        return [event async for event in events_of(backend, pictures, **given)]


def finished(events: list[Event]) -> dict[int, torch.Tensor]:
    """Pictures by index; each came once."""
    found = [event for event in events if isinstance(event, Finished)]
    assert len(found) == len({event.index for event in found})
    return {event.index: event.pixels for event in found}


async def kill_the_busy(fleet: Fleet) -> int:
    """End the replica that renders, as a machine's memory or its power would."""
    async with asyncio.timeout(SECONDS):
        while True:
            for condition in await fleet.conditions():
                if condition.running:
                    os.kill(condition.process, signal.SIGKILL)
                    return condition.process


# A lost replica. This comes first: while it starts again, the other tests go on.


def test_what_a_lost_replica_had_not_finished_is_rendered_by_another(
    fleet: Fleet, plans: list[ConditioningPlan], nothing: ConditioningPlan
) -> None:
    """Pictures of different lengths: some are delivered when the replica is killed."""

    async def work(stage: Stage) -> None:
        await fleet.complete()
        before = await stage.steps()
        asked = [
            picture(plans[index % 4], nothing, index, steps=steps, width=24)
            for index, steps in enumerate((3, 60, 3, 61))
        ]
        heard = await rendered(stage.backend, asked, preview_every=7)
        undisturbed = finished(heard)
        # The rows' shares travel with them, and add up to whole steps.
        shares = sum(event.share for event in heard if isinstance(event, Stepped))
        assert shares == pytest.approx(await stage.steps() - before)
        stage.slow(0.03)
        events: list[Event] = []
        async for event in events_of(stage.backend, asked, preview_every=7):
            events.append(event)
            if len(finished(events)) == 2 and isinstance(event, Finished):
                assert stage.backend.running == 2
                await kill_the_busy(fleet)
                stage.slow(0.0)
        pictures = finished(events)
        assert pictures.keys() == {0, 1, 2, 3}
        for index, pixels in pictures.items():
            assert torch.equal(pixels, undisturbed[index])
        steps = [(event.index, event.step) for event in events if isinstance(event, Stepped)]
        assert steps.count((1, 1)) == steps.count((3, 1)) == 2
        assert steps.count((0, 1)) == steps.count((2, 1)) == 1
        assert sum(isinstance(event, Ended) for event in events) == 1
        assert stage.backend.running == stage.backend.waiting == 0
        assert stage.backend.replica_losses == 1

    asyncio.run(work(fleet.stage()))


# What travels.


def test_a_sketch_is_a_picture_but_for_its_plans(
    plans: list[ConditioningPlan], nothing: ConditioningPlan
) -> None:
    assert [field.name for field in fields(Sketch)] == [field.name for field in fields(Picture)]
    asked = picture(plans[1], nothing, 7, guidance=2.5, scheduler="euler", width=24)
    again = Sketch.of(asked).picture({p.digest: p for p in (plans[1], nothing)})
    for field in fields(Picture):
        assert getattr(again, field.name) == getattr(asked, field.name)


def test_a_plan_travels_whole_and_without_its_neighbours(plans: list[ConditioningPlan]) -> None:
    sent = pickle.loads(pickle.dumps(plan_in(plans[3], torch.float16, "cpu")))
    for field in fields(ConditioningPlan):
        if field.name not in ("keys", "values", "encodings", "pooled", "similarity", "gate"):
            assert getattr(sent, field.name) == getattr(plans[3], field.name)
    for before, after in zip(plans[3].keys + plans[3].values, sent.keys + sent.values, strict=True):
        assert torch.equal(before.half(), after)
        assert after.untyped_storage().nbytes() == after.numel() * 2
    assert plan_bytes(sent) * 4 == plan_bytes(plans[3])


def test_the_front_door_plans_without_the_weights_of_steps(base: BaseModel) -> None:
    thin = load_base(base.directory, "cpu", "float64", fingerprint=base.fingerprint)
    whole = sum(p.numel() for p in thin.unet.parameters())
    forget_steps(thin)
    left = sum(p.numel() for p in thin.unet.parameters() if p.device.type != "meta")
    assert 0 < left < whole / 4
    for one, other in zip(plan(base, "a cat").keys, plan(thin, "a cat").keys, strict=True):
        assert torch.equal(one, other)


def test_plans_are_sent_once_to_each_replica(
    fleet: Fleet, plans: list[ConditioningPlan], nothing: ConditioningPlan
) -> None:
    async def work(stage: Stage) -> None:
        before = sum(each.plans_fetched for each in await fleet.conditions())
        for seed in range(12):
            await rendered(stage.backend, [picture(plans[4], nothing, seed, steps=1)])
        after = sum(each.plans_fetched for each in await fleet.conditions())
        assert after - before <= 4

    asyncio.run(work(fleet.stage()))


def test_what_goes_with_each_render_is_small(
    fleet: Fleet, plans: list[ConditioningPlan], nothing: ConditioningPlan
) -> None:
    async def work() -> None:
        store = PlanStore(torch.float16, 1 << 30)
        references = await store.references([plans[1], nothing])
        asked = picture(plans[1], nothing, 1)
        parcel = Parcel("acme", (Sketch.of(asked),) * 4, references, 3.0, 0, "a" * 32, 1, 20.0)
        assert len(ray.cloudpickle.dumps(parcel)) < 4096
        assert await store.references([plans[1]]) == {plans[1].digest: references[plans[1].digest]}

    asyncio.run(work())


def test_the_store_lets_go_what_was_longest_unused(
    fleet: Fleet, plans: list[ConditioningPlan]
) -> None:
    async def work() -> None:
        store = PlanStore(torch.float64, 2 * plan_bytes(plans[0]))
        first = await store.references(plans[:2])
        assert await store.references(plans[:1]) == {plans[0].digest: first[plans[0].digest]}
        await store.references(plans[2:3])
        assert await store.references(plans[:1]) == {plans[0].digest: first[plans[0].digest]}
        anew = await store.references(plans[1:2])
        assert anew[plans[1].digest] != first[plans[1].digest]

    asyncio.run(work())


@ray.remote(num_cpus=0)
class Keeper:
    """Owns what it gives, so that it is lost with it."""

    def give(self) -> list[Any]:
        return [nothing_comes.options(resources={"nowhere": 1}).remote()]  # type: ignore[attr-defined]


@ray.remote
def nothing_comes() -> None:
    """Waits for ever for a machine that it could run on."""


def test_a_plan_that_was_lost_on_its_way_is_sent_again(
    fleet: Fleet, base: BaseModel, nothing: ConditioningPlan
) -> None:
    async def work() -> None:
        new = plan(base, "a big red bear in the snow")
        keeper = Keeper.remote()  # type: ignore[attr-defined]
        (reference,) = await keeper.give.remote()
        ray.kill(keeper)
        store._kept[new.digest] = (reference, 1)
        events = await rendered(backend, [picture(new, nothing)])
        assert len(finished(events)) == 1
        assert events[-1] == Ended()

    store = PlanStore(torch.float64, 64 << 20)
    backend = ServeBackend(fleet.handle, store)
    asyncio.run(work())


# Endings.


def test_whenever_a_render_is_let_go_it_stops(
    fleet: Fleet, plans: list[ConditioningPlan], nothing: ConditioningPlan
) -> None:
    """Thirty of thirty, at moments that chance picks, from before it was sent."""

    async def work(stage: Stage) -> None:
        stage.slow(0.03)
        chance = random.Random(1)

        async def listen(seed: int) -> None:
            async with aclosing(
                events_of(stage.backend, [picture(plans[1], nothing, seed, steps=190)])
            ) as events:
                async for _ in events:
                    pass

        for attempt in range(30):
            listening = asyncio.create_task(listen(attempt))
            await asyncio.sleep(0.1 * chance.random() * (attempt % 5))
            listening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await listening
            before = await stage.steps()
            assert await stage.idle() - before <= 2
        assert stage.backend.running == stage.backend.waiting == 0

    asyncio.run(work(fleet.stage()))


def test_a_cancel_that_ray_loses_is_made_good(
    fleet: Fleet,
    plans: list[ConditioningPlan],
    nothing: ConditioningPlan,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work(stage: Stage) -> None:
        stage.slow(0.03)
        kept = asyncio.create_task(rendered(stage.backend, [picture(plans[1], nothing, steps=60)]))
        async with aclosing(
            events_of(stage.backend, [picture(plans[1], nothing, steps=190)])
        ) as events:
            async for event in events:
                if isinstance(event, Stepped):
                    break
        assert len(finished(await kept)) == 1
        before = await stage.steps()
        assert await stage.idle() - before < 10

    monkeypatch.setattr(journey, "cancel", lambda answers: None)
    asyncio.run(work(fleet.stage(beat=0.1)))


def test_errors_keep_their_kind_and_what_they_carry(
    fleet: Fleet, plans: list[ConditioningPlan], nothing: ConditioningPlan
) -> None:
    async def work(stage: Stage) -> None:
        (failed,) = [
            event
            for event in await rendered(
                stage.backend, [picture(plans[1], nothing, scheduler="best")]
            )
            if isinstance(event, Failed)
        ]
        assert isinstance(failed.error, InvalidArgument)
        assert failed.error.violations[0][0] == "scheduler"
        # Without its layers: a fault that nobody foresaw.
        broken = replace(plans[1], keys=plans[1].keys[:1], digest="sha256:broken")
        (unforeseen,) = [
            event
            for event in await rendered(stage.backend, [picture(broken, nothing)])
            if isinstance(event, Failed)
        ]
        assert type(unforeseen.error) is PerfuseError
        assert "Traceback" not in str(unforeseen.error)
        assert "Error" not in str(unforeseen.error)
        with pytest.raises(ResourceExhausted) as full:
            await rendered(stage.backend, [picture(plans[1], nothing)] * 33)
        assert full.value.retry_after
        await rendered(stage.backend, [picture(plans[1], nothing, steps=9)] * 4)
        with pytest.raises(ResourceExhausted, match="the deadline is in"):
            await rendered(
                stage.backend,
                [picture(plans[1], nothing, steps=900)] * 32,
                deadline=time.monotonic() + 0.2,
            )

    asyncio.run(work(fleet.stage()))


def test_a_deadline_is_kept_wherever_the_clock_is(
    fleet: Fleet, plans: list[ConditioningPlan], nothing: ConditioningPlan
) -> None:
    async def work(stage: Stage) -> None:
        stage.slow(0.05)
        began = time.monotonic()
        events = await rendered(
            stage.backend,
            [picture(plans[1], nothing, steps=190, width=48)],
            deadline=began + 0.6,
        )
        assert isinstance(events[0], Queued)
        end = events[-1]
        assert isinstance(end, Ended)
        assert isinstance(end.error, DeadlineExceeded)
        assert not await stage.busy()

    asyncio.run(work(fleet.stage()))


def test_draining_waits_for_what_is_there_and_takes_nothing_more(
    stage: Stage, plans: list[ConditioningPlan], nothing: ConditioningPlan
) -> None:
    async def work() -> None:
        stage.slow(0.02)
        taken = asyncio.create_task(rendered(stage.backend, [picture(plans[1], nothing, steps=9)]))
        while not stage.backend.running:
            await asyncio.sleep(0.005)
        draining = asyncio.create_task(stage.backend.drain(SECONDS))
        await asyncio.sleep(0.01)
        for refused in (
            rendered(stage.backend, [picture(plans[1], nothing)]),
            stage.backend.check(),
        ):
            with pytest.raises(Unavailable):
                await refused
        assert len(finished(await taken)) == 1
        await draining

    asyncio.run(work())


def test_what_outlasts_the_grace_is_given_up(
    stage: Stage, plans: list[ConditioningPlan], nothing: ConditioningPlan
) -> None:
    async def work() -> None:
        stage.slow(0.03)
        taken = asyncio.create_task(
            rendered(stage.backend, [picture(plans[1], nothing, steps=190)])
        )
        while not stage.backend.running:
            await asyncio.sleep(0.005)
        await stage.backend.drain(0.05)
        end = (await taken)[-1]
        assert isinstance(end, Ended)
        assert isinstance(end.error, Unavailable)
        before = await stage.steps()
        assert await stage.idle() - before <= 2

    asyncio.run(work())


# The cluster.


def test_the_same_application_is_shared_and_not_started_again(
    fleet: Fleet, plans: list[ConditioningPlan], nothing: ConditioningPlan
) -> None:
    async def work() -> None:
        before = {condition.process for condition in await fleet.complete()}
        handle = fleet.cluster.deploy("tiny", fleet.settings)
        backend = ServeBackend(handle, PlanStore(torch.float64, 64 << 20))
        assert len(finished(await rendered(backend, [picture(plans[1], nothing)]))) == 1
        assert {condition.process for condition in await fleet.complete()} == before

    asyncio.run(work())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"replicas_min": 3, "replicas_max": 2}, "raise it"),
        ({"device": "cuda:1"}, "set it to cpu or cuda"),
        ({"ray_address": "ray://head:10001"}, "nothing can be streamed"),
    ],
)
def test_settings_that_ray_cannot_have_are_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(FailedPrecondition, match=sentence):
        RendererSettings(backend="serve", **given)
    RendererSettings(**given)


def test_a_front_door_that_joins_shares_the_replicas_and_leaves_them(
    fleet: Fleet, tmp_path: Path
) -> None:
    """It is killed in the middle of a render, which nobody then cancels."""

    async def work(stage: Stage) -> None:
        stage.slow(0.03)
        before = {condition.process for condition in await fleet.complete()}
        file = tmp_path / "settings"
        file.write_bytes(ray.cloudpickle.dumps(fleet.settings))
        address = ray.get_runtime_context().gcs_address
        visitor = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("visitor.py")), address, str(file)],
            stdout=subprocess.PIPE,
        )
        try:
            assert visitor.stdout is not None
            assert await asyncio.to_thread(visitor.stdout.readline) == b"begun\n"
            assert await stage.busy()
            assert {condition.process for condition in await fleet.complete()} == before
        finally:
            visitor.kill()
            visitor.communicate()
        # The lease is two seconds, the render would take six.
        steps = await stage.steps()
        assert await stage.idle() - steps < 100
        assert {condition.process for condition in await fleet.complete()} == before

    asyncio.run(work(fleet.stage()))


# Two lost replicas. The last of this file, for it leaves nobody there for a moment.


def test_two_lost_replicas_are_too_many(
    fleet: Fleet, plans: list[ConditioningPlan], nothing: ConditioningPlan
) -> None:
    async def work(stage: Stage) -> None:
        await fleet.complete()
        stage.slow(0.03)
        killed = 0
        events: list[Event] = []
        async for event in events_of(stage.backend, [picture(plans[1], nothing, steps=190)]):
            events.append(event)
            if isinstance(event, Stepped) and event.step == 2:
                await kill_the_busy(fleet)
                killed += 1
        assert killed == 2
        (end,) = [event for event in events if isinstance(event, Ended)]
        assert isinstance(end.error, Unavailable)
        assert end.error.retry_after
        # Nobody is left for the moment, and health says so.
        with pytest.raises(Unavailable, match="no replica"):
            await stage.backend.check()
        impatient = fleet.stage(patience=0.5).backend
        with pytest.raises(Unavailable) as refused:
            await rendered(impatient, [picture(plans[1], nothing)])
        assert refused.value.retry_after
        with pytest.raises(DeadlineExceeded):
            await rendered(
                stage.backend, [picture(plans[1], nothing)], deadline=time.monotonic() - 1.9
            )
        await fleet.conditions()
        await stage.backend.check()

    asyncio.run(work(fleet.stage()))
