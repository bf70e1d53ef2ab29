"""A row in any batch equals the row alone; it comes, waits, leaves and fails alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from perfuse.attach import (
    BaseModel,
    Conditioning,
    ConditioningPlan,
    attach,
    concatenate,
    denoise,
    generate,
)
from perfuse.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFinite,
    PerfuseError,
    ResourceExhausted,
    Unavailable,
)
from perfuse_renderer.engine.engine import Engine
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.engine.render import Place
from perfuse_renderer.engine.row import Picture, Row
from perfuse_renderer.engine.schedulers import KINDS, make_scheduler, scheduler_name
from perfuse_renderer.engine.stepper import Stepper

from .listening import render


class Watched:
    """The denoiser, with a record of its batches and faults on request."""

    def __init__(self) -> None:
        self.lanes: list[int] = []
        self.most_lanes: int | None = None
        self.seconds = 0.0
        self.spoil: Any = None

    def __call__(
        self, base: BaseModel, latents: torch.Tensor, timesteps: torch.Tensor, given: Conditioning
    ) -> torch.Tensor:
        if self.most_lanes is not None and latents.shape[0] > self.most_lanes:
            raise torch.OutOfMemoryError(f"{latents.shape[0]} lanes do not fit")
        self.lanes.append(latents.shape[0])
        if self.seconds:
            time.sleep(self.seconds)
        prediction = denoise(base, latents, timesteps, given)
        return self.spoil(prediction) if self.spoil else prediction


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def engine(base: BaseModel, watched: Watched) -> Iterator[Engine]:
    engine = Engine(base, EngineSettings(max_lanes=8), watched)
    yield engine
    engine.drain(0.0)


def picture(
    plan: ConditioningPlan, nothing: ConditioningPlan, seed: int = 1, **settings: Any
) -> Picture:
    given: dict[str, Any] = {
        "steps": 4,
        "guidance": 3.0,
        "scheduler": "ddim",
        "height": 16,
        "width": 16,
    }
    return Picture(plan, nothing, seed, **(given | settings))


def alone(base: BaseModel, wanted: Picture) -> torch.Tensor:
    """The oracle: latents of the picture made by itself."""
    row = Row(base, wanted)
    with torch.no_grad(), attach(base.unet):
        while not row.done:
            latents, timesteps = row.model_input()
            row.advance(denoise(base, latents, timesteps, concatenate(row.conditioning)))
    return row.latents


@pytest.mark.parametrize("scheduler", ["", *KINDS])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_row_alone_is_diffusers_picture_bit_for_bit(
    base: BaseModel,
    plans: list[ConditioningPlan],
    nothing: ConditioningPlan,
    engine: Engine,
    scheduler: str,
    guidance: float,
) -> None:
    asked = picture(plans[2], nothing, 7, scheduler=scheduler, guidance=guidance, steps=5)
    job, listener = render("acme", [asked])
    engine.submit(job)
    (pixels,) = listener.wait().pictures.values()
    stock = generate(
        base,
        [plans[2]],
        seeds=[7],
        negative=nothing,
        steps=5,
        guidance=guidance,
        height=16,
        width=16,
        scheduler=make_scheduler(base, scheduler),
        output="pt",
    )[0]
    assert torch.equal(pixels, (stock.float() * 255).round().to(torch.uint8))


def test_rows_of_a_mixed_batch_equal_rows_alone(
    base: BaseModel, plans: list[ConditioningPlan], nothing: ConditioningPlan
) -> None:
    """Concepts, steps, schedulers, guidance, negatives and seeds differ; timesteps do too."""
    wanted = [
        picture(plans[0], nothing, 1, steps=3),
        picture(plans[1], plans[4], 2, steps=6, scheduler="euler"),
        picture(plans[2], nothing, 3, steps=4, guidance=1.0, scheduler="dpm++2m"),
        picture(plans[3], nothing, 4, steps=5, guidance=9.0, scheduler="euler-ancestral"),
        picture(plans[1], nothing, 1, steps=3, scheduler="unipc"),
    ]
    with_engine = latents_by_engine(base, wanted)
    for asked, found in zip(wanted, with_engine, strict=True):
        expected = alone(base, asked)
        assert float((found - expected).abs().max()) <= 1e-12 * float(expected.abs().max())


def latents_by_engine(base: BaseModel, wanted: list[Picture]) -> list[torch.Tensor]:
    """The latents that the stepper leaves when all rows start together."""
    listeners = [render(f"t{index % 2}", [asked]) for index, asked in enumerate(wanted)]
    places = [
        Place(job, 0, Row(base, asked)) for (job, _), asked in zip(listeners, wanted, strict=True)
    ]
    stepper = Stepper(base, denoise, 64)
    with attach(base.unet):
        while going := [place for place in places if place.row and not place.row.done]:
            assert not stepper.step(going).failed
    return [place.row.latents for place in places if place.row]


def test_many_rows_share_a_step(
    base: BaseModel,
    plans: list[ConditioningPlan],
    nothing: ConditioningPlan,
    engine: Engine,
    watched: Watched,
) -> None:
    jobs = [render(f"t{n}", [picture(plans[n], nothing, n)]) for n in range(4)]
    watched.seconds = 0.05
    for job, _ in jobs:
        engine.submit(job)
    for _, listener in jobs:
        assert len(listener.wait().pictures) == 1
        assert [event.step for event in listener.steps] == [1, 2, 3, 4]
    assert max(watched.lanes) == 8
    assert len(watched.lanes) <= 6


def test_a_fifth_row_waits_and_sizes_do_not_mix(
    base: BaseModel,
    plans: list[ConditioningPlan],
    nothing: ConditioningPlan,
    engine: Engine,
    watched: Watched,
) -> None:
    jobs = [
        render("acme", [picture(plans[1], nothing, n, height=16 + 8 * (n % 2))]) for n in range(6)
    ]
    for job, _ in jobs:
        engine.submit(job)
    for job, listener in jobs:
        (pixels,) = listener.wait().pictures.values()
        assert pixels.shape == (3, job.pictures[0].height, 16)
    assert max(watched.lanes) <= 8


def test_a_cancelled_render_stops_within_a_step(
    base: BaseModel,
    plans: list[ConditioningPlan],
    nothing: ConditioningPlan,
    engine: Engine,
    watched: Watched,
) -> None:
    watched.seconds = 0.01
    for attempt in range(30):
        job, listener = render("acme", [picture(plans[1], nothing, attempt, steps=50)])
        other, other_listener = render("other", [picture(plans[2], nothing, attempt, steps=2)])
        engine.submit(job)
        engine.submit(other)
        listener.wait_for(lambda heard, least=1 + attempt % 3: len(heard.steps) >= least)
        steps_before = len(listener.steps)
        job.cancel()
        engine.wake()
        assert isinstance(listener.wait(5).error, FailedPrecondition)
        assert len(listener.steps) <= steps_before + 1
        assert len(other_listener.wait().pictures) == 1
    assert engine.running == engine.waiting == 0


def test_a_deadline_ends_a_render(
    plans: list[ConditioningPlan], nothing: ConditioningPlan, engine: Engine, watched: Watched
) -> None:
    watched.seconds = 0.02
    job, listener = render(
        "acme", [picture(plans[1], nothing, steps=150)], deadline=time.monotonic() + 0.3
    )
    engine.submit(job)
    assert isinstance(listener.wait(5).error, DeadlineExceeded)
    assert listener.moments[-1] - listener.moments[0] < 1.0


def test_a_deadline_that_cannot_be_met_is_refused_at_once(
    plans: list[ConditioningPlan], nothing: ConditioningPlan, engine: Engine, watched: Watched
) -> None:
    watched.seconds = 0.02
    job, listener = render("acme", [picture(plans[1], nothing)])
    engine.submit(job)
    listener.wait()
    late, _ = render(
        "acme", [picture(plans[1], nothing, steps=100)], deadline=time.monotonic() + 0.5
    )
    with pytest.raises(ResourceExhausted, match="would be done in") as refusal:
        engine.submit(late)
    assert refusal.value.retry_after is not None
    assert refusal.value.retry_after > 0.5
    soon, heard = render("acme", [picture(plans[1], nothing)], deadline=time.monotonic() + 5)
    engine.submit(soon)
    assert heard.wait().error is None


def test_a_full_queue_refuses(
    base: BaseModel, plans: list[ConditioningPlan], nothing: ConditioningPlan, watched: Watched
) -> None:
    watched.seconds = 0.05
    engine = Engine(
        base, EngineSettings(max_lanes=2, max_waiting=4, max_waiting_of_tenant=3), watched
    )
    jobs = [render("acme", [picture(plans[1], nothing, n)]) for n in range(3)]
    for job, _ in jobs:
        engine.submit(job)
    with pytest.raises(ResourceExhausted, match="3 pictures of this tenant"):
        engine.submit(render("acme", [picture(plans[1], nothing)])[0])
    engine.submit(render("other", [picture(plans[1], nothing)])[0])
    with pytest.raises(ResourceExhausted, match="4 in all"):
        engine.submit(render("third", [picture(plans[1], nothing)])[0])
    engine.drain(10)
    assert all(len(listener.pictures) == 1 for _, listener in jobs)


def test_a_batch_that_does_not_fit_is_split(
    base: BaseModel,
    plans: list[ConditioningPlan],
    nothing: ConditioningPlan,
    engine: Engine,
    watched: Watched,
) -> None:
    watched.most_lanes = 3
    wanted = [picture(plans[n], nothing, n) for n in range(4)]
    job, listener = render("acme", wanted)
    engine.submit(job)
    found = listener.wait().pictures
    assert set(found) == {0, 1, 2, 3}
    assert max(watched.lanes) <= 3
    watched.most_lanes = None
    again, heard = render("acme", [wanted[0]])
    engine.submit(again)
    assert torch.equal(heard.wait().pictures[0], found[0])
    watched.most_lanes = 1
    hopeless, heard = render("acme", [wanted[0]])
    engine.submit(hopeless)
    assert isinstance(heard.wait().failures[0], ResourceExhausted)


def test_a_row_that_is_not_finite_fails_alone(
    base: BaseModel,
    plans: list[ConditioningPlan],
    nothing: ConditioningPlan,
    engine: Engine,
    watched: Watched,
) -> None:
    def spoil(prediction: torch.Tensor) -> torch.Tensor:
        spoilt = prediction.clone()
        spoilt[:1] = float("nan")
        return spoilt

    wanted = [picture(plans[n], nothing, n) for n in range(2)]
    watched.seconds = 0.02
    watched.spoil = spoil
    job, listener = render("acme", wanted)
    engine.submit(job)
    listener.wait()
    assert isinstance(listener.failures[0], NotFinite)
    watched.spoil = None
    clean, heard = render("acme", [wanted[1]])
    engine.submit(clean)
    assert torch.equal(heard.wait().pictures[0], listener.pictures[1])


def test_a_fault_of_ours_fails_only_whom_it_hits(
    plans: list[ConditioningPlan], nothing: ConditioningPlan, engine: Engine, watched: Watched
) -> None:
    def spoil(prediction: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("secret of the driver")

    watched.spoil = spoil
    job, listener = render("acme", [picture(plans[0], nothing), picture(plans[1], nothing)])
    engine.submit(job)
    failures = listener.wait().failures
    assert set(failures) == {0, 1}
    assert all(
        type(error) is PerfuseError and "secret" not in str(error) for error in failures.values()
    )
    watched.spoil = None
    job, listener = render("acme", [picture(plans[0], nothing)])
    engine.submit(job)
    assert len(listener.wait().pictures) == 1


def test_previews_come_while_it_steps(
    plans: list[ConditioningPlan], nothing: ConditioningPlan, engine: Engine, watched: Watched
) -> None:
    watched.seconds = 0.02
    job, listener = render("acme", [picture(plans[1], nothing, steps=6)], preview_every=2)
    engine.submit(job)
    assert [event.step for event in listener.wait().previews] == [2, 4]
    assert listener.previews[0].pixels.shape == (3, 16, 16)


def test_a_tenant_that_comes_late_does_not_wait_for_a_flood(
    plans: list[ConditioningPlan], nothing: ConditioningPlan, engine: Engine, watched: Watched
) -> None:
    """With a batch full of another tenant's long pictures, a short one steps at once."""
    watched.seconds = 0.01
    flood, flooded = render("flood", [picture(plans[1], nothing, n, steps=60) for n in range(16)])
    engine.submit(flood)
    flooded.wait_for(lambda heard: len(heard.steps) > 8)
    began = engine.steps_taken
    light, listener = render("light", [picture(plans[2], nothing, steps=5)])
    engine.submit(light)
    listener.wait()
    assert engine.steps_taken - began <= 10
    flood.cancel()
    engine.wake()
    flooded.wait()


