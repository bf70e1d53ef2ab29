"""A base model that a worker cannot load: its runs wait a while, and end with a reason."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bases import words_covariance

from perfuse.attach import BaseModel
from perfuse.errors import FailedPrecondition
from perfuse.storage.requests import Mutation
from perfuse_trainer.resources import Run, RunState
from perfuse_trainer.working.working import work
from trainer.workshop import Workshop


@pytest.fixture
def model(tiny_sd15_dir: Path, tmp_path: Path) -> Path:
    """A base that was not prepared."""
    return Path(shutil.copytree(tiny_sd15_dir, tmp_path / "secret-place"))


@pytest.fixture(autouse=True)
def settings(shop: Workshop, model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    told = {
        "PERFUSE_TRAINER_DATABASE_URL": shop.url,
        "PERFUSE_TRAINER_BASE_MODELS": f"tiny={model}",
        "PERFUSE_TRAINER_MAX_FAULTS": "3",
        "PERFUSE_TRAINER_PACK": "2",
        "PERFUSE_TRAINER_IDLE_SECONDS": "0",
        **shop.store_environment(),
    }
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Hasty(threading.Event):
    """Never set, and nobody waits for it; what was waited for is noted."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return False


def try_to_work() -> list[float]:
    """A worker's life; how long it waited before it ended."""
    stop = Hasty()
    with pytest.raises(FailedPrecondition, match="is not prepared"):
        work("tiny", f"worker-{id(stop)}", stop)
    return stop.waits


def state(shop: Workshop, run: Run) -> tuple[RunState, int]:
    return shop.read(run).state, shop.row(run).faults


def test_what_stays_broken_leaves_no_run_waiting(shop: Workshop, model: Path) -> None:
    first, second, third = (shop.run(concept=name) for name in ("tom", "rex", "kit"))
    elsewhere = shop.run(base_model_id="other")
    assert try_to_work() == [5.0]
    assert (state(shop, first), state(shop, third)) == (
        (RunState.QUEUED, 1),
        (RunState.QUEUED, 0),
    )
    assert try_to_work() == [10.0]
    shop.trainer.runs.cancel(Mutation("acme", "tester"), second.name)
    assert try_to_work() == [20.0]
    failed = shop.read(first)
    assert failed.state is RunState.FAILED
    assert failed.error_reason == "BASE_MODEL_UNSUITABLE"
    # Where the operator keeps it is no business of whoever queued the run.
    assert "baseModels/tiny" in failed.error_message
    assert str(model) not in failed.error_message
    assert shop.read(second).state is RunState.CANCELLED
    assert state(shop, third) == (RunState.QUEUED, 1)
    assert state(shop, elsewhere) == (RunState.QUEUED, 0)


def test_what_is_mended_costs_no_run(shop: Workshop, model: Path) -> None:
    base = BaseModel.load(model)
    run = shop.run(base, steps=2)
    try_to_work()
    try_to_work()
    assert state(shop, run) == (RunState.QUEUED, 2)
    words_covariance(base).write(model)
    work("tiny", "worker-that-can", threading.Event())
    assert shop.adapter(run)
