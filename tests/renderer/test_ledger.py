"""The ledger: parts that add up to the engine's whole, whoever shares its batches."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from perfuse.attach import BaseModel, ConditioningPlan
from perfuse.errors import ResourceExhausted
from perfuse_renderer import measures as names
from perfuse_renderer.engine.render import Ended, Failed, Finished, Queued, Stepped
from perfuse_renderer.ledger import Ledger
from perfuse_renderer.measures import Measures
from perfuse_renderer.planning import Asker, Planner
from perfuse_renderer.pool import STALE_SECONDS, AdapterPool
from perfuse_renderer.studio import RenderOrder, Studio

from . import stages
from .shelf import TOKEN, TOM, Shelf
from .test_engine import picture

ACME = Asker("acme", TOKEN)


class Pages:
    """A book that keeps all it is told."""

    def __init__(self) -> None:
        self.shares: list[float] = []
        self.lanes = 0
        self.seconds = 0.0
        self.waits: list[float] = []
        self.ends: Counter[str] = Counter()

    def stepped(self, share: float, lanes: int, seconds: float) -> None:
        self.shares.append(share)
        self.lanes += lanes
        self.seconds += seconds

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)

    def ended(self, outcome: str, pictures: int) -> None:
        self.ends[outcome] += pictures


def test_the_queue_is_what_is_left_at_the_pace_last_seen(
    plans: list[ConditioningPlan], nothing: ConditioningPlan
) -> None:
    """By hand: each figure follows from the events alone."""
    moment, pages = 100.0, Pages()
    ledger = Ledger(pages, lambda: moment)
    pictures = [picture(plans[0], nothing, seed, steps=4) for seed in range(2)]
    (lanes,) = {each.lanes for each in pictures}
    entry = ledger.open(pictures)
    assert (ledger.age, ledger.step_seconds, entry.lane_steps) == (0.0, 0.0, 2 * 4 * lanes)
    moment = 103.0
    assert ledger.age == 3.0
    entry.hear(Queued(0, 0.0))
    assert ledger.age == 3.0
    entry.hear(Stepped(0, 1, 4, 0.25 * lanes, 0.5))
    assert (ledger.age, pages.waits) == (0.0, [3.0])
    assert ledger.step_seconds == pytest.approx(7 * lanes * 0.25)
    for step in (2, 3, 4):
        entry.hear(Stepped(0, step, 4, 0.25 * lanes, 1.0))
    entry.hear(Finished(0, None))  # type: ignore[arg-type]
    assert ledger.step_seconds == pytest.approx(4 * lanes * 0.25)
    entry.close()
    assert (ledger.age, ledger.step_seconds) == (0.0, 0.0)
    assert pages.ends == {"finished": 1, "given_up": 1}
    assert (pages.lanes, pages.waits) == (4 * lanes, [3.0])
    assert sum(pages.shares) == 3.5


def test_a_render_that_is_not_taken_in_is_refused(
    plans: list[ConditioningPlan], nothing: ConditioningPlan
) -> None:
    pages = Pages()
    Ledger(pages).open([picture(plans[0], nothing, 1)] * 3).close()
    assert pages.ends == {"refused": 3}
    failed = Ledger(pages).open([picture(plans[0], nothing, 1)])
    failed.hear(Failed(0, ResourceExhausted("canary")))
    failed.hear(Ended())
    failed.close()
    assert pages.ends == {"refused": 3, "failed": 1}


@pytest.fixture
def measures() -> Measures:
    return Measures()


def value(measures: Measures, name: str, **labels: str) -> float:
    found = measures.registry.get_sample_value(name, labels)
    assert found is not None, f"{name} {labels}"
    return found


def test_what_front_doors_count_adds_up_to_what_the_engine_did(
    base: BaseModel, tmp_path: Path, measures: Measures
) -> None:
    """Two front doors on one engine, their rows in the same batches."""
    shelf = Shelf(base)
    pool = AdapterPool(shelf)

    async def render(studio: Studio, order: RenderOrder) -> list[Any]:
        work = await studio.commission(ACME, order)
        events = studio.render("acme", work, deadline=None)
        async with aclosing(events) as heard:  # type: ignore[type-var]
            return [event async for event in heard]

    async def work(stage: stages.Stage) -> None:
        book = measures.book("tiny")
        studios = [
            Studio(
                "baseModels/tiny",
                base,
                Planner(base, pool, on_made=book.planned),
                stage.backend,
                ledger=Ledger(book),
            )
            for _ in range(2)
        ]
        measures.tell({"baseModels/tiny": studios[0]}, pool, 8)
        order = RenderOrder("a <tom>", seeds=(1, 2), width=24, height=24, steps=5, guidance=3.0)
        both = await asyncio.gather(*(render(studio, order) for studio in studios))
        assert all(isinstance(events[-1], Ended) for events in both)
        # The same again, from what is kept.
        await render(studios[0], order)
        whole = value(measures, names.STEPS, base_model="tiny")
        assert whole == pytest.approx(await stage.steps())
        # A caller that leaves: what it did not hear of is not its own.
        stopped = studios[1].render("acme", await studios[1].commission(ACME, order), deadline=None)
        async with aclosing(stopped) as heard:  # type: ignore[type-var]
            async for event in heard:
                if isinstance(event, Stepped):
                    break
        await stage.idle()

    with stages.local(base, tmp_path) as stage:
        asyncio.run(work(stage))
        taken = asyncio.run(stage.steps())
    counted = value(measures, names.STEPS, base_model="tiny")
    assert counted <= taken
    assert value(measures, names.LANE_STEPS, base_model="tiny") >= 6 * 5 * 2
    assert value(measures, names.DEVICE_SECONDS, base_model="tiny") > 0
    ends = {
        outcome: value(measures, names.PICTURES, base_model="tiny", outcome=outcome)
        for outcome in ("finished", "failed", "given_up", "refused")
    }
    assert ends == {"finished": 6, "failed": 0, "given_up": 2, "refused": 0}
    assert value(measures, f"{names.WAIT_SECONDS}_count", base_model="tiny") == 4
    # Each studio planned once; the first one's second prompt was kept.
    assert value(measures, f"{names.PLAN_SECONDS}_count", base_model="tiny") == 2
    assert value(measures, names.CACHE_LOOKUPS, cache="plans", outcome="hit") == 1
    assert value(measures, names.CACHE_LOOKUPS, cache="plans", outcome="miss") == 1
    lookups = (
        value(measures, names.CACHE_LOOKUPS, cache="adapters", outcome=outcome)
        for outcome in ("hit", "miss")
    )
    assert sum(lookups) == 4
    assert value(measures, names.CACHE_ENTRIES, cache="adapters") == 1
    assert value(measures, names.CACHE_BYTES, cache="adapters") == len(shelf.files[3])
    assert value(measures, names.QUEUE_SECONDS, base_model="tiny") == 0
    told = generate_latest(measures.registry).decode()
    for word in ("acme", "tom", TOKEN, shelf.digests[0]):
        assert word not in told


def test_names_used_as_last_known_are_counted(base: BaseModel) -> None:
    async def work() -> int:
        moment = 0.0
        shelf = Shelf(base)
        pool = AdapterPool(shelf, clock=lambda: moment)
        await pool.get("acme", TOM.version("prod"), TOKEN)
        shelf.away, moment = True, STALE_SECONDS / 2
        for _ in range(3):
            await pool.get("acme", TOM.version("prod"), TOKEN)
        return pool.stale

    assert asyncio.run(work()) == 3
