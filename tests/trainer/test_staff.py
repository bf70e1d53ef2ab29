"""Several Trainers on one database: together they start as many workers as the runs need."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, cast

import pytest

from perfuse.client.registry import RegistryClient
from perfuse_trainer.foreman import Foreman
from perfuse_trainer.runners.runner import new_worker_id
from perfuse_trainer.runs import staff
from perfuse_trainer.runs.publisher import Publisher
from perfuse_trainer.runs.staff import Staff
from perfuse_trainer.tables import STAFF
from trainer.workshop import Workshop

FOREVER = timedelta(hours=1)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine, nobody seems silent who is not."""
    monkeypatch.setattr(staff, "LONGEST_SILENCE", FOREVER)


class Bench:
    """A runner whose workers do nothing but be there."""

    def __init__(self) -> None:
        self.workers: dict[str, str] = {}

    def start(self, base_model_id: str) -> str:
        worker_id = new_worker_id()
        self.workers[worker_id] = base_model_id
        return worker_id

    def alive(self) -> dict[str, str]:
        return dict(self.workers)

    def close(self, grace_seconds: float) -> None:
        self.workers.clear()


class Place:
    """One of several Trainers: its foreman and what that has started."""

    def __init__(
        self,
        shop: Workshop,
        *,
        workers: int = 3,
        pack: int = 2,
        silence: timedelta = FOREVER,
    ) -> None:
        self.runner = Bench()
        self.staff = Staff(shop.database, silence)
        vault = shop.trainer.vault
        # Nothing is finished here, so that no Registry is asked.
        publisher = Publisher(shop.database, vault, cast(RegistryClient, None), "")
        self.foreman = Foreman(
            shop.queue, self.runner, publisher, vault, lambda: None, self.staff,
            workers=workers, pack=pack, base_models=frozenset({"tiny", "other"}),
        )  # fmt: skip

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            asyncio.run(self.foreman.turn())

    @property
    def count(self) -> int:
        return len(self.runner.workers)


def test_all_at_once_start_no_more_than_the_runs_need(shop: Workshop) -> None:
    places = [Place(shop) for _ in range(4)]
    images = shop.image_set(keep=True)
    for queued, base in ((5, "tiny"), (2, "other")):
        for _ in range(queued):
            shop.run(images=images, base_model_id=base)
    with ThreadPoolExecutor(len(places)) as pool:
        list(pool.map(lambda place: place.turn(3), places))
    started = sorted(base for place in places for base in place.runner.workers.values())
    # Two runs a worker.
    assert started == ["other", "tiny", "tiny", "tiny"]
    assert all(place.count <= 3 for place in places)
    # One run more: one of them, and one alone, has a worker more.
    for _ in range(2):
        shop.run(images=images, base_model_id="tiny")
    with ThreadPoolExecutor(len(places)) as pool:
        list(pool.map(lambda place: place.turn(3), places))
    assert sum(place.count for place in places) == 5


def test_a_trainer_without_room_leaves_it_to_the_others(shop: Workshop) -> None:
    full, free = Place(shop, workers=1), Place(shop)
    images = shop.image_set(keep=True)
    for _ in range(6):
        shop.run(images=images)
    full.turn(2)
    free.turn(2)
    assert (full.count, free.count) == (1, 2)


def test_whoever_lost_a_worker_lets_the_others_go_first(shop: Workshop) -> None:
    """Where workers die for want of something, another place may have it."""
    one, other = Place(shop), Place(shop)
    shop.run()
    one.turn()
    assert (one.count, other.count) == (1, 0)
    one.runner.workers.clear()
    one.turn()
    assert one.count == 0
    other.turn()
    one.turn()
    assert (one.count, other.count) == (0, 1)


def test_what_a_silent_trainer_had_is_started_elsewhere(shop: Workshop) -> None:
    dead, alive = Place(shop), Place(shop)
    shop.run()
    dead.turn()
    alive.turn()
    assert alive.count == 0
    later = Place(shop, silence=timedelta(0))
    later.turn()
    assert later.count == 1
    assert [row.workers for row in rows(shop)] == [1], "and nothing is left of the silent one"


def test_one_that_ends_says_so(shop: Workshop) -> None:
    ending, other = Place(shop), Place(shop)
    shop.run()
    ending.turn()
    asyncio.run(ending.foreman.stop(0.0))
    assert rows(shop) == []
    other.turn()
    assert other.count == 1


def rows(shop: Workshop) -> list[Any]:
    return shop.database.read(lambda connection: list(connection.execute(STAFF.select()).all()))
