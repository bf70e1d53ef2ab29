"""What the Trainer counts: the tables' state as it is, each happening once, and nobody's name."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, cast

import pytest
from prometheus_client import generate_latest

from perfuse.client.registry import RegistryClient
from perfuse.errors import FailedPrecondition, PerfuseError, Unavailable
from perfuse.names import ConceptName, VersionName
from perfuse.storage.requests import Mutation
from perfuse_trainer import measures as names
from perfuse_trainer.measures import Measures
from perfuse_trainer.resources import EventKind
from perfuse_trainer.runs.events import News
from perfuse_trainer.runs.publisher import Publisher
from perfuse_trainer.runs.run_queue import Queue
from perfuse_trainer.sweeping import Swept
from trainer.workshop import Workshop


@pytest.fixture
def measures(shop: Workshop) -> Measures:
    made = Measures()
    made.tell_tables(shop.database)
    return made


def value(measures: Measures, name: str, **labels: str) -> float | None:
    return measures.registry.get_sample_value(name, labels)


def test_runs_are_told_by_state(shop: Workshop, measures: Measures) -> None:
    runs = [shop.run(concept=name) for name in ("tom", "rex", "tim")]
    assert value(measures, names.QUEUE, base_model="tiny") == 3
    shop.queue.claim("worker-1", ["tiny"], 1, alone=True)
    shop.trainer.runs.cancel(Mutation("acme", "tester"), runs[2].name)
    found = {
        state: value(measures, names.RUNS_BY_STATE, state=state)
        for state in ("QUEUED", "RUNNING", "CANCELLED", "SUCCEEDED")
    }
    assert found == {"QUEUED": 1, "RUNNING": 1, "CANCELLED": 1, "SUCCEEDED": 0}
    assert value(measures, names.QUEUE, base_model="tiny") == 1


def test_the_queue_is_told_in_runs_steps_and_age(shop: Workshop, measures: Measures) -> None:
    for concept, steps in (("tom", 6), ("rex", 30)):
        shop.run(concept=concept, steps=steps)
    assert value(measures, names.QUEUE_STEPS, base_model="tiny") == 36
    age = value(measures, names.QUEUE_AGE, base_model="tiny")
    assert age is not None
    assert 0 < age < 60
    shop.queue.claim("worker-1", ["tiny"], 2, alone=True)
    assert value(measures, names.QUEUE_STEPS, base_model="tiny") == 0
    assert value(measures, names.QUEUE_AGE, base_model="tiny") == 0


def test_workers_count_by_the_second() -> None:
    moment = 10.0
    measures = Measures(clock=lambda: moment)
    for moment, workers in ((12.0, 2), (15.0, 1), (20.0, 0), (99.0, 0)):  # noqa: B007
        measures.staffed(workers)
    assert value(measures, names.WORKER_SECONDS) == 2 * 3 + 1 * 5
    assert value(measures, names.WORKERS) == 0


def test_the_rate_is_of_all_runs_under_way(shop: Workshop, measures: Measures) -> None:
    assert value(measures, names.RATE) == 0
    for name in ("tom", "rex"):
        shop.run(concept=name)
    claims = shop.queue.claim("worker-1", ["tiny"], 2, alone=True)
    for claim, rates in zip(claims, ([2.0, 3.5], [4.0]), strict=True):
        for step, rate in enumerate(rates, 1):
            body = {"step": step, "steps": 6, "loss": 0.5, "steps_per_second": rate}
            shop.claims.tell(claim, [News(EventKind.PROGRESS, body)], step=step)
    assert value(measures, names.RATE) == 7.5
    shop.claims.finish(claims[0], shop.trainer.vault.put("acme", b"adapter"), "sha256:0", ())
    assert value(measures, names.RATE) == 4.0
    shop.claims.give_back(claims[1])
    assert value(measures, names.RATE) == 0


def test_a_lost_lease_counts_once(shop: Workshop, measures: Measures) -> None:
    queue = Queue(shop.database, timedelta(0), on_loss=measures.lease_losses.inc)
    assert value(measures, names.LEASE_LOSSES) == 0
    for name in ("tom", "rex"):
        shop.run(concept=name)
    queue.claim("worker-1", ["tiny"], 2, alone=True)
    for _ in range(3):
        queue.reap()
    assert value(measures, names.LEASE_LOSSES) == 2


class Answering:
    """A Registry that answers so."""

    def __init__(self, *answers: PerfuseError | VersionName) -> None:
        self.answers = list(answers)

    async def publish(self, work: Any, authorization: str) -> VersionName:
        answer = self.answers.pop(0)
        if isinstance(answer, PerfuseError):
            raise answer
        return answer


def test_every_try_to_publish_counts_by_its_outcome(shop: Workshop, measures: Measures) -> None:
    shop.run()
    (claim,) = shop.queue.claim("worker-1", ["tiny"], 1, alone=True)
    shop.claims.finish(claim, shop.trainer.vault.put("acme", b"adapter"), "sha256:0", ())
    registry = Answering(
        Unavailable("away"), Unavailable("away"), ConceptName("acme", "tom").version(1)
    )
    publisher = Publisher(
        shop.database, shop.trainer.vault, cast(RegistryClient, registry), "", measures
    )
    for _ in range(4):
        asyncio.run(publisher.publish())
    shop.run()
    (claim,) = shop.queue.claim("worker-1", ["tiny"], 1, alone=True)
    shop.claims.finish(claim, shop.trainer.vault.put("acme", b"adapter"), "sha256:0", ())
    registry.answers = [FailedPrecondition("never")]
    for _ in range(2):
        asyncio.run(publisher.publish())
    found = {
        outcome: value(measures, names.PUBLICATIONS, outcome=outcome)
        for outcome in (names.POSTPONED, names.PUBLISHED, names.REFUSED)
    }
    assert found == {"postponed": 2, "published": 1, "refused": 1}


def test_a_database_that_is_away_takes_the_counters_with_it_not(
    shop: Workshop, measures: Measures, monkeypatch: pytest.MonkeyPatch
) -> None:
    measures.sweep(Swept(orphans=2, orphan_bytes=70))
    measures.sweep(None)

    def away(work: Any) -> Any:
        raise Unavailable("the database does not answer")

    monkeypatch.setattr(shop.database, "read", away)
    told = generate_latest(measures.registry).decode()
    assert f'{names.SWEEPS}{{outcome="done"}} 1.0' in told
    assert f'{names.SWEEPS}{{outcome="failed"}} 1.0' in told
    assert f"{names.SWEPT} 70.0" in told
    assert names.RATE not in told
