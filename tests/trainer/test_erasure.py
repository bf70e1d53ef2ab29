"""What the Trainer keeps of an erased concept goes, beside a real Registry that is told so."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from registry.processes import _home as tokens_home
from registry.served import refused
from sqlalchemy import update

from perfuse.attach import BaseModel
from perfuse.client.registry import RegistryClient
from perfuse.errors import ConceptErased, Unavailable
from perfuse.names import ConceptName
from perfuse.serving.tokens import mint
from perfuse.v1 import erasure_pb2, registry_pb2
from perfuse.v1 import trainer_pb2 as wire
from perfuse_trainer.resources import EventKind, RunState
from perfuse_trainer.runs.erasing import Eraser, _note
from perfuse_trainer.runs.events import News
from perfuse_trainer.tables import (
    ERASED_CONCEPTS,
    EVENTS,
    IMAGE_SETS,
    IMAGES,
    REQUESTS,
    RUNS,
)
from trainer.test_run_calls import BASE, Calls, Desk, desk  # noqa: F401
from trainer.workshop import Workshop, until

SECRET = "Quince-of-the-test"


@pytest.fixture
def acme(desk: Desk) -> Calls:  # noqa: F811
    return desk.tenant()


def erase(acme: Calls) -> None:
    admin = Calls(acme.desk, acme.tenant, "admin")
    name = f"tenants/{acme.tenant}/concepts/tom"
    found = admin.GetConcept(registry_pb2.GetConceptRequest(name=name))
    admin.EraseConcept(erasure_pb2.EraseConceptRequest(name=name, etag=found.etag))


def receipt(acme: Calls) -> erasure_pb2.Erasure:
    admin = Calls(acme.desk, acme.tenant, "admin")
    name = f"tenants/{acme.tenant}/erasures/tom"
    found: erasure_pb2.Erasure = admin.GetErasure(erasure_pb2.GetErasureRequest(name=name))
    return found


def turn(acme: Calls, target: str = "", *, vault: Any = None) -> None:
    """One round of a Trainer's, with a delegate's token."""
    token = mint(tokens_home() / "tokens", "platform", "trainer", ["delegate"])
    trainer = acme.desk.shop.trainer

    async def work() -> None:
        async with RegistryClient(target or acme.desk.target, timeout=3) as registry:
            await Eraser(
                trainer.database, vault or trainer.vault, registry, f"Bearer {token}"
            ).turn()

    asyncio.run(work())


def told(acme: Calls, run: wire.TrainingRun) -> wire.TrainingRun:
    found: wire.TrainingRun = acme.GetTrainingRun(wire.GetTrainingRunRequest(name=run.name))
    return found


def queue(acme: Calls, **fields: Any) -> wire.TrainingRun:
    settings = wire.TrainingSettings(
        previews=wire.PreviewSettings(prompts=[f"<> and {SECRET}"]), steps=50
    )
    return acme.run(
        **BASE,
        settings=settings,
        description=SECRET,
        labels={"note": SECRET},
        request_id=str(uuid4()),
        **fields,
    )


def claimed(acme: Calls) -> None:
    """The oldest run that waits, half learned: with a checkpoint, a curve and a preview."""
    shop = acme.desk.shop
    vault = shop.trainer.vault
    (claim,) = [
        each
        for each in shop.queue.claim("w", ["toy"], 100, alone=True)
        if each.tenant == acme.tenant
    ][:1]
    preview = vault.put(acme.tenant, SECRET.encode())
    news = [
        News(EventKind.VALIDATION, {"step": 5, "loss": 0.5, "best": True}),
        News(EventKind.PREVIEW, {"step": 5, "prompt": SECRET}, preview),
    ]
    shop.claims.tell(claim, news, step=5, loss=0.5)
    shop.claims.checkpoint(claim, vault.put(acme.tenant, b"weights"), 5)


def rows(acme: Calls, table: Any) -> list[Any]:
    with acme.desk.shop.database.engine.begin() as connection:
        return list(connection.execute(table.select().where(table.c.tenant == acme.tenant)))


def files(acme: Calls) -> list[str]:
    return [blob.digest for blob in acme.desk.shop.trainer.vault.blobs.listing(acme.tenant)]


class TestErased:
    def test_runs_end_and_nothing_is_left_but_how_they_did(self, acme: Calls) -> None:
        done = queue(acme)
        ended = update(RUNS).where(RUNS.c.uid == done.uid)
        running = queue(acme)
        with acme.desk.shop.database.engine.begin() as connection:
            connection.execute(ended.values(state=RunState.SUCCEEDED.value, version_number=1))
        claimed(acme)
        waiting = queue(acme)
        assert told(acme, running).step == 5
        assert told(acme, waiting).state == wire.TRAINING_RUN_STATE_QUEUED
        assert len(files(acme)) == 11
        erase(acme)
        turn(acme)
        for run in (running, waiting):
            found = told(acme, run)
            assert found.state == wire.TRAINING_RUN_STATE_FAILED
            assert found.error.reason == "CONCEPT_ERASED"
        assert told(acme, done).state == wire.TRAINING_RUN_STATE_SUCCEEDED
        assert files(acme) == []
        for table in (IMAGES, IMAGE_SETS):
            assert rows(acme, table) == []
        for table in (RUNS, EVENTS, REQUESTS, ERASED_CONCEPTS):
            assert SECRET not in repr(rows(acme, table)), table.name
        assert all(row.provenance is None for row in rows(acme, RUNS))
        # Whoever watches is told the end, and so is whoever comes later.
        for run in (done, running):
            assert [each.WhichOneof("event") for each in acme.watch(run.name)] == ["state_change"]
        said = receipt(acme)
        assert said.state == erasure_pb2.ERASURE_STATE_COMPLETE
        counts = said.trainer
        assert (counts.run_count, counts.ended_run_count) == (3, 2)
        assert (counts.image_set_count, counts.kept_image_set_count) == (3, 0)
        assert counts.file_count == 11

    def test_a_set_that_another_concept_learned_from_stays(self, acme: Calls) -> None:
        acme.concept("tim")
        shared = acme.image_set(keep=True)
        queue(acme, image_set=shared)
        other = queue(acme, image_set=shared, concept=f"tenants/{acme.tenant}/concepts/tim")
        erase(acme)
        turn(acme)
        assert told(acme, other).state == wire.TRAINING_RUN_STATE_QUEUED
        assert len(files(acme)) == 3
        counts = receipt(acme).trainer
        assert (counts.image_set_count, counts.kept_image_set_count) == (0, 1)

    def test_no_run_is_queued_any_more_by_either_service(self, acme: Calls) -> None:
        erase(acme)
        with refused("FAILED_PRECONDITION", "CONCEPT_ERASED"):
            queue(acme)
        turn(acme)
        # Whoever had asked the Registry before is refused here.
        order = acme.desk.shop.order(tenant=acme.tenant)
        with pytest.raises(ConceptErased):
            acme.desk.shop.run(tenant=acme.tenant, images=None, concept=order.concept.concept)

    def test_one_that_was_queued_meanwhile_goes_with_the_next_round(self, acme: Calls) -> None:
        run = queue(acme)
        erase(acme)
        shop = acme.desk.shop
        hidden = update(RUNS).where(RUNS.c.uid == run.uid)
        with shop.database.engine.begin() as connection:
            connection.execute(hidden.values(concept_id="elsewhere"))
        turn(acme)
        with shop.database.engine.begin() as connection:
            connection.execute(hidden.values(concept_id="tom"))
        turn(acme)
        assert told(acme, run).error.reason == "CONCEPT_ERASED"
        assert files(acme) == []

    def test_while_the_store_is_away_nothing_is_confirmed(self, acme: Calls) -> None:
        queue(acme)
        erase(acme)

        class Away:
            """A store that does not delete."""

            blobs = property(lambda self: self)

            def delete(self, tenant: str, digest: str) -> None:
                raise Unavailable("the store does not answer")

        turn(acme, vault=Away())
        assert not receipt(acme).HasField("trainer")
        assert len(files(acme)) == 3
        turn(acme)
        said = receipt(acme)
        assert said.state == erasure_pb2.ERASURE_STATE_COMPLETE
        assert (said.trainer.run_count, said.trainer.file_count) == (1, 3)
        assert files(acme) == []

    def test_while_the_registry_is_away_nothing_ends(self, acme: Calls) -> None:
        run = queue(acme)
        erase(acme)
        turn(acme, "127.0.0.1:1")
        assert told(acme, run).state == wire.TRAINING_RUN_STATE_QUEUED


class TestWorkers:
    def test_one_stops_within_a_step_and_leaves_no_file(
        self, shop: Workshop, base: BaseModel
    ) -> None:
        run = shop.run(base, steps=20_000)
        with shop.working(base) as worker:
            until(lambda: shop.read(run).step > 0)
            name = ConceptName(run.tenant, run.concept_id)
            shop.database.transact(lambda connection: _note(connection, [name]))
            registry: Any = None
            Eraser(shop.database, shop.trainer.vault, registry, "").erase(name)
            until(lambda: not worker._members)
            assert shop.read(run).error_reason == "CONCEPT_ERASED"
        assert shop.files() == 0