def test_two_tenants_get_the_same(
    plans: list[ConditioningPlan], nothing: ConditioningPlan, base: BaseModel, watched: Watched
) -> None:
    watched.seconds = 0.003
    engine = Engine(base, EngineSettings(max_lanes=2), watched)
    many, heard_many = render("many", [picture(plans[1], nothing, n, steps=20) for n in range(8)])
    few, heard_few = render("few", [picture(plans[2], nothing, n, steps=20) for n in range(2)])
    engine.submit(many)
    engine.submit(few)
    heard_few.wait()
    assert abs(len(heard_few.steps) - len(heard_many.steps)) <= 12
    engine.drain(0)


def test_draining_finishes_what_is_here_and_refuses_the_rest(
    plans: list[ConditioningPlan], nothing: ConditioningPlan, base: BaseModel, watched: Watched
) -> None:
    watched.seconds = 0.02
    engine = Engine(base, EngineSettings(max_lanes=4), watched)
    job, listener = render("acme", [picture(plans[1], nothing)])
    long, long_listener = render("acme", [picture(plans[1], nothing, steps=190)])
    engine.submit(job)
    engine.submit(long)
    # Enough for a few steps on a machine that is busy with other tests, and not for 190.
    engine.drain(1.5)
    assert listener.wait().error is None
    assert isinstance(long_listener.wait().error, Unavailable)
    with pytest.raises(Unavailable):
        engine.submit(render("acme", [picture(plans[1], nothing)])[0])


