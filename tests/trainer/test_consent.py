"""Runs of a living person's likeness, beside a real Registry: none without a live consent."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from registry.processes import _home as tokens_home
from registry.served import refused
from sqlalchemy import update

from perfuse.attach import BaseModel
from perfuse.client.registry import RegistryClient
from perfuse.serving.tokens import mint
from perfuse.storage.moments import now
from perfuse.v1 import consent_pb2, registry_pb2
from perfuse_trainer.resources import RunState
from perfuse_trainer.runs.consent import STALE, ConsentWatch
from perfuse_trainer.tables import RUNS
from trainer.test_run_calls import Calls, Desk, desk  # noqa: F401
from trainer.workshop import Workshop, until


def stamp(moment: datetime) -> Timestamp:
    told = Timestamp()
    told.FromDatetime(moment)
    return told


def consent(calls: Calls, concept: str, seconds: float = 3600, scope: str = "TRAIN") -> str:
    made = calls.CreateConsent(
        consent_pb2.CreateConsentRequest(
            parent=concept,
            consent=consent_pb2.Consent(
                giver="Erika Mustermann",
                scopes=[f"CONSENT_SCOPE_{scope}"],
                expire_time=stamp(now() + timedelta(seconds=seconds)),
            ),
        )
    )
    return str(made.name)


@pytest.fixture
def acme(desk: Desk) -> Calls:  # noqa: F811
    return desk.tenant()


@pytest.fixture
def eri(acme: Calls) -> str:
    made = acme.CreateConcept(
        registry_pb2.CreateConceptRequest(
            parent=f"tenants/{acme.tenant}",
            concept_id="eri",
            concept=registry_pb2.Concept(super_category="cat", likeness=True),
        )
    )
    return str(made.name)


def watch(calls: Calls, target: str) -> None:
    """One round of the watch, with a delegate's token."""
    token = mint(tokens_home() / "tokens", "platform", "trainer", ["delegate"])
    trainer = calls.desk.shop.trainer

    async def work() -> None:
        async with RegistryClient(target) as registry:
            authorization = f"Bearer {token}"
            await ConsentWatch(trainer.database, registry, authorization, trainer.vault.drop).turn()

    asyncio.run(work())


def state(calls: Calls, name: str) -> tuple[str, str]:
    run = calls.GetTrainingRun(_get(name))
    return RunState(calls.desk.shop.read_state(run.uid)).value, run.error.reason


def _get(name: str):  # type: ignore[no-untyped-def]
    from perfuse.v1 import trainer_pb2

    return trainer_pb2.GetTrainingRunRequest(name=name)


def test_no_run_is_queued_without_it(acme: Calls, eri: str) -> None:
    for scope in ("", "RENDER"):
        if scope:
            consent(acme, eri, scope=scope)
        with refused("FAILED_PRECONDITION", "CONSENT_MISSING"):
            acme.run(concept=eri, base_model="baseModels/toy")
    consent(acme, eri)
    assert acme.run(concept=eri, base_model="baseModels/toy").name


def test_a_revocation_ends_what_is_queued_and_what_runs(acme: Calls, eri: str) -> None:
    given = consent(acme, eri)
    queued, running = (
        acme.run(concept=eri, base_model="baseModels/toy"),
        acme.run(concept=eri, base_model="baseModels/toy"),
    )
    other = acme.run(base_model="baseModels/toy")
    shop = acme.desk.shop
    change(shop, running.uid, state="RUNNING", worker="w", lease_time=now() + timedelta(minutes=5))
    target = acme.desk.target
    watch(acme, target)
    assert state(acme, queued.name)[0] == "QUEUED"
    acme.RevokeConsent(consent_pb2.RevokeConsentRequest(name=given))
    files = shop.files()
    watch(acme, target)
    for run in (queued, running):
        assert state(acme, run.name) == ("FAILED", "CONSENT_REVOKED")
    assert state(acme, other.name)[0] == "QUEUED"
    # Their images went with them, as those of every run that ends.
    assert shop.files() == files - 6


def test_an_expired_consent_says_so(acme: Calls, eri: str) -> None:
    consent(acme, eri, seconds=1.5)
    run = acme.run(concept=eri, base_model="baseModels/toy")
    time.sleep(1.6)
    watch(acme, acme.desk.target)
    assert state(acme, run.name) == ("FAILED", "CONSENT_EXPIRED")


def test_a_registry_that_is_away_ends_nothing(acme: Calls, eri: str) -> None:
    consent(acme, eri)
    run = acme.run(concept=eri, base_model="baseModels/toy")
    watch(acme, "127.0.0.1:1")
    assert state(acme, run.name)[0] == "QUEUED"


def change(shop: Workshop, uid: str, **values: object) -> None:
    changed = update(RUNS).where(RUNS.c.uid == uid).values(**values)
    shop.database.transact(lambda connection: connection.execute(changed).rowcount)


class TestWorkers:
    """What holds even if nobody is there to end a run."""

    @pytest.mark.parametrize("why", ["expired", "unconfirmed"])
    def test_none_claims_a_run_without_it(self, shop: Workshop, base: BaseModel, why: str) -> None:
        run = shop.run(base)
        moment = now()
        until = moment - timedelta(seconds=1) if why == "expired" else moment + timedelta(days=1)
        change(shop, run.uid, consent_until=until, consent_seen=moment - STALE)
        shop.work(base)
        assert shop.read(run).state is RunState.QUEUED
        change(shop, run.uid, consent_until=moment + timedelta(days=1), consent_seen=now())
        shop.work(base)
        assert shop.read(run).step == 6

    def test_one_stops_within_a_step_at_its_end(self, shop: Workshop, base: BaseModel) -> None:
        run = shop.run(base, steps=20_000)
        change(shop, run.uid, consent_until=now() + timedelta(days=1), consent_seen=now())
        with shop.working(base) as worker:
            until(lambda: shop.read(run).step > 0)
            change(shop, run.uid, consent_until=now())
            until(lambda: not worker._members)
            assert shop.read(run).state is RunState.RUNNING
        assert shop.claims.look([]) == {}
