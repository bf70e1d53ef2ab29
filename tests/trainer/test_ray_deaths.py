"""A Ray cluster, Trainers and their database, killed at random: every run ends as if undisturbed.

`PERFUSE_TEST_CHAOS_SEED` chooses another course, on either database, and
`PERFUSE_TEST_CHAOS_KILLS` more of it; a failure prints both, with every kill and its moment.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import psutil
import psycopg
import pytest
import torch
from bases import words_covariance
from registry.processes import PAIRS, Place, ServerProcess, fresh_place, start
from registry.processes import _home as tokens_home
from sqlalchemy import select
from sqlalchemy.engine import make_url
from storage.databases import postgres_server

from perfuse.attach import BaseModel
from perfuse.errors import PerfuseError
from perfuse.method import KeyLock
from perfuse.serving.tokens import mint
from perfuse.v1 import registry_pb2 as wire
from perfuse_trainer.learning.training import train
from perfuse_trainer.resources import EventKind, Run, RunState
from perfuse_trainer.runs.run_settings import PreviewSettings, RunSettings
from perfuse_trainer.sets.image_sets import kept_pictures
from perfuse_trainer.sweeping import Sweeper
from perfuse_trainer.tables import EVENTS, IMAGES, RUNS
from trainer.forge import Forge
from trainer.ray_cluster import RayCluster
from trainer.workshop import BACKENDS, Workshop, workshop

SEED = int(os.environ.get("PERFUSE_TEST_CHAOS_SEED", "11"))
KILLS = int(os.environ.get("PERFUSE_TEST_CHAOS_KILLS", "6"))
SECONDS = 60.0 * (KILLS + 2)
DIALECTS = BACKENDS if "PERFUSE_TEST_CHAOS_SEED" in os.environ else ("postgresql",)
"""Where there is time for it, both; with Ray it is PostgreSQL that matters."""
NODES, SERVERS = 2, 2
TENANTS = ("acme", "rival")
ACTOR, SERVER, NODE, CONNECTIONS = "actor", "server", "node", "connections"


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


@dataclass
class Installation:
    """Two Trainers on one database and one Ray cluster, beside a Registry.

    Attributes:
        servers: process ids of those that shall run, by their places.
    """

    shop: Workshop
    registry: ServerProcess
    place: Place
    cluster: RayCluster
    forge: Forge
    environment: dict[str, str]
    log: Path
    servers: list[int] = field(default_factory=list)

    def begin_server(self) -> int:
        """A new Trainer; it takes its time to come up."""
        return self.forge.fork(environment=self.environment, log=str(self.log))

    def adapter(self, version: str) -> bytes:
        """A version's bytes."""
        request = wire.DownloadAdapterRequest(name=version)
        return bytes(self.registry.stub(_token(_tenant(version))).DownloadAdapter(request).adapter)

    def versions(self, run: Run) -> list[wire.Version]:
        """All of the concept that a run learns."""
        concept = f"tenants/{run.tenant}/concepts/{run.concept_id}"
        request = wire.ListVersionsRequest(parent=concept)
        return list(self.registry.stub(_token(run.tenant)).ListVersions(request).versions)

    def told(self) -> str:
        """The end of the Trainers' log."""
        return self.log.read_text()[-6000:]


def _tenant(name: str) -> str:
    return name.split("/")[1]


def _token(tenant: str) -> str:
    return mint(tokens_home() / "tokens", tenant, "tester", ["admin", "operator"])


@contextmanager
def installed(
    dialect: str, home: Path, model: Path, base: BaseModel, cluster: RayCluster
) -> Iterator[Installation]:
    pair = PAIRS[BACKENDS.index(dialect)]
    (home / "registry").mkdir()
    with workshop(dialect, home) as shop, fresh_place(pair, home / "registry") as place:
        registry = start(place)
        forge = Forge("trainer.server_forge", cluster.environment)
        delegate = mint(tokens_home() / "tokens", "platform", "trainer", ["delegate"])
        environment = {
            "PERFUSE_TRAINER_BIND": "127.0.0.1:0",
            "PERFUSE_TRAINER_DATABASE_URL": shop.url,
            "PERFUSE_TRAINER_BASE_MODELS": f"tiny={model}",
            "PERFUSE_TRAINER_REGISTRY": registry.target,
            "PERFUSE_TRAINER_REGISTRY_TOKEN": delegate,
            "PERFUSE_TRAINER_TOKEN_FILE": str(tokens_home() / "tokens"),
            "PERFUSE_TRAINER_RUNNER": "ray",
            "PERFUSE_TRAINER_RAY_ADDRESS": cluster.address,
            "PERFUSE_TRAINER_WORKERS": "2",
            "PERFUSE_TRAINER_PACK": "3",
            "PERFUSE_TRAINER_DTYPE": "float64",
            "PERFUSE_TRAINER_LEASE_SECONDS": "2",
            "PERFUSE_TRAINER_CHECKPOINT_EVERY": "4",
            "PERFUSE_TRAINER_MAX_FAULTS": "1000",
            "PERFUSE_TRAINER_IDLE_SECONDS": "3",
            "PERFUSE_TRAINER_GRACE_SECONDS": "10",
            **shop.store_environment(),
        }
        there = Installation(
            shop, registry, place, cluster, forge, environment, home / "trainers.log"
        )
        furnish(registry, base)
        try:
            yield there
        finally:
            forge.close()
            registry.kill()


