"""Workers killed, foremen replaced, connections cut, at random moments: every run ends the same.

`PERFUSE_TEST_CHAOS_KILLS` kills more often.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from bases import words_covariance
from registry.processes import PAIRS, fresh_place

from perfuse.attach import BaseModel
from perfuse.client.registry import RegistryClient
from perfuse.errors import PerfuseError
from perfuse_trainer.foreman import Foreman
from perfuse_trainer.learning.training import train
from perfuse_trainer.resources import Run, RunState
from perfuse_trainer.runs.publisher import Publisher
from perfuse_trainer.runs.run_settings import PreviewSettings, RunSettings
from perfuse_trainer.runs.staff import Staff
from perfuse_trainer.sets.image_sets import kept_pictures
from perfuse_trainer.sweeping import Sweeper
from perfuse_trainer.working.working import STALLED
from trainer.chaos import cut_connections
from trainer.forge import Forge
from trainer.forging import ForgeRunner
from trainer.registry_beside import RegistryBeside, registry_beside
from trainer.workshop import BACKENDS, Workshop, workshop

SECONDS = 240.0
KILLS = int(os.environ.get("PERFUSE_TEST_CHAOS_KILLS", "7"))
STEPS = 30


@pytest.fixture(scope="module")
def model(tiny_sd15_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared tiny base on disk, as a worker loads it."""
    home = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(tiny_sd15_dir, home)
    words_covariance(BaseModel.load(home)).write(home)
    return home


@pytest.fixture(scope="module")
def base(model: Path) -> Iterator[BaseModel]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield BaseModel.load(model)
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def forge() -> Iterator[Forge]:
    made = Forge("trainer.worker_forge")
    yield made
    made.close()


@dataclass
class Installation:
    """A Trainer without its front door, beside a real Registry."""

    shop: Workshop
    runner: ForgeRunner
    registry: RegistryBeside

    def foreman(self, client: RegistryClient) -> Foreman:
        trainer = self.shop.trainer
        return Foreman(
            self.shop.queue,
            self.runner,
            Publisher(self.shop.database, trainer.vault, client, self.registry.authorization),
            trainer.vault,
            lambda: None,
            Staff(self.shop.database, self.shop.lease),
            workers=2,
            pack=1,
            base_models=frozenset({"tiny"}),
        )


@contextmanager
def installed(
    dialect: str, folder: Path, model: Path, base: BaseModel, forge: Forge
) -> Iterator[Installation]:
    pair = PAIRS[BACKENDS.index(dialect)]
    (folder / "registry").mkdir()
    with (
        workshop(dialect, folder) as shop,
        fresh_place(pair, folder / "registry") as place,
        registry_beside(place, base) as registry,
    ):
        shop.lease, shop.max_faults = timedelta(seconds=1), 1000
        runner = ForgeRunner(environment(shop, model), forge)
        try:
            yield Installation(shop, runner, registry)
        finally:
            runner.close(5.0)


def environment(shop: Workshop, model: Path) -> dict[str, str]:
    """A worker's settings; the lease is short, so that deaths are noticed soon."""
    told = {
        "PERFUSE_TRAINER_DATABASE_URL": shop.url,
        "PERFUSE_TRAINER_BASE_MODELS": f"tiny={model}",
        "PERFUSE_TRAINER_LEASE_SECONDS": "1",
        "PERFUSE_TRAINER_PACK": "1",
        "PERFUSE_TRAINER_CHECKPOINT_EVERY": "3",
        "PERFUSE_TRAINER_IDLE_SECONDS": "0.5",
        "PERFUSE_TRAINER_LOG_LEVEL": "error",
    }
    return told | shop.store_environment()


def train_alone(shop: Workshop, base: BaseModel, run: Run) -> bytes:
    key = shop.row(run).image_set
    pictures = kept_pictures(shop.database, shop.trainer.vault, key)
    return train(base, pictures, RunSettings.from_json(run.settings).training).to_bytes()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("dialect", BACKENDS)
