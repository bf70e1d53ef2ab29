"""Workers on real tables: what comes of a run is what training alone gives, whatever happens."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from perfuse.adapter import Adapter, digest
from perfuse.attach import BaseModel
from perfuse.errors import Unavailable
from perfuse.method import KeyLock
from perfuse.storage.requests import Mutation
from perfuse_trainer.learning.mask_source import MaskSource
from perfuse_trainer.learning.training import train
from perfuse_trainer.resources import EventKind, Run, RunState
from perfuse_trainer.runs.run_settings import PreviewSettings, RunSettings
from perfuse_trainer.sets.image_sets import kept_pictures
from perfuse_trainer.working import worker as worker_module
from trainer.workshop import Workshop

_ALONE: dict[tuple[str, int, bool], bytes] = {}


def alone(shop: Workshop, base: BaseModel, run: Run) -> bytes:
    """The adapter that the run's settings and images give without any service."""
    settings = RunSettings.from_json(run.settings)
    key = shop.row(run).image_set
    pictures = kept_pictures(shop.database, shop.trainer.vault, key)
    # Settings and number say it all: every test's first picture is the same, and so on.
    asked = (
        json.dumps(run.settings, sort_keys=True),
        len(pictures),
        any(picture.mask is not None for picture in pictures),
    )
    if asked not in _ALONE:
        adapter = train(base, pictures, settings.training, mask_source=settings.mask_source)
        _ALONE[asked] = adapter.to_bytes()
    return _ALONE[asked]


def states(shop: Workshop, run: Run) -> list[str]:
    return [event.body["state"] for event in shop.events(run) if event.kind is EventKind.STATE]


class TestTraining:
    def test_a_run_gives_the_bytes_of_training_alone(self, shop: Workshop, base: BaseModel) -> None:
        run = shop.run(base, key_lock=KeyLock.TRAINED_K)
        expected = alone(shop, base, run)
        shop.work(base)
        assert shop.adapter(run) == expected
        row = shop.row(run)
        assert row.digest == digest(expected)
        assert (row.state, row.worker, row.lease_time) == ("RUNNING", None, None)
        assert Adapter.from_bytes(expected).metadata.placeholder == "tom"

    def test_events_tell_the_whole_course(self, shop: Workshop, base: BaseModel) -> None:
        previews = PreviewSettings(("a photo of a <>", "<> on the beach"), every=3, steps=2)
        run = shop.run(base, settings={"previews": previews})
        shop.work(base)
        events = shop.events(run)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert states(shop, run) == ["QUEUED", "RUNNING"]
        validated = [event.body for event in events if event.kind is EventKind.VALIDATION]
        assert [body["step"] for body in validated] == [3, 6]
        assert [point.step for point in shop.read(run).validations] == [3, 6]
        shown = [event for event in events if event.kind is EventKind.PREVIEW]
        assert [(event.body["step"], event.body["prompt"]) for event in shown] == [
            (step, prompt) for step in (3, 6) for prompt in previews.prompts
        ]
        for event in shown:
            assert event.blob is not None
            assert shop.trainer.runs.preview("acme", event.blob).startswith(b"\xff\xd8\xff")
        assert shop.read(run).step == 6

    def test_masks_come_with_the_images(self, shop: Workshop, base: BaseModel) -> None:
        images = shop.image_set(masks=True)
        run = shop.run(base, images=images, settings={"mask_source": MaskSource.UPLOADED})
        expected = alone(shop, base, run)
        shop.work(base)
        assert shop.adapter(run) == expected

    def test_runs_of_one_pack_are_close_to_those_alone(
        self, shop: Workshop, base: BaseModel
    ) -> None:
        runs = [shop.run(base, concept=name, steps=4 + index) for index, name in enumerate("abc")]
        expected = [Adapter.from_bytes(alone(shop, base, run)) for run in runs]
        shop.work(base, pack=3)
        for run, wanted in zip(runs, expected, strict=True):
            found = Adapter.from_bytes(shop.adapter(run))
            torch.testing.assert_close(found.value_output, wanted.value_output, atol=2e-2, rtol=0)