def furnish(registry: ServerProcess, base: BaseModel) -> None:
    """Register the base model."""
    described = wire.BaseModel(
        fingerprint=base.fingerprint,
        architecture=base.architecture,
        conditioning_width=base.conditioning_width,
        layers=[wire.Layer(name=each.name, width=each.width) for each in base.layers],
        encoders=[wire.Encoder(name=each.name, width=each.width) for each in base.encoders],
    )
    request = wire.CreateBaseModelRequest(base_model_id="tiny", base_model=described)
    registry.stub().CreateBaseModel(request)


def queued(there: Installation, base: BaseModel) -> list[Run]:
    """Runs of two tenants that differ in length, batch and lock; one takes no neighbours."""
    shop = there.shop
    sets = {tenant: shop.image_set(tenant, keep=True) for tenant in TENANTS}
    previews = PreviewSettings(("a photo of a <>",), every=20, steps=1)
    runs = []
    for number, (tenant, steps, batch, lock, more) in enumerate(
        (
            ("acme", 60, 2, KeyLock.LOCAL, {}),
            ("acme", 36, 3, KeyLock.TRAINED_K, {}),
            ("rival", 48, 2, KeyLock.LOCAL, {"settings": {"previews": previews}}),
            ("rival", 30, 2, KeyLock.TRAINED_K, {"exclusive": True}),
            ("acme", 24, 2, KeyLock.LOCAL, {}),
        )
    ):
        concept = f"concept-{number}"
        there.registry.stub(_token(tenant)).CreateConcept(
            wire.CreateConceptRequest(
                parent=f"tenants/{tenant}",
                concept_id=concept,
                concept=wire.Concept(super_category="cat"),
            )
        )
        run = shop.run(
            base, tenant=tenant, images=sets[tenant], concept=concept, steps=steps, batch=batch,
            key_lock=lock, seed=number, validate_every=12, **more,
        )  # fmt: skip
        runs.append(run)
    return runs


def alone(shop: Workshop, base: BaseModel, run: Run) -> Callable[[], bytes]:
    """Trains as a run does, without any service; everything is read at once."""
    pictures = kept_pictures(shop.database, shop.trainer.vault, shop.row(run).image_set)
    training = RunSettings.from_json(run.settings).training
    return lambda: train(base, pictures, training).to_bytes()


