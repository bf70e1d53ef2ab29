"""Admission reckons with what is there, and with what comes while it is there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from perfuse.errors import ResourceExhausted
from perfuse_renderer.engine.admission import Admission
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.engine.pace import Pace
from perfuse_renderer.engine.render import Place, Queued, Render
from perfuse_renderer.engine.row import Picture

SIZE = (16, 16)
LANE = 0.1
"""Seconds of a lane's step, whatever the batch: two lanes and ten steps take 2 s alone."""
PLAN: Any = SimpleNamespace(encodings=(None,))


class Door:
    """Admission on a clock of its own, before an engine that does nothing."""

    def __init__(self) -> None:
        self.now = 0.0
        pace = Pace()
        for lanes in (2, 16):
            pace.learn(SIZE, lanes, LANE * lanes)
        self._admission = Admission(EngineSettings(), pace, lambda: self.now)
        self.queues: dict[str, list[Place]] = {}

    def ask(self, tenant: str, deadline: float | None = None, *, stays: bool = True) -> Queued:
        """For one picture of ten steps, to be done in so many seconds."""
        pictures = [Picture(PLAN, PLAN, 0, 10, 3.0, "ddim", *SIZE)]
        until = None if deadline is None else self.now + deadline
        render = Render(tenant, pictures, lambda event: None, deadline=until)
        places = [Place(render, 0)]
        queued = self._admission.admit(render, places, self.queues)
        if stays:
            self.queues.setdefault(tenant, []).extend(places)
        return queued

    def takes(self, tenant: str) -> float:
        """Seconds after which a picture would be done, as the refusal of an impatient one says."""
        with pytest.raises(ResourceExhausted) as refusal:
            self.ask(tenant, 0.0)
        assert refusal.value.retry_after is not None
        return refusal.value.retry_after


@pytest.fixture
def door() -> Door:
    return Door()


def later(door: Door) -> None:
    """Long after everything that came, all of which is still there."""
    door.now += 1000.0


def test_nothing_comes_and_nobody_is_there(door: Door) -> None:
    assert door.takes("light") == pytest.approx(2.0)


def test_nobody_waits_for_more_of_another_s_than_its_own_take(door: Door) -> None:
    for _ in range(20):
        door.ask("flood")
    later(door)
    assert door.takes("light") == pytest.approx(4.0)
    assert door.takes("flood") == pytest.approx(42.0)
    door.ask("light")
    later(door)
    assert door.takes("flood") == pytest.approx(44.0)
    assert door.takes("light") == pytest.approx(8.0)


def test_who_went_on_coming_is_reckoned_with_until_none_comes(door: Door) -> None:
    """Even if none of them is left: they were done, and the next ones will be there."""
    for index in range(10):
        door.ask(f"t{index}", stays=False)
        door.now += 2.0
    busy = door.takes("light")
    # A picture came for each that the denoiser does; half of each goes before the new one, and
    # a tenth more is reckoned with.
    assert busy == pytest.approx(2.0 / (1 - 1.1 / 2))
    later(door)
    assert door.takes("light") == pytest.approx(2.0)


def test_a_tenant_s_own_pictures_come_after_its_own(door: Door) -> None:
    for _ in range(10):
        door.ask("flood", stays=False)
        door.now += 2.0
    assert door.takes("flood") == pytest.approx(2.0)


def test_it_never_despairs(door: Door) -> None:
    """However many came of late, the forecast is at most four times what there is to do."""
    for index in range(1000):
        door.ask(f"t{index}", stays=False)
    assert door.takes("light") <= 4 * 2.0 + 1e-3


def test_a_refusal_says_when_to_come_again(door: Door) -> None:
    door.ask("flood")
    later(door)
    with pytest.raises(
        ResourceExhausted, match=r"done in 4\.0 s, and the deadline is in 1\.0 s"
    ) as it:
        door.ask("light", 1.0)
    assert it.value.retry_after == pytest.approx(3.0)
