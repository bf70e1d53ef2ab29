"""A Ray cluster, Trainers and their database, killed at random: every run ends as if undisturbed.

`PERFUSE_TEST_CHAOS_SEED` chooses another course, on either database, and
`PERFUSE_TEST_CHAOS_KILLS` more of it; a failure prints both, with every kill and its moment.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from bases import words_covariance
from sqlalchemy import select

from perfuse.attach import BaseModel
from perfuse_trainer.learning.training import train
from perfuse_trainer.resources import EventKind, Run, RunState
from perfuse_trainer.runs.run_settings import RunSettings
from perfuse_trainer.sets.image_sets import kept_pictures
from perfuse_trainer.sweeping import Sweeper
from perfuse_trainer.tables import EVENTS, IMAGES, RUNS
from trainer.chaos import Chaos, connections, disturb
from trainer.ray_cluster import RayCluster
from trainer.ray_installation import Installation, eventually, installed, queued
from trainer.workshop import BACKENDS, Workshop

SEED = int(os.environ.get("PERFUSE_TEST_CHAOS_SEED", "11"))
KILLS = int(os.environ.get("PERFUSE_TEST_CHAOS_KILLS", "4"))
SECONDS = 60.0 * (KILLS + 2)
DIALECTS = BACKENDS if "PERFUSE_TEST_CHAOS_SEED" in os.environ else ("postgresql",)
"""Where there is time for it, both; with Ray it is PostgreSQL that matters."""
NODES = 2
SERVERS = {"sqlite": 1, "postgresql": 2}
"""SQLite is one machine's, and one Trainer's."""


@pytest.fixture(scope="module")
def model(tiny_sd15_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared tiny base on disk, as a worker loads it."""
    home = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(tiny_sd15_dir, home)
    words_covariance(BaseModel.load(home)).write(home)
    return home


@pytest.fixture(scope="module")
def base(model: Path) -> Iterator[BaseModel]:
    """In float64, so that a run in any pack has the bytes of a run alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield BaseModel.load(model, dtype=torch.float64)
    torch.set_num_threads(before)


def alone(shop: Workshop, base: BaseModel, run: Run) -> Callable[[], bytes]:
    """Trains as a run does, without any service; everything is read at once."""
    pictures = kept_pictures(shop.database, shop.trainer.vault, shop.row(run).image_set)
    training = RunSettings.from_json(run.settings).training
    return lambda: train(base, pictures, training).to_bytes()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_run_ends_with_the_bytes_of_an_undisturbed_one(
    dialect: str, tmp_path: Path, model: Path, base: BaseModel
) -> None:
    print(f"PERFUSE_TEST_CHAOS_SEED={SEED} PERFUSE_TEST_CHAOS_KILLS={KILLS}")
    cluster = RayCluster(NODES)
    try:
        with installed(dialect, tmp_path, model, base, cluster) as there:
            disturbed(there, base, Chaos(there, random.Random(SEED)), dialect)
    finally:
        cluster.close()
    assert cluster.processes() == []


def disturbed(there: Installation, base: BaseModel, chaos: Chaos, dialect: str) -> None:
    shop = there.shop
    runs = queued(there, base)
    lessons = [alone(shop, base, run) for run in runs]
    plan = chaos.plan(KILLS, connections=dialect == "postgresql")
    kinds = set(plan)
    there.servers = [there.begin_server() for _ in range(SERVERS[dialect])]
    with ThreadPoolExecutor(1) as thread:
        learnt = [thread.submit(lesson) for lesson in lessons]
        disturb(there, runs, chaos, plan, SECONDS)
        expected = [each.result() for each in learnt]
    assert set(chaos.struck) == kinds, chaos.struck

    published: set[str] = set()
    for run, adapter in zip(runs, expected, strict=True):
        found = shop.read(run)
        assert found.state is RunState.SUCCEEDED, found
        (version,) = there.versions(run)
        assert version.name == str(found.version)
        assert version.training_run == str(run.name)
        assert there.adapter(version.name) == adapter
        check_events(shop, run)
        published |= {version.digest, *check_previews(there, run, version.name)}
    leaves_nothing(there, dialect, published)


def check_events(shop: Workshop, run: Run) -> None:
    """Numbers without a gap, one ending, and a whole validation curve."""
    events = shop.events(run)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    states = [event.body["state"] for event in events if event.kind is EventKind.STATE]
    assert (states[0], states[-1]) == ("QUEUED", "SUCCEEDED")
    assert states.count("SUCCEEDED") == 1
    steps = RunSettings.from_json(run.settings).training.steps
    wanted = sorted({*range(12, steps + 1, 12), steps})
    assert [point.step for point in shop.read(run).validations] == wanted


def check_previews(there: Installation, run: Run, version: str) -> list[str]:
    """Digests of a version's previews, which are those that the run told of, each once."""
    told = {
        (event.body["step"], event.body["prompt"])
        for event in there.shop.events(run)
        if event.kind is EventKind.PREVIEW
    }
    found = there.previews(version)
    assert [(each.step, each.caption) for each in found] == sorted(told)
    return [each.digest for each in found]


def leaves_nothing(there: Installation, dialect: str, published: set[str]) -> None:
    """Servers told to end leave no worker, no lease, no connection and no file of nobody's."""
    shop = there.shop
    # One that was killed last may still be on its way back.
    there.servers = [pid for pid in there.servers if there.forge.status(pid) is None]
    # One ends as told; the other's own node dies under it, so that it must be started again.
    told, *others = there.servers
    os.kill(told, signal.SIGTERM)
    assert there.forge.wait(told) == 0, there.told()
    os.kill(there.cluster.head, signal.SIGKILL)
    for pid in others:
        assert there.forge.wait(pid) == 1, there.told()
    assert not others or "the node of Ray's under this Trainer has died" in there.told()
    idle = {"cpus": NODES, "free": NODES, "actors": 0}
    eventually(lambda: there.cluster.free() == idle, there)
    eventually(lambda: not there.cluster.workers(), there)
    read = shop.database.read
    rows = read(lambda connection: connection.execute(select(RUNS)).all())
    for row in rows:
        left = (row.worker, row.lease_time, row.checkpoint_blob, row.adapter_blob)
        assert left == (None,) * 4
    # What died between a commit and the deletion of what it freed is swept.
    at_once = {"grace": timedelta(0), "upload_limit": timedelta(0)}
    Sweeper(shop.database, shop.trainer.vault, **at_once).sweep()
    named: set[str] = set()
    for column in (IMAGES.c.blob, EVENTS.c.blob):
        chosen = select(column).where(column.is_not(None))
        named |= set(read(lambda connection, chosen=chosen: connection.execute(chosen).scalars()))  # type: ignore[misc]
    assert {blob.digest for blob in shop.blobs.listing()} == named
    assert list(shop.blobs.strays()) == []
    store = there.place.store()
    assert {blob.digest for blob in store.listing()} == published
    assert list(store.strays()) == []
    if dialect == "postgresql":
        shop.database.close()
        eventually(lambda: connections(shop.url) == 0, there)