def test_padding_changes_nothing(
    base: BaseModel, plans: list[ConditioningPlan], nothing: ConditioningPlan, watched: Watched
) -> None:
    wanted = [picture(plans[n], nothing, n, guidance=1.0) for n in range(3)]
    found = []
    for pad in (False, True):
        engine = Engine(base, EngineSettings(max_lanes=8, pad=pad), watched)
        watched.seconds = 0.02
        job, listener = render("acme", wanted)
        engine.submit(job)
        found.append(listener.wait().pictures)
        engine.drain(0)
    assert 4 in watched.lanes
    assert 3 in watched.lanes
    for index in range(3):
        assert torch.equal(found[0][index], found[1][index])


def test_warming_up_steps_every_batch_and_learns_the_pace(
    plans: list[ConditioningPlan], nothing: ConditioningPlan, engine: Engine, watched: Watched
) -> None:
    engine.warm_up([(16, 16), (24, 16)])
    assert sorted(watched.lanes) == sorted([1, 2, 4, 8] * 6)
    assert set(engine.pace.table()) == {
        (size, lanes) for size in ((16, 16), (24, 16)) for lanes in (1, 2, 4, 8)
    }
    late, _ = render("acme", [picture(plans[1], nothing)], deadline=time.monotonic())
    with pytest.raises(ResourceExhausted, match="would be done in"):
        engine.submit(late)
    watched.lanes.clear()
    engine.warm_up(lanes=[2])
    assert watched.lanes == [2, 2, 2]