def test_every_run_ends_with_the_bytes_of_an_undisturbed_one(
    dialect: str, tmp_path: Path, model: Path, base: BaseModel, forge: Forge
) -> None:
    lot = random.Random(7)
    with installed(dialect, tmp_path, model, base, forge) as there:
        shop = there.shop
        images = shop.image_set(keep=True)
        # One of them draws as well, so that its version is more than its adapter.
        drawing = {"previews": PreviewSettings(("a photo of a <>",), every=STEPS // 2, steps=1)}
        runs = [
            shop.run(
                base,
                images=images,
                concept=concept,
                steps=STEPS,
                seed=index,
                settings=drawing if index == 0 else None,
            )
            for index, concept in enumerate(there.registry.concepts)
        ]
        expected = [train_alone(shop, base, run) for run in runs]
        kills = asyncio.run(disturbed(there, runs, lot, dialect))
        assert kills >= KILLS * 2 // 3
        for run, adapter in zip(runs, expected, strict=True):
            found = shop.read(run)
            assert found.state is RunState.SUCCEEDED, found
            (version,) = there.registry.versions(run.concept_id)
            assert version.name == str(found.version)
            assert there.registry.adapter(version.name) == adapter
            assert version.training_run == str(run.name)
        whole = there.registry.version(str(shop.read(runs[0]).version))
        assert [each.step for each in whole.previews] == [STEPS // 2, STEPS]
        assert all(there.registry.preview(whole.name, each.digest) for each in whole.previews)
        assert [(each.step, each.validation_loss) for each in whole.curve] == [
            (each.step, each.loss) for each in shop.read(runs[0]).validations
        ]
        # What died between a commit and the deletion of what it freed is swept. Then there are
        # the images and the drawn pictures, which are kept, and no checkpoint and no adapter.
        at_once = {"grace": timedelta(0), "upload_limit": timedelta(0)}
        Sweeper(shop.database, shop.trainer.vault, **at_once).sweep()
        pictures = sum(event.blob is not None for run in runs for event in shop.events(run))
        assert shop.files() == 3 + pictures


async def disturbed(
    there: Installation, runs: list[Run], lot: random.Random, dialect: str, most: int = KILLS
) -> int:
    """Let foremen turn until every run has ended, and kill whatever there is meanwhile."""
    kills = 0
    until = time.monotonic() + SECONDS
    next_kill = time.monotonic() + lot.uniform(0.5, 2.0)
    async with RegistryClient(there.registry.server.target) as client:
        foreman = there.foreman(client)
        while not all(there.shop.read(run).state.is_final for run in runs):
            assert time.monotonic() < until, [there.shop.read(run) for run in runs]
            with suppress(PerfuseError):
                await foreman.turn()
            if time.monotonic() > next_kill and kills < most:
                kills += disturb(there, lot, dialect)
                next_kill = time.monotonic() + lot.uniform(0.1, 1.5)
                if lot.random() < 0.3:
                    # A Trainer that died and was started again knows nothing of the one before.
                    foreman = there.foreman(client)
            await asyncio.sleep(0.1)
    return kills


def disturb(there: Installation, lot: random.Random, dialect: str) -> int:
    if dialect == "postgresql" and lot.random() < 0.3:
        cut_connections(there.shop.url)
        return 1
    pids = there.runner.pids
    if not pids:
        return 0
    with suppress(ProcessLookupError):
        os.kill(lot.choice(pids), signal.SIGKILL)
        return 1
    return 0


def test_a_worker_that_hangs_ends_and_another_goes_on(
    tmp_path: Path, model: Path, base: BaseModel, forge: Forge
) -> None:
    with installed("sqlite", tmp_path, model, base, forge) as there:
        run = there.shop.run(base, concept=there.registry.concepts[0])
        expected = train_alone(there.shop, base, run)
        there.runner.hang = True
        there.runner.start("tiny")
        (hung,) = there.runner.pids
        there.runner.hang = False
        # Nobody ends it, and nobody else is told that it hangs.
        assert forge.wait(hung) == STALLED
        assert there.shop.row(run).attempt == 1
        asyncio.run(disturbed(there, [run], random.Random(0), "sqlite", most=0))
        assert there.shop.row(run).attempt == 2
        assert there.registry.adapter(str(there.shop.read(run).version)) == expected
