"""Training runs over gRPC, beside a real Registry: what is asked, settled, told and refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import grpc
import pytest
from registry import samples
from registry.processes import _home as tokens_home
from registry.processes import fresh_place, start
from registry.served import Refusal, refused

from perfuse.client.registry import RegistryClient
from perfuse.serving.edge import Edge
from perfuse.serving.testing import IssuedTokens, serve
from perfuse.serving.tokens import TokenAuthenticator, mint
from perfuse.v1 import registry_pb2
from perfuse.v1 import trainer_pb2 as wire
from perfuse.v1.registry_pb2_grpc import RegistryServiceStub
from perfuse.v1.trainer_pb2_grpc import TrainerServiceStub, add_TrainerServiceServicer_to_server
from perfuse_trainer.resources import EventKind, RunState
from perfuse_trainer.runs.events import News
from perfuse_trainer.wire.servicer import TrainerServicer
from trainer.served import _on_loop, _validator
from trainer.workshop import BACKENDS, Workshop, workshop


class Calls:
    """A tenant's stubs of both services, whose refusals are raised as `Refusal`."""

    def __init__(self, desk: Desk, tenant: str, *roles: str) -> None:
        self.tenant, self.desk = tenant, desk
        token = mint(tokens_home() / "tokens", tenant, "paula", roles or ("publisher",))
        self.metadata = (("authorization", f"Bearer {token}"),)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.desk.trainer, name, None) or getattr(self.desk.registry, name)

        def call(request: Any) -> Any:
            try:
                return method(request, metadata=self.metadata, timeout=60)
            except grpc.RpcError as error:
                raise Refusal(error) from None

        return call

    def concept(self, concept_id: str = "tom") -> str:
        made = self.CreateConcept(
            registry_pb2.CreateConceptRequest(
                parent=f"tenants/{self.tenant}",
                concept_id=concept_id,
                concept=registry_pb2.Concept(super_category="cat"),
            )
        )
        return str(made.name)

    def image_set(self, **fields: Any) -> str:
        return str(self.desk.shop.image_set(self.tenant, **fields).name)

    def request(self, **fields: Any) -> wire.CreateTrainingRunRequest:
        """A request that is granted, with other values for these fields."""
        top = {key: fields.pop(key) for key in ("training_run_id", "request_id") if key in fields}
        values = {"concept": f"tenants/{self.tenant}/concepts/tom", **fields}
        if "image_set" not in values:
            values["image_set"] = self.image_set()
        return wire.CreateTrainingRunRequest(
            parent=f"tenants/{self.tenant}", training_run=wire.TrainingRun(**values), **top
        )

    def run(self, **fields: Any) -> wire.TrainingRun:
        return self.CreateTrainingRun(self.request(**fields))

    def watch(self, name: str, after: int = 0) -> Iterator[wire.WatchTrainingRunResponse]:
        request = wire.WatchTrainingRunRequest(name=name, after_sequence=after)
        return self.desk.trainer.WatchTrainingRun(  # type: ignore[no-any-return]
            request, metadata=self.metadata, timeout=60
        )


class Desk:
    """A Trainer's front door without workers, and a Registry at `target`."""

    target = ""

    def __init__(self, shop: Workshop, trainer: Any, registry: Any, edge: Edge) -> None:
        self.shop, self.trainer, self.registry, self.edge = shop, trainer, registry, edge

    def tenant(self) -> Calls:
        calls = Calls(self, f"tenant-{uuid4().hex[:8]}")
        calls.concept()
        return calls


