"""The Trainer as processes, on either runner: killed anywhere, it loses and leaves nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from uuid import uuid4

import grpc
import ports
import psutil
import pytest
import torch
from bases import load_prepared, words_covariance
from grpc_health.v1 import health_pb2, health_pb2_grpc
from registry.processes import Place, ServerProcess, fresh_place, start
from registry.processes import _home as tokens_home
from sqlalchemy import select

from perfuse.adapter import Adapter, digest
from perfuse.attach import BaseModel
from perfuse.serving.tokens import mint
from perfuse.storage.database import AnyRow, Database
from perfuse.v1 import registry_pb2
from perfuse.v1 import trainer_pb2 as wire
from perfuse.v1.trainer_pb2_grpc import TrainerServiceStub
from perfuse_trainer.learning.settings import TrainingSettings
from perfuse_trainer.learning.training import train
from perfuse_trainer.pictures.images import read_picture
from perfuse_trainer.tables import RUNS
from trainer.workshop import picture

SECONDS = 240.0
STEPS = 60
STEPS_ON_RAY = 300
"""A worker on Ray goes on for seconds after its server was killed, and must not come to the end."""


@pytest.fixture(scope="module")
def model(tiny_sd15_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("models") / "tiny"
    shutil.copytree(tiny_sd15_dir, home)
    words_covariance(BaseModel.load(home)).write(home)
    return home


@dataclass
class Platform:
    """A Registry, and a Trainer that comes and goes.

    Attributes:
        mark: in the environment of every process of the Trainer's, by which to find what is left.
    """

    home: Path
    registry: ServerProcess
    environment: dict[str, str]
    metadata: Any
    base: BaseModel
    mark: str = field(default_factory=lambda: uuid4().hex)
    server: subprocess.Popen[bytes] | None = None
    channel: Any = None

    def begin(self) -> None:
        """Start the Trainer, and wait until it answers."""
        with self.log.open("ab") as out:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "perfuse_trainer", "serve", "--migrate"],
                env=os.environ | self.environment | {"PERFUSE_TEST_MARK": self.mark},
                stdout=out,
                stderr=out,
            )
        target = self.environment["PERFUSE_TRAINER_BIND"]
        self.channel = grpc.insecure_channel(
            target, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        health = health_pb2_grpc.HealthStub(self.channel)

        def serving() -> bool:
            assert self.server is not None
            assert self.server.poll() is None, self.log.read_text()[-4000:]
            try:
                answer = health.Check(health_pb2.HealthCheckRequest(), timeout=5)
            except grpc.RpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        self.wait_until(serving)

    def call(self, name: str, request: Any) -> Any:
        stub = TrainerServiceStub(self.channel)
        return getattr(stub, name)(request, metadata=self.metadata, timeout=60)

    def run(self, name: str) -> wire.TrainingRun:
        return self.call("GetTrainingRun", wire.GetTrainingRunRequest(name=name))  # type: ignore[no-any-return]

    def measures(self) -> str:
        """What Prometheus is told."""
        address = self.environment["PERFUSE_TRAINER_METRICS_ADDRESS"]
        with urlopen(f"http://{address}/metrics", timeout=60) as answer:
            return str(answer.read().decode())

    def processes(self) -> list[psutil.Process]:
        """Everything that the Trainer started and that still runs, itself included."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("PERFUSE_TEST_MARK") == self.mark
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def workers(self) -> list[psutil.Process]:
        """Processes that train."""
        found = []
        for process in self.processes():
            try:
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if "ray::WorkerActor" in line or "perfuse_trainer work" in line:
                found.append(process)
        return found

    def kill(self) -> None:
        """End the Trainer's server as the kernel would, and see what it started go."""
        assert self.server is not None
        self.server.kill()
        self.server.wait()
        self.channel.close()
        self.wait_until_gone(but_agents=True)

    def wait_until_gone(self, *, but_agents: bool = False) -> None:
        """Wait for the end of what the Trainer started.

        Args:
            but_agents: not of Ray's agents, which look for a killed parent only once a minute.
        """

        def left() -> list[psutil.Process]:
            found = []
            for process in self.processes():
                with suppress(psutil.Error):
                    if not (but_agents and "Agent" in process.name()):
                        found.append(process)
            return found

        self.wait_until(lambda: not left())

    def wait_until(self, true: Callable[[], object]) -> None:
        """Wait until something is true, as it must become."""
        until = time.monotonic() + SECONDS
        while not true():
            assert time.monotonic() < until, self.log.read_text()[-4000:]
            # Looking through all processes takes time that what is waited for would have.
            time.sleep(0.2)

    @property
    def log(self) -> Path:
        """What the Trainer and its workers write."""
        return self.home / "trainer.log"

    def row(self, run: wire.TrainingRun) -> AnyRow:
        """A run as the tables have it."""
        database = Database(self.environment["PERFUSE_TRAINER_DATABASE_URL"])
        chosen = select(RUNS).where(RUNS.c.uid == run.uid)
        try:
            return database.read(lambda connection: connection.execute(chosen).one())
        finally:
            database.close()

    def files(self) -> int:
        """How many the store holds."""
        return sum(path.is_file() for path in (self.home / "files").rglob("*"))


