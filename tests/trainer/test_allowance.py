"""How many runs a tenant may have: counted exactly where they wait, waited for where they begin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from perfuse.errors import QuotaExceeded
from perfuse.names import TenantName
from perfuse.quotas import Quotas
from perfuse.storage.requests import Mutation
from perfuse.v1 import trainer_pb2 as wire
from perfuse_trainer.resources import Run, RunState
from perfuse_trainer.runs.claims import Claim
from perfuse_trainer.runs.run_queue import Queue
from perfuse_trainer.trainer import Trainer
from trainer.served import Installation, Tenant, at_once, refused
from trainer.workshop import BACKENDS, Workshop, workshop


@pytest.fixture
def quotas(tmp_path: Path) -> Quotas:
    file = tmp_path / "quotas.toml"
    file.write_text(
        "[defaults]\nruns_queued = 2\nruns_running = 1\n[tenants.globex]\nruns_running = 2\n"
    )
    return Quotas(file)


@pytest.fixture(params=BACKENDS)
def shop(request: pytest.FixtureRequest, tmp_path: Path, quotas: Quotas) -> Iterator[Workshop]:
    with workshop(request.param, tmp_path) as made:
        made.trainer = Trainer(made.database, made.blobs, quotas)
        yield made


@pytest.fixture
def claim(shop: Workshop, quotas: Quotas) -> Callable[..., list[Claim]]:
    """Have a worker claim what it may."""
    queue = Queue(shop.database, timedelta(minutes=1), quotas=quotas)
    return lambda room=8, worker="w": queue.claim(worker, ["tiny"], room, alone=True)


def used(shop: Workshop, tenant: str = "acme") -> dict[str, tuple[int, float | None]]:
    found = shop.trainer.runs.usage(tenant, TenantName(tenant))
    return {each.quota: (each.used, each.limit) for each in found}


def cancel(shop: Workshop, run: Run) -> None:
    shop.trainer.runs.cancel(Mutation(run.tenant, "tester"), run.name)


def test_one_more_than_may_wait_is_refused(shop: Workshop) -> None:
    first, _ = shop.run(), shop.run()
    with pytest.raises(QuotaExceeded, match="cancel one") as caught:
        shop.run()
    refusal = caught.value
    assert (refusal.quota, refusal.limit, refusal.resource) == ("runs_queued", 2, "tenants/acme")
    assert refusal.retry_after, "time mends it: runs begin"
    assert used(shop) == {"runs_queued": (2, 2), "runs_running": (0, 1)}
    shop.run(tenant="globex")
    cancel(shop, first)
    shop.run()


def test_of_many_that_want_the_last_place_one_gets_it(shop: Workshop) -> None:
    shop.run()
    results = at_once(*(shop.run for _ in range(6)))
    assert sum(isinstance(result, Run) for result in results) == 1
    assert sum(isinstance(result, QuotaExceeded) for result in results) == 5
    assert used(shop)["runs_queued"] == (2, 2)


def test_what_may_not_be_trained_yet_waits_and_is_not_refused(
    shop: Workshop, claim: Callable[..., list[Claim]]
) -> None:
    runs = [shop.run(), shop.run()]
    others = [shop.run(tenant="globex"), shop.run(tenant="globex")]
    claimed = claim()
    assert {each.uid for each in claimed} == {runs[0].uid, *(run.uid for run in others)}
    assert claim() == []
    assert used(shop) == {"runs_queued": (1, 2), "runs_running": (1, 1)}
    assert shop.read(runs[1]).state is RunState.QUEUED
    # A place in the queue is free as soon as its run is trained.
    third = shop.run()
    # The end of one, whichever it is, lets the next begin.
    (mine,) = (each for each in claimed if each.tenant == "acme")
    cancel(shop, runs[0])
    assert claim() == []
    shop.claims.cancelled(mine)
    assert [each.uid for each in claim()] == [runs[1].uid]
    assert shop.read(third).state is RunState.QUEUED


def test_workers_that_claim_at_once_claim_no_more_than_may_be(
    shop: Workshop, claim: Callable[..., list[Claim]]
) -> None:
    shop.run(), shop.run()
    works = [lambda name=f"w{index}": claim(1, name) for index in range(4)]
    results = at_once(*works)
    claims = [each for result in results if isinstance(result, list) for each in result]
    assert len(claims) == 1, results
    assert used(shop)["runs_running"] == (1, 1)


def test_without_quotas_nothing_waits(shop: Workshop) -> None:
    free = Trainer(shop.database, shop.blobs)
    shop.trainer = free
    for _ in range(4):
        shop.run()
    queue = Queue(shop.database, timedelta(minutes=1))
    assert len(queue.claim("w", ["tiny"], 8, alone=True)) == 4
    assert used(shop) == {"runs_queued": (0, None), "runs_running": (4, None)}


def test_it_is_told_to_whose_it_is(installation: Installation, acme: Tenant, rival: Tenant) -> None:
    made = acme.image_set()
    acme.run(made.name)
    acme.run(made.name, RunState.RUNNING)
    request = wire.GetTrainingUsageRequest(name=acme.name)
    answer = installation.client(acme.id, "reader").GetTrainingUsage(request)
    assert [(each.quota, each.used, each.HasField("limit")) for each in answer.quotas] == [
        ("runs_queued", 1, False),
        ("runs_running", 1, False),
    ]
    with refused("NOT_FOUND"):
        rival.call.GetTrainingUsage(request)
