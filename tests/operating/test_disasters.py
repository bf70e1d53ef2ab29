"""What docs/operating/recovery.md says of wrong clocks and full disks."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from registry import samples
from registry.processes import fresh_place, furnish
from trainer.workshop import workshop

from perfuse.adapter import digest
from perfuse.errors import Unavailable
from perfuse.names import ConceptName
from perfuse.storage.moments import now
from perfuse.storage.requests import Mutation
from perfuse_registry import garbage
from perfuse_registry.registry import Registry
from perfuse_trainer.resources import EventKind
from perfuse_trainer.runs import run_queue
from perfuse_trainer.runs.claims import LeaseLost
from perfuse_trainer.runs.events import News

TOM = ConceptName("acme", "tom")


def create(registry: Registry, seed: int, request_id: str = "") -> str:
    data = samples.adapter(seed)
    mutation = Mutation("acme", "tester", request_id)
    return str(registry.versions.create(mutation, TOM, data, digest(data)).number)


def readable(registry: Registry, number: str) -> bool:
    _, data = registry.versions.download("acme", TOM.version(number), "")
    return data is not None


def test_a_collection_whose_clock_is_ahead_takes_no_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fresh_place("sqlite+directory", tmp_path) as place, place.registry() as registry:
        furnish(registry, "tom")
        numbers = [create(registry, seed) for seed in range(3)]
        for years in (10, 20, 30):
            monkeypatch.setattr(garbage, "now", lambda years=years: now() + timedelta(365 * years))
            registry.garbage.collect()
        assert all(readable(registry, number) for number in numbers)
        assert registry.integrity.verify().damaged_count == 0
        # Bytes put while the clock is wrong are a version's too.
        numbers.append(create(registry, 4))
        registry.garbage.collect()
        assert readable(registry, numbers[-1])


def test_a_worker_whose_clock_is_late_changes_nothing_once_its_run_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with workshop("sqlite", tmp_path) as shop:
        shop.run()
        with monkeypatch.context() as late:
            late.setattr(run_queue, "now", lambda: now() - timedelta(hours=1))
            (claim,) = shop.queue.claim("worker-1", ["tiny"], 1, alone=True)
        shop.queue.reap()
        (again,) = shop.queue.claim("worker-2", ["tiny"], 1, alone=True)
        assert again.run == claim.run
        assert again.fence > claim.fence
        body = {"step": 1, "steps": 6, "loss": 0.5, "steps_per_second": 1.0}
        with pytest.raises(LeaseLost):
            shop.claims.tell(claim, [News(EventKind.PROGRESS, body)], step=1)
        shop.claims.tell(again, [News(EventKind.PROGRESS, body)], step=1)


@contextmanager
def no_room() -> Iterator[None]:
    """No file grows, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Else the kernel would end us; Python ignores it, and others in this process may not.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_refuses_and_the_same_call_goes_through_once_there_is_room(
    tmp_path: Path,
) -> None:
    again = "5e1b5c53-7c8c-4f0e-9f3d-0b6d4a7f1f11"
    with fresh_place("sqlite+directory", tmp_path) as place, place.registry() as registry:
        furnish(registry, "tom")
        first = create(registry, 1)
        with no_room(), pytest.raises(Unavailable):
            create(registry, 2, again)
        assert readable(registry, first)
        assert create(registry, 2, again) == create(registry, 2, again) == "2"
        assert readable(registry, "2")
        assert registry.integrity.verify().damaged_count == 0
