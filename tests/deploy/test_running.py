"""What the manifests say, run: every container's command as a process with the pod's rights."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.cluster import TENANT, Cluster, running
from deploy.manifests import SERVICES
from deploy.sandbox import confined
from perfuse.cli.base_description import describe
from perfuse.client import Client, Connection, TrainingSettings
from perfuse.errors import PerfuseError, Unauthenticated
from perfuse_toybox.base import DIRECTORY
from perfuse_toybox.concepts import TOM

pytestmark = pytest.mark.timeout(600)
SECONDS = 180.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("cluster")) as cluster:
        with cluster.client() as perfuse:
            perfuse.base_models.create(describe("toybox", DIRECTORY))
        yield cluster


@pytest.mark.parametrize("service", SERVICES)
def test_every_probe_is_answered_as_it_is_written(cluster: Cluster, service: str) -> None:
    (container,) = cluster.pods[service].spec["containers"]
    for pod in cluster.running[service]:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            cluster.probe(pod, container[probe])


@pytest.mark.parametrize("service", SERVICES)
def test_nobody_comes_in_without_a_token(cluster: Cluster, service: str) -> None:
    known = cluster.connection
    stranger = Connection(
        **{name: getattr(known, name) for name in SERVICES}, tenant=TENANT, token="no", ca=known.ca
    )
    calls = {
        "registry": lambda client: list(client.concepts.list()),
        "trainer": lambda client: list(client.training_runs.list()),
        "renderer": lambda client: client.renderer.status(),
    }
    with Client(stranger) as client, pytest.raises(Unauthenticated):
        calls[service](client)


@pytest.mark.skipif(not confined(), reason="only root can give a process fewer rights")
def test_a_container_has_no_right_that_its_manifest_does_not_give(cluster: Cluster) -> None:
    """Of the sandbox: or nothing here would show what a pod cannot do."""
    program = """
import os, tempfile
try: tempfile.gettempdir(); wrote = True
except FileNotFoundError: wrote = False
rights = [line.split()[1] for line in open("/proc/self/status") if line.startswith("Cap")]
print(os.getpid(), os.getuid(), os.getgid(), wrote, {int(right, 16) for right in rights})
"""
    for service, writes in {"registry": False, "renderer": True}.items():
        container = cluster.sandbox(service).start("python", "-c", program)
        assert container.wait(60) == 0, container.said
        assert container.said == f"1 10001 10001 {writes} {{0}}\n"


def test_a_concept_is_learned_published_and_rendered(cluster: Cluster, tmp_path: Path) -> None:
    TOM.write_pictures(tmp_path, count=2)
    with cluster.client() as perfuse:
        run = perfuse.train(
            "tom",
            [tmp_path],
            super_category=TOM.super_category,
            settings=TrainingSettings(steps=2, batch=2, validate_every=2),
        )
        done = perfuse.training_runs.wait(run.name, patience=SECONDS)
        assert done.version, (done.error, cluster.running["trainer"][0].container.said)
        perfuse.aliases.point("tom", "prod", done.version)
        (image,) = perfuse.render("a photo of <tom@prod> in the snow", steps=2, timeout=SECONDS)
        assert image.picture.startswith(b"\x89PNG")


class Callers:
    """Callers who make concepts until they are stopped, and remember what they were told.

    Args:
        cluster: that they call.
        count: of them.
    """

    def __init__(self, cluster: Cluster, name: str, count: int = 3) -> None:
        self.made: list[str] = []
        self.refused: list[PerfuseError] = []
        self._cluster, self._name = cluster, name
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(index,)) for index in range(count)
        ]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(SECONDS)

    def _call(self, caller: int) -> None:
        number = 0
        with self._cluster.client() as perfuse:
            while not self._stopped.is_set():
                number += 1
                try:
                    concept = f"{self._name}-{caller}-{number}"
                    made = perfuse.concepts.create(concept, super_category="cat")
                    self.made.append(made.name)
                except PerfuseError as error:
                    self.refused.append(error)

    def make(self, count: int) -> None:
        """Wait until they made so many more."""
        enough, until = len(self.made) + count, time.monotonic() + SECONDS
        while len(self.made) < enough:
            assert time.monotonic() < until, self.refused
            time.sleep(0.01)

    def seen(self, perfuse: Client) -> None:
        """All that they were told they made is there, once."""
        there = [concept.name for concept in perfuse.concepts.list()]
        assert len(set(there)) == len(there)
        assert set(self.made) <= set(there)


def test_a_rolling_restart_of_the_registry_loses_no_call(cluster: Cluster) -> None:
    with Callers(cluster, "rolled") as callers:
        statuses = cluster.roll("registry")
        # They go on with the new one.
        callers.make(20)
    assert statuses == [0]
    assert callers.refused == []
    with cluster.client() as perfuse:
        callers.seen(perfuse)


def test_a_rolling_restart_of_the_renderer_loses_no_picture(cluster: Cluster) -> None:
    """Pictures that the old one had begun it ends; whoever comes later is the new one's."""
    found: list[object] = []

    def render(seed: int) -> None:
        try:
            with cluster.client() as perfuse:
                (image,) = perfuse.render(
                    "a photo of a cat", steps=20, seeds=[seed], timeout=SECONDS
                )
                found.append(image.record.seed)
        except PerfuseError as error:
            found.append(error)

    (old,) = cluster.running["renderer"]
    new = cluster.start("renderer")
    cluster.ready("renderer", new)
    threads = [threading.Thread(target=render, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    with cluster.client() as perfuse:
        while not perfuse.renderer.status().running_count and not found:
            time.sleep(0.01)
    cluster.admit("renderer", new)
    assert cluster.remove("renderer", old) == 0
    render(3)
    for thread in threads:
        thread.join(SECONDS)
    assert sorted(map(str, found)) == ["0", "1", "2", "3"]


def test_a_pod_killed_at_random_loses_nothing_that_was_told_done(cluster: Cluster) -> None:
    chance = random.Random(9)
    cluster.admit("registry", cluster.start("registry"))
    with Callers(cluster, "killed") as callers:
        for _ in range(2):
            callers.make(chance.randrange(10, 40))
            victim = chance.choice(cluster.running["registry"])
            cluster.running["registry"].remove(victim)
            victim.container.signal(signal.SIGKILL)
            victim.container.wait(30)
            cluster.services["registry"].backends.remove(victim.connect)
            cluster.admit("registry", cluster.start("registry"))
    assert callers.made
    with cluster.client() as perfuse:
        callers.seen(perfuse)


@pytest.mark.parametrize("service", ["trainer", "renderer", "registry"])
def test_all_end_in_order_within_their_grace(cluster: Cluster, service: str) -> None:
    for pod in list(cluster.running[service]):
        assert cluster.remove(service, pod) == 0, pod.container.said