class TestInterruptions:
    @pytest.mark.parametrize("after", [1, 2, 5])
    def test_a_run_given_back_goes_on_where_it_was(
        self, shop: Workshop, base: BaseModel, after: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = shop.run(base)
        expected = alone(shop, base, run)
        stop = threading.Event()
        after_steps(monkeypatch, after, stop.set)
        shop.worker(base).run(stop)
        assert states(shop, run) == ["QUEUED", "RUNNING", "QUEUED"]
        assert shop.row(run).checkpoint_step == after
        monkeypatch.undo()
        shop.work(base)
        assert shop.adapter(run) == expected
        assert shop.row(run).attempt == 2

    @pytest.mark.parametrize("moment", [0, 1, 3, 5])
    def test_a_cancelled_run_makes_no_further_step(
        self, shop: Workshop, base: BaseModel, moment: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, other = shop.run(base, concept="tom"), shop.run(base, concept="rex")
        counted = after_steps(monkeypatch, moment, lambda: cancel(shop, run))
        if moment == 0:
            cancel(shop, run)
        shop.work(base, pack=2)
        assert shop.read(run).state is RunState.CANCELLED
        # The step in which the cancel fell was its last.
        assert counted.get("tom", 0) == moment
        assert counted["rex"] == 6
        assert shop.adapter(other)
        assert shop.read(run).version is None
        assert shop.row(run).checkpoint_blob is None

    def test_a_worker_that_lost_its_lease_writes_nothing(
        self, shop: Workshop, base: BaseModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = shop.run(base)
        expected = alone(shop, base, run)
        other = shop.worker(base)

        def lose() -> None:
            # The first worker sleeps through its lease, and another finishes the run.
            with shop.database.engine.begin() as connection:
                connection.exec_driver_sql("UPDATE training_runs SET lease_time = 1")
            shop.queue.reap()
            monkeypatch.undo()
            other.run(threading.Event())

        after_steps(monkeypatch, 2, lose)
        shop.work(base)
        assert shop.adapter(run) == expected
        assert states(shop, run) == ["QUEUED", "RUNNING", "QUEUED", "RUNNING"]
        steps = [event.body["step"] for event in shop.events(run) if "loss" in event.body]
        assert steps.count(6) <= 2

    def test_a_database_away_for_a_while_costs_nothing(
        self, shop: Workshop, base: BaseModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = shop.run(base)
        expected = alone(shop, base, run)
        away = {"calls": 0}
        for name in ("read", "transact"):
            monkeypatch.setattr(shop.database, name, failing(getattr(shop.database, name), away))
        shop.work(base)
        assert away["calls"] > 20
        assert shop.adapter(run) == expected
        assert shop.row(run).attempt == 1


class TestFailures:
    def test_a_run_that_leaves_the_finite_numbers_fails_alone(
        self, shop: Workshop, base: BaseModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        good, bad = shop.run(base, concept="good"), shop.run(base, concept="bad")
        spoiled: list[Any] = []
        real = worker_module.Pack.step

        def step(pack: Any, loops: Any) -> Any:
            results = real(pack, loops)
            if not spoiled:
                spoiled.extend(
                    each for each in loops if each.adapter().metadata.placeholder == "bad"
                )
                with torch.no_grad():
                    spoiled[0].learning.value_output.fill_(float("inf"))
            return results

        monkeypatch.setattr(worker_module.Pack, "step", step)
        shop.work(base, pack=2)
        found = shop.read(bad)
        assert (found.state, found.error_reason) == (RunState.FAILED, "TRAINING_DIVERGED")
        assert "output_rate" in found.error_message
        assert shop.adapter(good)

    def test_another_base_model_than_was_registered(self, shop: Workshop, base: BaseModel) -> None:
        run = shop.run(None)
        shop.work(base)
        found = shop.read(run)
        assert (found.state, found.error_reason) == (RunState.FAILED, "BASE_MODEL_MISMATCH")
        assert base.fingerprint in found.error_message
        assert found.end_time is not None

    def test_a_prompt_that_cannot_be_encoded_fails_before_the_first_step(
        self, shop: Workshop, base: BaseModel
    ) -> None:
        previews = PreviewSettings(("<> " + "cat " * 200,))
        run = shop.run(base, settings={"previews": previews})
        shop.work(base)
        found = shop.read(run)
        assert (found.state, found.error_reason) == (RunState.FAILED, "PROMPT_REFUSED")
        assert found.step == 0

    def test_lost_images_are_named(self, shop: Workshop, base: BaseModel) -> None:
        run = shop.run(base)
        for blob in shop.blobs.listing():
            shop.blobs.delete(blob.tenant, blob.digest)
            break
        shop.work(base)
        found = shop.read(run)
        assert (found.state, found.error_reason) == (RunState.FAILED, "DATA_LOSS")

    def test_memory_that_holds_one_run_but_not_two(
        self, shop: Workshop, base: BaseModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        runs = [shop.run(base, concept=name) for name in ("a", "b", "c")]
        expected = [alone(shop, base, run) for run in runs]
        real = worker_module.Pack.step

        def cramped(pack: Any, loops: Any) -> Any:
            if len(loops) > 1:
                raise torch.OutOfMemoryError("no room")
            return real(pack, loops)

        monkeypatch.setattr(worker_module.Pack, "step", cramped)
        shop.work(base, pack=3)
        assert [shop.adapter(run) for run in runs] == expected

    def test_memory_that_holds_no_run(
        self, shop: Workshop, base: BaseModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = shop.run(base)

        def full(pack: Any, loops: Any) -> Any:
            raise torch.OutOfMemoryError("no room")

        monkeypatch.setattr(worker_module.Pack, "step", full)
        shop.work(base)
        found = shop.read(run)
        assert (found.state, found.error_reason) == (RunState.FAILED, "RESOURCE_EXHAUSTED")
        assert "batch" in found.error_message

    def test_a_fault_of_ours_tells_no_trace(
        self, shop: Workshop, base: BaseModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = shop.run(base)

        def faulty(pack: Any, loops: Any) -> Any:
            raise RuntimeError("canary")

        monkeypatch.setattr(worker_module.Pack, "step", faulty)
        shop.work(base)
        found = shop.read(run)
        assert (found.state, found.error_reason) == (RunState.FAILED, "INTERNAL")
        assert "canary" not in found.error_message


class TestFiles:
    def test_a_run_that_ends_leaves_no_files(
        self, shop: Workshop, base: BaseModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = shop.run(base)
        after_steps(monkeypatch, 4, lambda: cancel(shop, run))
        shop.work(base, checkpoint_every=1)
        assert shop.read(run).state is RunState.CANCELLED
        assert shop.files() == 0

    def test_images_that_are_kept_stay(self, shop: Workshop, base: BaseModel) -> None:
        run = shop.run(base, images=shop.image_set(keep=True))
        cancel(shop, run)
        assert shop.files() == 3

    def test_a_checkpoint_takes_the_place_of_the_one_before(
        self, shop: Workshop, base: BaseModel
    ) -> None:
        shop.run(base)
        shop.work(base, checkpoint_every=1)
        # Three images, the last checkpoint, the adapter.
        assert shop.files() == 5


def cancel(shop: Workshop, run: Run) -> None:
    shop.trainer.runs.cancel(Mutation(run.tenant, "tester"), run.name)


def after_steps(
    monkeypatch: pytest.MonkeyPatch, count: int, act: Callable[[], None]
) -> dict[str, int]:
    """Act once, right after so many steps; counts the steps of each placeholder."""
    real = worker_module.Pack.step
    counted: dict[str, int] = {}
    done = threading.Event()

    def step(pack: Any, loops: Any) -> Any:
        results = real(pack, loops)
        for loop in loops:
            name = loop.adapter().metadata.placeholder
            counted[name] = counted.get(name, 0) + 1
        if not done.is_set() and max(counted.values()) == count:
            done.set()
            act()
        return results

    monkeypatch.setattr(worker_module.Pack, "step", step)
    return counted


def failing(real: Callable[..., Any], away: dict[str, int]) -> Callable[..., Any]:
    """The real thing, except that some calls in the middle find nobody."""

    def call(*arguments: Any) -> Any:
        away["calls"] += 1
        if 8 <= away["calls"] <= 20:
            raise Unavailable("the database does not answer")
        return real(*arguments)

    return call
