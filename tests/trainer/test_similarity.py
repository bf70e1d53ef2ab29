"""The similarity curve, from a worker with a real CLIP vision model to whoever watches the run."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import torch
from bases import words_covariance
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from perfuse.attach import BaseModel
from perfuse.v1 import trainer_pb2 as wire
from perfuse_trainer.resources import Run
from perfuse_trainer.runs.run_settings import PreviewSettings
from perfuse_trainer.tables import RUNS
from perfuse_trainer.working import worker as worker_module
from perfuse_trainer.working.working import work
from trainer.served import Installation, Tenant, installed, trainer_storage
from trainer.workshop import Workshop, picture

STEPS, EVERY = 7, 3
SHOWN = [3, 6, 7]
"""Steps with previews: every third, and the last."""

PREVIEWS = PreviewSettings(("a photo of a <>", "<> on the beach"), every=EVERY, steps=2)


@pytest.fixture(scope="module")
def base_directory(tiny_sd15_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(tiny_sd15_dir, home)
    words_covariance(BaseModel.load(home)).write(home)
    return home


@pytest.fixture(scope="module")
def encoder_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP vision checkpoint whose weights are large enough to tell pictures apart."""
    home = tmp_path_factory.mktemp("encoders") / "clip"
    lot = torch.Generator().manual_seed(4)
    model = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            projection_dim=8,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.4, generator=lot)
    model.save_pretrained(home)
    side = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=side).save_pretrained(home)
    return home


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("similarity")


@pytest.fixture(scope="module")
def here(folder: Path) -> Iterator[Installation]:
    with trainer_storage("sqlite+directory", folder) as storage, installed(storage) as found:
        yield found


@pytest.fixture
def acme(here: Installation) -> Tenant:
    return here.tenant()


@pytest.fixture
def settings(
    here: Installation,
    folder: Path,
    base_directory: Path,
    encoder_directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker's, as the environment gives them."""
    for name, value in {
        "DATABASE_URL": here.storage.url,
        "BLOB_DIRECTORY": str(folder / "blobs"),
        "BASE_MODELS": f"tiny={base_directory}",
        "IMAGE_ENCODER": str(encoder_directory),
        "IDLE_SECONDS": "0",
    }.items():
        monkeypatch.setenv(f"PERFUSE_TRAINER_{name}", value)


def queue(acme: Tenant, base: BaseModel) -> Run:
    trainer = acme.installation.trainer
    shop = Workshop(trainer, trainer.database, trainer.vault.blobs, "", Path())
    previews = {"previews": PREVIEWS}
    return shop.run(base, tenant=acme.id, steps=STEPS, settings=previews)


def train(stop: threading.Event | None = None) -> None:
    work("tiny", f"worker-{uuid4().hex}", stop or threading.Event())


def watch(acme: Tenant, run: Run, after: int = 0) -> list[wire.TrainingEvent]:
    """Events until the last step's, whose run then waits for publication."""
    heard = []
    request = wire.WatchTrainingRunRequest(name=str(run.name), after_sequence=after)
    events = acme.call.WatchTrainingRun(request)
    for event in events:
        heard.append(event)
        if event.similarity.step == STEPS:
            events.cancel()
            break
    return heard


def curve(events: list[wire.TrainingEvent]) -> dict[int, float]:
    told = [event.similarity for event in events if event.HasField("similarity")]
    assert len(told) == len({each.step for each in told})
    return {each.step: each.cosine for each in told}


def vectors(directory: Path, pictures: list[Image.Image]) -> torch.Tensor:
    """Unit vectors by transformers alone."""
    processor = CLIPImageProcessor.from_pretrained(directory)
    model = CLIPVisionModelWithProjection.from_pretrained(directory)
    pixels = processor(pictures, return_tensors="pt").pixel_values
    with torch.no_grad():
        embedded = model(pixel_values=pixels).image_embeds
    return embedded / embedded.norm(dim=-1, keepdim=True)


@pytest.mark.usefixtures("settings")
def test_a_watcher_hears_how_alike_previews_are(
    acme: Tenant, base_directory: Path, encoder_directory: Path
) -> None:
    run = queue(acme, BaseModel.load(base_directory))
    train()
    events = watch(acme, run)
    found = curve(events)
    assert list(found) == SHOWN
    assert all(-1.0 <= each <= 1.0 for each in found.values())

    originals = [Image.open(io.BytesIO(picture(index))) for index in range(3)]
    looks = vectors(encoder_directory, originals)
    for step, told in found.items():
        shown = [
            Image.open(io.BytesIO(event.preview.picture))
            for event in events
            if event.HasField("preview") and event.preview.step == step
        ]
        assert len(shown) == len(PREVIEWS.prompts)
        expected = float((vectors(encoder_directory, shown) @ looks.T).mean())
        # The worker compared pictures that no JPEG had been made of.
        assert told == pytest.approx(expected, abs=0.05)

    first = next(event for event in events if event.HasField("similarity"))
    again = watch(acme, run, after=first.sequence)
    assert [event.sequence for event in again] == [
        event.sequence for event in events if event.sequence > first.sequence
    ]
    assert curve(again) == {step: found[step] for step in SHOWN[1:]}


@pytest.mark.usefixtures("settings")
def test_a_run_that_is_taken_up_again_goes_on_with_its_curve(
    acme: Tenant, base_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = BaseModel.load(base_directory)
    run, undisturbed = queue(acme, base), queue(acme, base)
    stop = threading.Event()
    real = worker_module.Pack.step

    def step(pack: Any, loops: Any) -> Any:
        results = real(pack, loops)
        if results[0].step == EVERY + 1:
            stop.set()
        return results

    with monkeypatch.context() as patched:
        patched.setenv("PERFUSE_TRAINER_PACK", "1")
        patched.setattr(worker_module.Pack, "step", step)
        train(stop)
    (row,) = acme.installation.rows(RUNS, uid=run.uid)
    assert row.checkpoint_step == EVERY + 1
    monkeypatch.setenv("PERFUSE_TRAINER_PACK", "1")
    train()
    found = curve(watch(acme, run))
    assert list(found) == SHOWN
    assert found == curve(watch(acme, undisturbed))
