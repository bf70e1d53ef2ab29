"""What of a run becomes part of its version: bounded, even, the same at each try, never half."""

from __future__ import annotations

import asyncio
import itertools
import math
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bases import words_covariance
from hypothesis import given
from hypothesis import strategies as some
from registry.processes import fresh_place

from perfuse.adapter import digest
from perfuse.attach import BaseModel
from perfuse.client.attachments import (
    MAX_CURVE_POINTS,
    MAX_PREVIEW_BYTES,
    MAX_PREVIEWS,
    MAX_PREVIEWS_BYTES,
    CurvePoint,
)
from perfuse.client.registry import RegistryClient
from perfuse.v1 import registry_pb2 as wire
from perfuse_trainer.resources import EventKind, RunState
from perfuse_trainer.runs.attachments import chosen_points, chosen_previews, evenly
from perfuse_trainer.runs.publisher import Publisher
from perfuse_trainer.runs.run_settings import PreviewSettings
from trainer.registry_beside import RegistryBeside, registry_beside
from trainer.workshop import Workshop, workshop

PREVIEWS = PreviewSettings(("a photo of a <>", "<> on the beach"), every=3, steps=1)
SIZES = some.sampled_from([1, 1000, 300_000, MAX_PREVIEW_BYTES, MAX_PREVIEW_BYTES + 1])


class TestChoice:
    @given(some.dictionaries(some.integers(0, 20_000), some.lists(SIZES, max_size=4), max_size=40))
    def test_previews_stay_within_every_bound_and_those_of_the_end_stay(
        self, sizes: dict[int, list[int]]
    ) -> None:
        drawn = {
            step: {f"prompt {at}": f"{step} {at} {size}" for at, size in enumerate(each)}
            for step, each in sizes.items()
        }

        def read(blob: str) -> bytes:
            return bytes(int(blob.rpartition(" ")[2]))

        chosen = chosen_previews(drawn, read)
        assert len(chosen) <= MAX_PREVIEWS
        assert sum(len(picture) for picture, _, _ in chosen) <= MAX_PREVIEWS_BYTES
        steps = [step for _, step, _ in chosen]
        assert steps == sorted(steps)
        assert all(0 < len(picture) <= MAX_PREVIEW_BYTES for picture, _, _ in chosen)
        known = [step for step, each in sizes.items() if each]
        fit = [size for size in sizes[max(known)] if size <= MAX_PREVIEW_BYTES] if known else []
        if sum(fit) <= MAX_PREVIEWS_BYTES:
            assert [len(each) for each, step, _ in chosen if step == max(known, default=0)] == fit

    def test_a_preview_that_is_lost_is_left_out(self) -> None:
        drawn = {1: {"a": "lost", "b": "there"}, 2: {"a": "there too"}}
        found = chosen_previews(drawn, lambda blob: None if blob == "lost" else blob.encode())
        assert found == [(b"there", 1, "b"), (b"there too", 2, "a")]

    @given(some.lists(some.none() | some.floats(0, 10) | some.just(math.nan), max_size=600))
    def test_a_curve_keeps_its_ends_and_its_best(self, losses: list[float | None]) -> None:
        curve = [
            CurvePoint(step=step, validation_loss=each, similarity=0.5)
            for step, each in enumerate(losses)
        ]
        sound = [each for each in curve if not math.isnan(each.validation_loss or 0.0)]
        chosen = chosen_points(curve)
        assert len(chosen) <= MAX_CURVE_POINTS
        if len(sound) <= MAX_CURVE_POINTS:
            assert chosen == sound
        steps = [point.step for point in chosen]
        assert steps == sorted(set(steps))
        known = [each.validation_loss for each in sound if each.validation_loss is not None]
        if sound:
            assert (chosen[0], chosen[-1]) == (sound[0], sound[-1])
        if known:
            kept = [each.validation_loss for each in chosen if each.validation_loss is not None]
            assert min(kept) == min(known)

    @given(some.integers(0, 50), some.integers(1, 50))
    def test_even_ones_are_as_many_as_asked_for(self, length: int, count: int) -> None:
        chosen = evenly(range(length), count)
        assert len(set(chosen)) == len(chosen) == min(length, count)
        if length:
            assert chosen[-1] == length - 1
        gaps = {after - before for before, after in itertools.pairwise(chosen)}
        assert not gaps or max(gaps) - min(gaps) <= 1


@pytest.fixture(scope="module")
def base(tiny_sd15_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseModel]:
    home = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(tiny_sd15_dir, home)
    words_covariance(BaseModel.load(home)).write(home)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield BaseModel.load(home)
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with workshop("sqlite", tmp_path_factory.mktemp("trainer")) as made:
        yield made


@pytest.fixture(scope="module")
def registry(base: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryBeside]:
    with (
        fresh_place("sqlite+directory", tmp_path_factory.mktemp("registry")) as place,
        registry_beside(place, base) as found,
    ):
        yield found


def publish(shop: Workshop, registry: RegistryBeside) -> int:
    async def once() -> int:
        async with RegistryClient(registry.server.target) as client:
            vault = shop.trainer.vault
            return await Publisher(shop.database, vault, client, registry.authorization).publish()

    return asyncio.run(once())


class TestPublication:
    def test_the_version_has_what_the_run_told(
        self, shop: Workshop, registry: RegistryBeside, base: BaseModel
    ) -> None:
        run = shop.run(base, concept=registry.concepts[0], settings={"previews": PREVIEWS})
        shop.work(base)
        told = shop.events(run)
        assert publish(shop, registry) == 1
        version = registry.version(str(shop.read(run).version))
        drawn = [event for event in told if event.kind is EventKind.PREVIEW]
        assert [(each.step, each.caption) for each in version.previews] == [
            (event.body["step"], event.body["prompt"]) for event in drawn
        ]
        assert len(drawn) == 4
        for preview, event in zip(version.previews, drawn, strict=True):
            picture = shop.trainer.runs.preview("acme", event.blob or "")
            assert preview.digest == digest(picture)
            assert registry.preview(version.name, preview.digest) == picture
        looked = [event.body for event in told if event.kind is EventKind.VALIDATION]
        assert [(each.step, each.validation_loss) for each in version.curve] == [
            (body["step"], body["loss"]) for body in looked
        ]
        assert len(looked) == 2

    def test_what_an_earlier_release_published_is_not_published_again(
        self, shop: Workshop, registry: RegistryBeside, base: BaseModel
    ) -> None:
        run = shop.run(base, concept=registry.concepts[1], settings={"previews": PREVIEWS})
        shop.work(base)
        adapter = shop.adapter(run)
        earlier = registry.stub.CreateVersion(
            wire.CreateVersionRequest(
                parent=f"tenants/acme/concepts/{run.concept_id}",
                adapter=adapter,
                digest=digest(adapter),
                version=wire.Version(training_run=str(run.name)),
                request_id=run.uid,
            )
        )
        assert publish(shop, registry) == 1
        found = shop.read(run)
        assert (found.state, str(found.version)) == (RunState.SUCCEEDED, earlier.name)
        assert [each.name for each in registry.versions(run.concept_id)] == [earlier.name]