@pytest.fixture
def platform(request: pytest.FixtureRequest, model: Path, tmp_path: Path) -> Iterator[Platform]:
    (tmp_path / "registry").mkdir()
    with (
        fresh_place("sqlite+directory", tmp_path / "registry") as place,
        furnished(place, model) as (registry, base),
    ):
        yield from _platform(request.param, model, tmp_path, registry, base)


@contextmanager
def furnished(place: Place, model: Path) -> Iterator[tuple[ServerProcess, BaseModel]]:
    base = load_prepared(model)
    registry = start(place)
    stub = registry.stub()
    described = registry_pb2.BaseModel(
        fingerprint=base.fingerprint,
        architecture=base.architecture,
        conditioning_width=base.conditioning_width,
        layers=[registry_pb2.Layer(name=each.name, width=each.width) for each in base.layers],
        encoders=[registry_pb2.Encoder(name=each.name, width=each.width) for each in base.encoders],
    )
    stub.CreateBaseModel(
        registry_pb2.CreateBaseModelRequest(base_model_id="tiny", base_model=described)
    )
    stub.CreateConcept(
        registry_pb2.CreateConceptRequest(
            parent="tenants/acme",
            concept_id="tom",
            concept=registry_pb2.Concept(super_category="cat"),
        )
    )
    try:
        yield registry, base
    finally:
        registry.kill()


def _platform(
    runner: str, model: Path, home: Path, registry: ServerProcess, base: BaseModel
) -> Iterator[Platform]:
    tokens = tokens_home() / "tokens"
    delegate = mint(tokens, "platform", "trainer", ["delegate"])
    publisher = mint(tokens, "acme", "paula", ["publisher"])
    environment = {
        "PERFUSE_TRAINER_BIND": f"127.0.0.1:{free_port()}",
        "PERFUSE_TRAINER_METRICS_ADDRESS": f"127.0.0.1:{free_port()}",
        "PERFUSE_TRAINER_DATABASE_URL": f"sqlite:///{home / 'trainer.db'}",
        "PERFUSE_TRAINER_BLOB_DIRECTORY": str(home / "files"),
        "PERFUSE_TRAINER_BASE_MODELS": f"tiny={model}",
        "PERFUSE_TRAINER_REGISTRY": registry.target,
        "PERFUSE_TRAINER_REGISTRY_TOKEN": delegate,
        "PERFUSE_TRAINER_TOKEN_FILE": str(tokens),
        "PERFUSE_TRAINER_RUNNER": runner,
        "PERFUSE_TRAINER_LEASE_SECONDS": "2",
        "PERFUSE_TRAINER_PACK": "1",
        "PERFUSE_TRAINER_CHECKPOINT_EVERY": "5",
        "OMP_NUM_THREADS": "1",
        # Ray's own figures, which nobody reads here, and workers before anyone wants them.
        "RAY_enable_metrics_collection": "0",
        "RAY_prestart_worker_first_driver": "0",
    }
    platform = Platform(
        home, registry, environment, (("authorization", f"Bearer {publisher}"),), base
    )
    platform.begin()
    try:
        yield platform
    finally:
        for process in platform.processes():
            process.kill()
        assert platform.server is not None
        platform.server.wait()


def free_port() -> int:
    return ports.free_ports(1)


def upload(platform: Platform) -> str:
    """A set of three pictures, kept, sent as a caller sends them."""
    made = platform.call(
        "CreateImageSet",
        wire.CreateImageSetRequest(parent="tenants/acme", image_set=wire.ImageSet(keep=True)),
    )

    def parts() -> Iterator[wire.UploadImagesRequest]:
        yield wire.UploadImagesRequest(image_set=made.name)
        for index in range(3):
            data = picture(index)
            yield wire.UploadImagesRequest(
                header=wire.ImageHeader(
                    file_name=f"{index}.png", digest=digest(data), size_bytes=len(data)
                )
            )
            yield wire.UploadImagesRequest(chunk=data)

    assert len(platform.call("UploadImages", parts()).images) == 3
    return str(made.name)


def queue(platform: Platform, image_set: str, steps: int) -> wire.TrainingRun:
    return platform.call(  # type: ignore[no-any-return]
        "CreateTrainingRun",
        wire.CreateTrainingRunRequest(
            parent="tenants/acme",
            training_run=wire.TrainingRun(
                concept="tenants/acme/concepts/tom",
                image_set=image_set,
                settings=wire.TrainingSettings(steps=steps, batch=2, validate_every=10, seed=3),
            ),
        ),
    )


