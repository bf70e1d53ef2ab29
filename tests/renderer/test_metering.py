"""What a tenant has had within the last minute, by a clock that the test holds."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from perfuse.errors import QuotaExceeded
from perfuse.quotas import Quotas
from perfuse_renderer.metering import IMAGES, MINUTE, STEP_SECONDS, Meter


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def meter(home: Path, clock: Clock, **limits: float) -> Meter:
    file = home / "quotas.toml"
    file.write_text("[tenants.acme]\n" + "".join(f"{q} = {x}\n" for q, x in limits.items()))
    return Meter(Quotas(file), clock)


def test_pictures_are_refused_until_the_minute_has_room(tmp_path: Path, clock: Clock) -> None:
    made = meter(tmp_path, clock, images_per_minute=10)
    made.take("acme", 6)
    clock.now += 20
    made.take("acme", 4)
    for wanted, due in ((1, 41.0), (6, 41.0), (7, 61.0)):
        with pytest.raises(QuotaExceeded) as caught:
            made.take("acme", wanted)
        assert caught.value.quota == IMAGES
        assert caught.value.retry_after == pytest.approx(due)
    # Another tenant has its own minute, and no limit.
    made.take("globex", 1000)
    # What the refusal said holds: not before, and then at once.
    clock.now += 40.9
    with pytest.raises(QuotaExceeded):
        made.take("acme", 6)
    clock.now += 0.2
    made.take("acme", 6)


def test_what_never_fits_is_told_so(tmp_path: Path, clock: Clock) -> None:
    made = meter(tmp_path, clock, images_per_minute=3)
    with pytest.raises(QuotaExceeded, match="4 pictures never fits") as caught:
        made.require("acme", 4)
    assert caught.value.retry_after is None
    made.take("acme", 3)


def test_step_seconds_are_counted_when_they_were_spent(tmp_path: Path, clock: Clock) -> None:
    made = meter(tmp_path, clock, step_seconds_per_minute=5)
    for _ in range(4):
        made.require("acme", 1)
        made.spend("acme", 2.0)
        clock.now += 2
        if made.used("acme")[1].used >= 5:
            break
    assert made.used("acme")[1].used == 6.0, "what was taken in is finished"
    with pytest.raises(QuotaExceeded) as caught:
        made.take("acme", 1)
    assert caught.value.quota == STEP_SECONDS
    clock.now += (caught.value.retry_after or 0.0) + 0.001
    made.take("acme", 1)


def test_asking_takes_nothing(tmp_path: Path, clock: Clock) -> None:
    made = meter(tmp_path, clock, images_per_minute=2)
    for _ in range(5):
        made.require("acme", 2)
    made.take("acme", 2)
    with pytest.raises(QuotaExceeded):
        made.require("acme", 1)
    assert [(each.quota, each.used, each.limit) for each in made.used("acme")] == [
        (IMAGES, 2, 2),
        (STEP_SECONDS, 0, None),
    ]


@pytest.mark.parametrize("seed", range(20))
def test_no_minute_has_more_than_the_limit(tmp_path: Path, clock: Clock, seed: int) -> None:
    """Whenever who asks for how many."""
    draw, limit = random.Random(seed), 12
    made = meter(tmp_path, clock, images_per_minute=limit)
    taken, waits = list[tuple[float, int]](), list[float]()
    for _ in range(400):
        clock.now += draw.expovariate(0.5)
        wanted = draw.randint(1, 6)
        try:
            made.take("acme", wanted)
        except QuotaExceeded as refusal:
            waits.append(refusal.retry_after or 0.0)
        else:
            taken.append((clock.now, wanted))
    assert all(0 < wait <= MINUTE + 1 for wait in waits)
    for begin, _ in taken:
        assert sum(count for at, count in taken if begin <= at < begin + MINUTE) <= limit
    assert len(taken) > 20
    assert waits


def test_whoever_had_nothing_for_a_minute_is_forgotten(tmp_path: Path, clock: Clock) -> None:
    made = meter(tmp_path, clock)
    for number in range(50):
        made.take(f"tenant-{number}", 1)
    clock.now += 2 * MINUTE
    made.take("acme", 1)
    assert len(made._counts) == 1