@pytest.fixture(scope="module", params=BACKENDS)
def desk(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    stack = AsyncExitStack()
    with (
        workshop(request.param, folder) as shop,
        fresh_place("sqlite+directory", folder) as place,
    ):
        registry = start(place)
        registry.stub().CreateBaseModel(
            registry_pb2.CreateBaseModelRequest(
                base_model_id="toy", base_model=samples.base_model()
            )
        )
        edge = Edge(TokenAuthenticator(tokens_home() / "tokens"), _validator())

        async def open_desk() -> str:
            client = await stack.enter_async_context(RegistryClient(registry.target))
            servicer = TrainerServicer(shop.trainer, client, ["toy", "lost"], edge)
            served = await stack.enter_async_context(
                serve(
                    (add_TrainerServiceServicer_to_server, servicer),
                    edge=edge,
                    tokens=IssuedTokens(),
                )
            )
            return served.target

        target = _on_loop(open_desk())
        options = [("grpc.use_local_subchannel_pool", 1)]
        try:
            with (
                grpc.insecure_channel(target, options=options) as trainer,
                grpc.insecure_channel(registry.target, options=options) as beside,
            ):
                made = Desk(shop, TrainerServiceStub(trainer), RegistryServiceStub(beside), edge)
                made.target = registry.target
                yield made
        finally:
            _on_loop(stack.aclose())
            registry.kill()


@pytest.fixture
def acme(desk: Desk) -> Calls:
    return desk.tenant()


@pytest.fixture
def rival(desk: Desk) -> Calls:
    return desk.tenant()


BASE = {"base_model": "baseModels/toy"}


class TestCreate:
    def test_what_is_left_open_is_the_papers(self, acme: Calls) -> None:
        run = acme.run(**BASE)
        assert run.name.startswith(f"tenants/{acme.tenant}/trainingRuns/run-")
        assert (run.state, run.super_category) == (wire.TRAINING_RUN_STATE_QUEUED, "cat")
        settings = run.settings
        assert (settings.steps, settings.batch, settings.bias) == (400, 16, 0.75)
        assert (settings.output_rate, settings.embedding_rate) == (0.03, 0.006)
        assert (settings.temperature, settings.flip, settings.render_bias) == (0.1, 0.5, 0.4)
        assert not settings.HasField("previews")
        assert run == acme.GetTrainingRun(wire.GetTrainingRunRequest(name=run.name))

    def test_what_is_given_is_kept(self, acme: Calls) -> None:
        settings = wire.TrainingSettings(
            steps=7, batch=3, seed=5, patience=2, validate_every=2, flip=0.0, bias=0.5,
            output_rate=0.01, embedding_rate=0.0, temperature=0.2, render_bias=0.0,
            render_temperature=0.3, exclusive=True,
            previews=wire.PreviewSettings(prompts=["<> here"], every=3, steps=4, guidance=2.0),
            mask_source=wire.MASK_SOURCE_CROSS_ATTENTION,
        )  # fmt: skip
        run = acme.run(
            **BASE,
            settings=settings,
            key_lock=registry_pb2.KEY_LOCK_TRAINED_K,
            labels={"team": "red"},
            description="the cat",
            training_run_id="mine",
        )
        assert run.settings == settings
        assert run.key_lock == registry_pb2.KEY_LOCK_TRAINED_K
        assert run.name == f"tenants/{acme.tenant}/trainingRuns/mine"
        assert (dict(run.labels), run.description) == ({"team": "red"}, "the cat")

    def test_repeated_it_is_made_once(self, acme: Calls) -> None:
        request = acme.request(**BASE, request_id=str(uuid4()))
        first = acme.CreateTrainingRun(request)
        # The answer of then, although it could not be made now.
        acme.DeleteConcept(
            registry_pb2.DeleteConceptRequest(name=f"tenants/{acme.tenant}/concepts/tom")
        )
        assert acme.CreateTrainingRun(request).uid == first.uid
        request.training_run.settings.steps = 3
        with refused("INVALID_ARGUMENT", reason="REQUEST_ID_REUSED"):
            acme.CreateTrainingRun(request)

    @pytest.mark.parametrize(
        ("fields", "code", "words"),
        [
            ({"concept": "tenants/{}/concepts/tim"}, "NOT_FOUND", "concepts/tim"),
            ({"concept": "tenants/{}"}, "INVALID_ARGUMENT", "training_run.concept"),
            ({"image_set": "tenants/{}/imageSets/none"}, "NOT_FOUND", "imageSets/none"),
            ({"base_model": ""}, "INVALID_ARGUMENT", "baseModels/lost, baseModels/toy"),
            ({"base_model": "baseModels/none"}, "NOT_FOUND", "baseModels/none"),
            ({"base_model": "baseModels/lost"}, "NOT_FOUND", "baseModels/lost"),
            ({"super_category": "dog"}, "INVALID_ARGUMENT", "'cat'"),
            ({"settings": {"previews": {"prompts": ["no name"]}}}, "INVALID_ARGUMENT", "<>"),
            ({"settings": {"batch": 65}}, "INVALID_ARGUMENT", "batch"),
            ({"settings": {"mask_source": 2}}, "INVALID_ARGUMENT", "have no mask"),
            ({"key_lock": 9}, "INVALID_ARGUMENT", "key_lock"),
        ],
    )
    def test_refusals(self, acme: Calls, fields: Any, code: str, words: str) -> None:
        told = {
            key: value.format(acme.tenant) if isinstance(value, str) else value
            for key, value in fields.items()
        }
        if "settings" in told:
            told["settings"] = wire.TrainingSettings(**told["settings"])
        with refused(code) as refusal:
            acme.run(**(BASE | told))
        assert words in refusal.value.message
        assert not self.list(acme)

    def test_a_set_without_images(self, acme: Calls) -> None:
        with refused("FAILED_PRECONDITION", reason="IMAGE_SET_EMPTY"):
            acme.run(**BASE, image_set=acme.image_set(images=0))

    def test_a_concept_that_was_deleted(self, acme: Calls) -> None:
        name = f"tenants/{acme.tenant}/concepts/tom"
        acme.DeleteConcept(registry_pb2.DeleteConceptRequest(name=name))
        with refused("FAILED_PRECONDITION", reason="CONCEPT_DELETED"):
            acme.run(**BASE)

    def test_an_id_that_is_taken(self, acme: Calls) -> None:
        acme.run(**BASE, training_run_id="mine")
        with refused("ALREADY_EXISTS"):
            acme.run(**BASE, training_run_id="mine")

    def test_another_tenants_concepts_and_images_are_not_there(
        self, acme: Calls, rival: Calls
    ) -> None:
        for fields in (
            {"concept": f"tenants/{rival.tenant}/concepts/tom"},
            {"image_set": rival.image_set()},
        ):
            with refused("NOT_FOUND"):
                acme.run(**BASE, **fields)
        request = rival.request(**BASE)
        with refused("NOT_FOUND"):
            acme.CreateTrainingRun(request)

    def test_readers_may_not(self, desk: Desk, acme: Calls) -> None:
        reader = Calls(desk, acme.tenant, "reader")
        with refused("PERMISSION_DENIED"):
            reader.run(**BASE)
        run = acme.run(**BASE)
        assert reader.GetTrainingRun(wire.GetTrainingRunRequest(name=run.name)).uid == run.uid

    @staticmethod
    def list(calls: Calls, **query: Any) -> list[wire.TrainingRun]:
        request = wire.ListTrainingRunsRequest(parent=f"tenants/{calls.tenant}", **query)
        return list(calls.ListTrainingRuns(request).training_runs)


class TestCourse:
    def test_lists_are_filtered_and_paged(self, acme: Calls) -> None:
        runs = [acme.run(**BASE, training_run_id=f"r{index}") for index in range(3)]
        acme.CancelTrainingRun(wire.CancelTrainingRunRequest(name=runs[1].name))
        parent = f"tenants/{acme.tenant}"
        first = acme.ListTrainingRuns(wire.ListTrainingRunsRequest(parent=parent, page_size=2))
        second = acme.ListTrainingRuns(
            wire.ListTrainingRunsRequest(
                parent=parent, page_size=2, page_token=first.next_page_token
            )
        )
        names = [run.name for page in (first, second) for run in page.training_runs]
        assert names == [run.name for run in reversed(runs)]
        assert [
            run.name
            for run in TestCreate.list(acme, filter='state = "QUEUED"', order_by="create_time")
        ] == [runs[0].name, runs[2].name]
        assert TestCreate.list(
            acme, filter=f'concept = "{runs[0].concept}"', order_by="create_time"
        )

    def test_a_queued_run_is_cancelled_at_once(self, acme: Calls) -> None:
        run = acme.run(**BASE)
        ended = acme.CancelTrainingRun(wire.CancelTrainingRunRequest(name=run.name))
        assert ended.state == wire.TRAINING_RUN_STATE_CANCELLED
        assert ended.HasField("end_time")
        again = acme.CancelTrainingRun(wire.CancelTrainingRunRequest(name=run.name))
        assert again.etag == ended.etag

    def test_only_an_ended_run_is_deleted(self, desk: Desk, acme: Calls) -> None:
        run = acme.run(**BASE)
        request = wire.DeleteTrainingRunRequest(name=run.name)
        with refused("FAILED_PRECONDITION", reason="TRAINING_RUN_NOT_ENDED"):
            acme.DeleteTrainingRun(request)
        acme.CancelTrainingRun(wire.CancelTrainingRunRequest(name=run.name))
        acme.DeleteTrainingRun(request)
        with refused("NOT_FOUND"):
            acme.GetTrainingRun(wire.GetTrainingRunRequest(name=run.name))

    def test_an_image_set_in_use_stays_and_goes_with_its_run(self, acme: Calls) -> None:
        image_set = acme.image_set()
        run = acme.run(**BASE, image_set=image_set)
        with refused("FAILED_PRECONDITION", reason="IMAGE_SET_IN_USE"):
            acme.DeleteImageSet(wire.DeleteImageSetRequest(name=image_set))
        acme.CancelTrainingRun(wire.CancelTrainingRunRequest(name=run.name))
        found = acme.GetImageSet(wire.GetImageSetRequest(name=image_set))
        assert found.emptied
        assert not found.images

    def test_another_tenants_run_reads_like_none(self, acme: Calls, rival: Calls) -> None:
        theirs = rival.run(**BASE).name
        none = f"tenants/{rival.tenant}/trainingRuns/none"
        for name in (theirs, none):
            for call, kind in (
                (acme.GetTrainingRun, wire.GetTrainingRunRequest),
                (acme.CancelTrainingRun, wire.CancelTrainingRunRequest),
                (acme.DeleteTrainingRun, wire.DeleteTrainingRunRequest),
            ):
                with refused("NOT_FOUND") as refusal:
                    call(kind(name=name))
                assert refusal.value.message.replace(name, "") == (
                    " does not exist, or is not yours to see. Check the name"
                )
            with pytest.raises(grpc.RpcError) as caught:
                list(acme.watch(name))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert theirs not in [run.name for run in TestCreate.list(acme)]


class TestWatch:
    def tell(self, desk: Desk, run: wire.TrainingRun, *steps: int) -> None:
        """Have a worker tell of these steps."""
        shop = desk.shop
        claim = None
        while claim is None:
            # Other tests' runs wait as well.
            claims = shop.queue.claim("worker", ["toy"], 1, alone=True)
            assert claims
            claim = next((each for each in claims if each.uid == run.uid), None)
        for step in steps:
            body = {"step": step, "loss": 1.0 / step, "best": True}
            shop.claims.tell(claim, [News(EventKind.VALIDATION, body)], step=step)
        self.claim = claim

    def test_tells_the_past_and_what_comes_and_ends_with_the_run(
        self, desk: Desk, acme: Calls
    ) -> None:
        run = acme.run(**BASE)
        self.tell(desk, run, 1, 2)
        heard: list[wire.WatchTrainingRunResponse] = []
        listening = threading.Thread(target=lambda: heard.extend(acme.watch(run.name)))
        listening.start()
        time.sleep(0.3)
        body = {"step": 3, "loss": 0.1, "best": False}
        desk.shop.claims.tell(self.claim, [News(EventKind.VALIDATION, body)], step=3)
        acme.CancelTrainingRun(wire.CancelTrainingRunRequest(name=run.name))
        desk.shop.claims.cancelled(self.claim)
        listening.join(30)
        assert not listening.is_alive()
        assert [event.sequence for event in heard] == list(range(1, len(heard) + 1))
        states = [event.state_change.state for event in heard if event.HasField("state_change")]
        assert states == [
            wire.TRAINING_RUN_STATE_QUEUED,
            wire.TRAINING_RUN_STATE_RUNNING,
            wire.TRAINING_RUN_STATE_CANCELLING,
            wire.TRAINING_RUN_STATE_CANCELLED,
        ]
        steps = [event.validation.step for event in heard if event.HasField("validation")]
        assert steps == [1, 2, 3]
        found = acme.GetTrainingRun(wire.GetTrainingRunRequest(name=run.name))
        assert [point.step for point in found.validations] == [1, 2, 3]
        assert found.last_sequence == heard[-1].sequence
        # Who was cut off goes on where it was; who knows everything is told so at once.
        for after in range(len(heard) + 1):
            assert list(acme.watch(run.name, after)) == heard[after:]

    def test_a_server_that_ends_lets_its_watchers_go_on_elsewhere(
        self, desk: Desk, acme: Calls, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = acme.run(**BASE)
        self.tell(desk, run, 1)
        events = acme.watch(run.name)
        heard = [next(events) for _ in range(3)]
        monkeypatch.setattr(desk.edge, "draining", True)
        with pytest.raises(grpc.RpcError) as refusal:
            heard.extend(events)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
        monkeypatch.undo()
        desk.shop.claims.cancelled(self.claim)
        rest = list(acme.watch(run.name, heard[-1].sequence))
        assert [each.sequence for each in heard + rest] == list(range(1, len(heard + rest) + 1))

    def test_a_preview_comes_with_its_picture(self, desk: Desk, acme: Calls) -> None:
        run = acme.run(**BASE)
        self.tell(desk, run)
        blob = desk.shop.trainer.vault.put(acme.tenant, b"jpeg")
        news = News(EventKind.PREVIEW, {"step": 1, "prompt": "<>"}, blob)
        desk.shop.claims.tell(self.claim, [news])
        desk.shop.claims.cancelled(self.claim)
        (shown,) = [event.preview for event in acme.watch(run.name) if event.HasField("preview")]
        assert (shown.picture, shown.prompt, shown.step) == (b"jpeg", "<>", 1)
        assert desk.shop.read_state(run.uid) is RunState.CANCELLED
        acme.DeleteTrainingRun(wire.DeleteTrainingRunRequest(name=run.name))
        assert not [b for b in desk.shop.blobs.listing(acme.tenant) if b.digest == blob]