@pytest.mark.timeout(900)
@pytest.mark.parametrize("platform", ["local"], indirect=True)
def test_killed_anywhere_it_loses_nothing_and_leaves_nothing(platform: Platform) -> None:
    image_set = upload(platform)
    run = queue(platform, image_set, STEPS)

    # A worker dies, and another one is started for it.
    platform.wait_until(lambda: platform.run(run.name).step >= 10)
    (worker,) = platform.workers()
    worker.kill()
    platform.wait_until(lambda: platform.workers() not in ([], [worker]))
    platform.wait_until(lambda: samples(platform)["perfuse_trainer_lease_losses_total"] == 1)
    assert samples(platform)['perfuse_trainer_runs{state="SUCCEEDED"}'] == 0
    heard = platform.run(run.name).last_sequence

    # The server dies, and everything that it started with it; another one goes on.
    platform.kill()
    platform.begin()
    succeeds(platform, run, heard)

    # A cancelled run frees its worker, which stays for the next one.
    endless = queue(platform, image_set, steps=20_000)
    platform.wait_until(lambda: platform.run(endless.name).step >= 3)
    told = samples(platform)
    assert told['perfuse_trainer_runs{state="SUCCEEDED"}'] == 1
    assert told['perfuse_trainer_runs{state="RUNNING"}'] == 1
    assert told['perfuse_trainer_queue_runs{base_model="tiny"}'] == 0
    assert told['perfuse_trainer_publications_total{outcome="published"}'] == 1
    assert told["perfuse_trainer_steps_per_second"] > 0
    (worker,) = platform.workers()
    platform.call("CancelTrainingRun", wire.CancelTrainingRunRequest(name=endless.name))
    cancelled = wire.TRAINING_RUN_STATE_CANCELLED
    platform.wait_until(lambda: platform.run(endless.name).state == cancelled)

    # Told to end, it has the worker keep what it has.
    again = queue(platform, image_set, steps=20_000)
    platform.wait_until(lambda: platform.run(again.name).step >= 3)
    assert [each.pid for each in platform.workers()] == [worker.pid]
    ends(platform)
    kept = platform.row(again)
    assert (kept.state, kept.worker, kept.lease_time) == ("QUEUED", None, None)
    assert kept.checkpoint_step >= 3
    # Three images of a set that is kept, and the checkpoint; a kill may have come before what it
    # freed was deleted.
    assert 4 <= platform.files() <= 6


@pytest.mark.timeout(900)
@pytest.mark.parametrize("platform", ["ray"], indirect=True)
def test_on_a_ray_of_its_own_it_loses_nothing_and_leaves_nothing(platform: Platform) -> None:
    """Deaths of workers are `test_ray_deaths`'s; here Ray begins and ends with the Trainer."""
    run = queue(platform, upload(platform), STEPS_ON_RAY)
    platform.wait_until(lambda: platform.run(run.name).step >= 10)
    heard = platform.run(run.name).last_sequence

    # The server dies, and its Ray with it.
    platform.kill()
    platform.begin()

    # Ray dies on its own; the server notices, says so and ends, to be started again.
    for process in platform.processes():
        if process.name() == "raylet":
            process.kill()
    assert platform.server is not None
    assert platform.server.wait(SECONDS) == 1
    platform.wait_until_gone(but_agents=True)
    assert "the Ray that was started with this Trainer has died" in platform.log.read_text()
    platform.begin()
    succeeds(platform, run, heard)
    ends(platform)
    assert 3 <= platform.files() <= 5


def succeeds(platform: Platform, run: wire.TrainingRun, heard: int) -> None:
    """A run ends with one version, which has the bytes of an undisturbed one."""
    events = list(
        TrainerServiceStub(platform.channel).WatchTrainingRun(
            wire.WatchTrainingRunRequest(name=run.name, after_sequence=heard),
            metadata=platform.metadata,
            timeout=SECONDS,
        )
    )
    assert [event.sequence for event in events] == list(range(heard + 1, heard + 1 + len(events)))
    assert events[-1].state_change.state == wire.TRAINING_RUN_STATE_SUCCEEDED, events[-1]
    done = platform.run(run.name)
    stub = platform.registry.stub()
    listed = stub.ListVersions(registry_pb2.ListVersionsRequest(parent="tenants/acme/concepts/tom"))
    (version,) = listed.versions
    assert version.name == done.version == events[-1].state_change.version
    assert version.training_run == run.name
    assert done.attempt >= 2
    data = stub.DownloadAdapter(registry_pb2.DownloadAdapterRequest(name=version.name)).adapter
    assert data == alone(platform.base, run.settings.steps)
    assert Adapter.from_bytes(data).metadata.placeholder == "tom"


def ends(platform: Platform) -> None:
    """Told to end, it does, and nothing that it started is left."""
    assert platform.server is not None
    platform.server.send_signal(signal.SIGTERM)
    assert platform.server.wait(SECONDS) == 0
    platform.wait_until_gone()


def samples(platform: Platform) -> dict[str, float]:
    """Name and labels → value, of the Trainer's own; nobody is named."""
    text = platform.measures()
    assert "acme" not in text
    assert "tom" not in text
    lines = [line for line in text.splitlines() if line.startswith("perfuse_trainer_")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def alone(base: BaseModel, steps: int) -> bytes:
    """What the run gives without any service."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    settings = TrainingSettings(
        super_category="cat", placeholder="tom", steps=steps, batch=2, validate_every=10, seed=3
    )
    pictures = [read_picture(picture(index), f"{index}.png") for index in range(3)]
    try:
        return train(base, pictures, settings).to_bytes()
    finally:
        torch.set_num_threads(before)