def test_warming_up_finds_out_what_fits(
    plans: list[ConditioningPlan], nothing: ConditioningPlan, engine: Engine, watched: Watched
) -> None:
    watched.most_lanes = 0
    with pytest.raises(FailedPrecondition, match="16 × 16 does not fit"):
        engine.warm_up()
    watched.most_lanes = 5
    engine.warm_up()
    watched.most_lanes = None
    watched.lanes.clear()
    job, listener = render("acme", [picture(plans[1], nothing, n) for n in range(6)])
    engine.submit(job)
    assert len(listener.wait().pictures) == 6
    assert max(watched.lanes) == 4


def test_schedulers_have_names(base: BaseModel) -> None:
    assert scheduler_name(base, "euler") == "euler"
    assert scheduler_name(base, "") in KINDS
    with pytest.raises(InvalidArgument, match="choose one of ddim"):
        scheduler_name(base, "best")
    for name in KINDS:
        made = make_scheduler(base, name)
        assert made.config.prediction_type == base.pipeline.scheduler.config.prediction_type
        assert made is not make_scheduler(base, name)


def test_pictures_do_not_change_with_their_neighbours(
    base: BaseModel,
    plans: list[ConditioningPlan],
    nothing: ConditioningPlan,
    engine: Engine,
    watched: Watched,
) -> None:
    """Random joins, leaves and cancels: what comes out is what comes out alone."""
    lot = torch.Generator().manual_seed(11)

    def draw(most: int) -> int:
        return int(torch.randint(most, (1,), generator=lot))

    names = list(KINDS)
    watched.seconds = 0.002
    jobs = []
    for n in range(40):
        asked = picture(
            plans[draw(len(plans))],
            plans[draw(2)] if draw(2) else nothing,
            n,
            steps=2 + draw(6),
            guidance=1.0 + draw(4),
            scheduler=names[draw(len(names))],
            height=16 + 8 * draw(2),
        )
        job, listener = render(f"t{draw(4)}", [asked])
        engine.submit(job)
        jobs.append((job, listener))
        if draw(4) == 0:
            time.sleep(0.004 * draw(5))
            jobs[draw(len(jobs))][0].cancel()
            engine.wake()
    for _, listener in jobs:
        listener.wait()
    quiet = Watched()
    judge = Engine(base, EngineSettings(max_lanes=1), quiet)
    finished = [(job, heard) for job, heard in jobs if heard.pictures]
    assert len(finished) >= 20
    for job, heard in finished:
        again, oracle = render("judge", [replace(job.pictures[0])])
        judge.submit(again)
        assert torch.equal(oracle.wait().pictures[0], heard.pictures[0])
    judge.drain(0)
    assert engine.running == engine.waiting == 0