@dataclass
class Chaos:
    """Kills by a seed, and does what Kubernetes would: what died comes back a little later.

    Attributes:
        struck: what was killed, and how often.
    """

    there: Installation
    lot: random.Random
    struck: Counter[str] = field(default_factory=Counter)
    replacing: threading.Thread | None = None
    returns: dict[int, float] = field(default_factory=dict)

    def plan(self, kills: int, *, connections: bool) -> list[str]:
        """Every kind once, and then more of any."""
        kinds = [ACTOR, SERVER, NODE, *([CONNECTIONS] if connections else [])]
        chosen = kinds + self.lot.choices(kinds, k=max(0, kills - len(kinds)))
        self.lot.shuffle(chosen)
        return chosen

    def strike(self, kind: str) -> bool:
        """Kill one of a kind, if there is one."""
        done = {
            ACTOR: self._kill_actor,
            SERVER: self._kill_server,
            NODE: self._kill_node,
            CONNECTIONS: self._cut_connections,
        }[kind]()
        if done:
            self.struck[kind] += 1
            print(f"{time.strftime('%X')} killed: {kind}", flush=True)
        return done

    def restore(self) -> None:
        """Start again what died some time ago."""
        for place, pid in enumerate(self.there.servers):
            status = self.there.forge.status(pid)
            if status is None:
                continue
            assert status == -signal.SIGKILL, self.there.told()
            moment = self.returns.setdefault(pid, time.monotonic() + self.lot.uniform(0.0, 2.0))
            if time.monotonic() > moment:
                self.there.servers[place] = self.there.begin_server()

    def end(self) -> None:
        """Wait until nothing is being replaced any more."""
        if self.replacing is not None:
            self.replacing.join()

    def _kill_actor(self) -> bool:
        workers = self.there.cluster.workers()
        if workers:
            with suppress(psutil.NoSuchProcess):
                self.lot.choice(workers).kill()
                return True
        return False

    def _kill_server(self) -> bool:
        alive = [pid for pid in self.there.servers if self.there.forge.status(pid) is None]
        if not alive:
            return False
        os.kill(self.lot.choice(alive), signal.SIGKILL)
        return True

    def _kill_node(self) -> bool:
        # Not while nobody works: a node without workers is no loss.
        if (self.replacing and self.replacing.is_alive()) or not self.there.cluster.workers():
            return False
        cluster, pause = self.there.cluster, self.lot.uniform(0.0, 2.0)
        cluster.kill_node(self.lot.choice(cluster.raylets))

        def replace() -> None:
            time.sleep(pause)
            cluster.replace()

        self.replacing = threading.Thread(target=replace)
        self.replacing.start()
        return True

    def _cut_connections(self) -> bool:
        # The Trainer's, and half the time the Registry's too.
        cut_connections(self.there.shop.url)
        if self.lot.random() < 0.5:
            cut_connections(self.there.place.url)
        return True


def cut_connections(url: str) -> None:
    """End every connection to a PostgreSQL database, as a failover does."""
    with psycopg.connect(_administration(), autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [make_url(url).database],
        )


def connections(url: str) -> int:
    """How many there are to a PostgreSQL database."""
    with psycopg.connect(_administration(), autocommit=True) as admin:
        found = admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [make_url(url).database]
        ).fetchone()
    assert found is not None
    return int(found[0])


def _administration() -> str:
    server = postgres_server().set(drivername="postgresql")
    return server.render_as_string(hide_password=False)


def disturb(there: Installation, runs: list[Run], chaos: Chaos, plan: list[str]) -> None:
    """Kill what the plan says at random moments, until every run has ended."""
    until = time.monotonic() + SECONDS
    moment, steps = time.monotonic() + chaos.lot.uniform(0.0, 6.0), -1
    while True:
        assert time.monotonic() < until, there.told()
        try:
            seen = [there.shop.read(run) for run in runs]
        except PerfuseError:
            continue  # Our connections are cut like everybody's.
        if all(run.state.is_final for run in seen):
            break
        chaos.restore()
        made = sum(run.step for run in seen)
        if plan and time.monotonic() > moment and made > steps and chaos.strike(plan[0]):
            del plan[0]
            moment = time.monotonic() + chaos.lot.uniform(0.0, 4.0)
            # Coming up takes most of the time: every other kill waits for training to go on.
            steps = made if chaos.lot.random() < 0.5 else -1
        time.sleep(0.05)
    chaos.end()


def eventually(what: Callable[[], object], there: Installation, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, there.told()
        time.sleep(0.05)


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
    there.servers = [there.begin_server() for _ in range(SERVERS)]
    with ThreadPoolExecutor(1) as thread:
        learnt = [thread.submit(lesson) for lesson in lessons]
        disturb(there, runs, chaos, plan)
        expected = [each.result() for each in learnt]
    assert set(chaos.struck) == kinds, chaos.struck

    for run, adapter in zip(runs, expected, strict=True):
        found = shop.read(run)
        assert found.state is RunState.SUCCEEDED, found
        (version,) = there.versions(run)
        assert version.name == str(found.version)
        assert version.training_run == str(run.name)
        assert there.adapter(version.name) == adapter
        check_events(shop, run)
    leaves_nothing(there, dialect)


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


def leaves_nothing(there: Installation, dialect: str) -> None:
    """Servers told to end leave no worker, no lease, no connection and no file of nobody's."""
    shop = there.shop
    # One that was killed last may still be on its way back.
    there.servers = [pid for pid in there.servers if there.forge.status(pid) is None]
    for pid in there.servers:
        os.kill(pid, signal.SIGTERM)
    for pid in there.servers:
        assert there.forge.wait(pid) == 0, there.told()
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
    assert len(list(store.listing())) == len(rows)
    assert list(store.strays()) == []
    if dialect == "postgresql":
        shop.database.close()
        eventually(lambda: connections(shop.url) == 0, there)
