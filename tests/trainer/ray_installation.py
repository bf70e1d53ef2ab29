"""Trainers on one database and one Ray cluster of several nodes, beside a Registry."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from registry.processes import PAIRS, Place, ServerProcess, fresh_place, start
from registry.processes import _home as tokens_home

from perfuse.adapter import digest
from perfuse.attach import BaseModel
from perfuse.method import KeyLock
from perfuse.serving.tokens import mint
from perfuse.v1 import registry_pb2 as wire
from perfuse_trainer.resources import Run
from perfuse_trainer.runs.run_settings import PreviewSettings
from trainer.forge import Forge
from trainer.ray_cluster import RayCluster
from trainer.workshop import BACKENDS, Workshop, workshop

TENANTS = ("acme", "rival")


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

    def previews(self, version: str) -> list[wire.VersionPreview]:
        """A version's previews, each as its bytes are."""
        stub = self.registry.stub(_token(_tenant(version)))
        found = stub.GetVersion(wire.GetVersionRequest(name=version)).previews
        for each in found:
            request = wire.DownloadPreviewRequest(name=version, digest=each.digest)
            assert digest(stub.DownloadPreview(request).picture) == each.digest
        return list(found)

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


def eventually(what: Callable[[], object], there: Installation, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, there.told()
        time.sleep(0.2)
