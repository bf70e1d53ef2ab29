"""What the manifests say, run: every container's command as a process with the pod's rights."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest
from pictures import noise

from deploy.cluster import TENANT, Cluster, running
from deploy.manifests import SERVICES
from deploy.sandbox import confined
from perfuse.cli.base_description import describe
from perfuse.client import (
    Client,
    Connection,
    Picture,
    StateChange,
    TrainingEvent,
    TrainingProgress,
    TrainingRun,
    TrainingSettings,
)
from perfuse.errors import PerfuseError, Unauthenticated
from perfuse_toybox.base import DIRECTORY

pytestmark = pytest.mark.timeout(600)
SECONDS = 180.0
STEPS = 100
"""Of a run that is disturbed: it must not come to its end before that."""


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


RIGHTS = """
import os, sys, tempfile
def writes(folder):
    try: tempfile.TemporaryFile(dir=folder)
    except OSError: return False
    return True
places = ["/", "/tmp", "/var/tmp", "/mnt", *(each.path for each in os.scandir("/mnt"))]
places += [*filter(os.path.isdir, sys.path), *sys.argv[1:]]
print(*sorted(filter(writes, set(places))))
rights = [line.split()[1] for line in open("/proc/self/status") if line.startswith("Cap")]
print(os.getpid(), os.getuid(), os.getgid(), {int(right, 16) for right in rights})
"""


def test_a_container_has_no_right_that_its_manifest_does_not_give(cluster: Cluster) -> None:
    """Of the sandbox: or nothing here would show what a pod cannot do."""
    for service in ("registry", "renderer"):
        sandbox = cluster.sandbox(service)
        volumes = sandbox.writable
        container = sandbox.start("python", "-c", RIGHTS, *volumes.values())
        assert container.wait(60) == 0, container.said
        writable, rights = container.said.splitlines()
        if confined():
            temporary = {"/tmp"} & volumes.keys()
            assert set(writable.split()) == {*volumes.values(), *temporary}
            assert rights == "1 10001 10001 {0}"
        else:
            # Its rights are ours, and its volumes are where it was told.
            assert set(volumes.values()) <= set(writable.split())
    assert volumes


def test_a_concept_is_learned_published_and_rendered(cluster: Cluster) -> None:
    with cluster.client() as perfuse:
        run = train(perfuse, "tom", steps=2)
        done = perfuse.training_runs.wait(run.name, patience=SECONDS)
        assert done.version, (done.error, cluster.running["trainer"][0].container.said)
        perfuse.aliases.point("tom", "prod", done.version)
        (image,) = perfuse.render("a photo of <tom@prod> in the snow", steps=2, timeout=SECONDS)
        assert image.picture.startswith(b"\x89PNG")


def train(perfuse: Client, concept: str, steps: int) -> TrainingRun:
    """A run that has begun to be."""
    return perfuse.train(
        concept,
        [Picture(f"{index}.png", noise(index, 64)) for index in range(2)],
        super_category="cat",
        settings=TrainingSettings(steps=steps, batch=2, validate_every=steps),
    )


class Watcher:
    """Somebody who watches a run from its begin to its end.

    Args:
        cluster: in which it is.
        run: watched.
    """

    def __init__(self, cluster: Cluster, run: TrainingRun) -> None:
        self.events: list[TrainingEvent] = []
        self._cluster, self._run = cluster, run
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    @property
    def steps(self) -> list[int]:
        """Of which it was told, in order."""
        return [each.step for each in self.events if isinstance(each, TrainingProgress)]

    def _watch(self) -> None:
        with self._cluster.client() as perfuse:
            for event in perfuse.training_runs.watch(self._run.name, patience=SECONDS):
                self.events.append(event)

    def begun(self) -> None:
        """Wait until the run trains."""
        until = time.monotonic() + SECONDS
        while not self.steps:
            assert time.monotonic() < until, self.events
            time.sleep(0.01)

    def went_on(self) -> None:
        """It was gone on with once, told everything once, and left one version."""
        self._thread.join(SECONDS)
        changes = [each for each in self.events if isinstance(each, StateChange)]
        assert changes[-1].state == "SUCCEEDED", self.events
        assert {change.attempt for change in changes if change.state == "RUNNING"} == {1, 2}
        told = [event.sequence for event in self.events]
        assert told == list(range(1, len(told) + 1))
        with self._cluster.client() as perfuse:
            versions = [each.name for each in perfuse.versions.list(self._run.concept)]
        assert versions == [changes[-1].version]


class Callers:
    """Callers who make things until they are stopped, and remember what they were told.

    Args:
        cluster: that they call.
        service: `registry` for concepts, `trainer` for image sets with a picture.
        name: that what they make begins with.
        count: of them.
    """

    def __init__(self, cluster: Cluster, service: str, name: str, count: int = 3) -> None:
        self.made: list[str] = []
        self.refused: list[PerfuseError] = []
        self._cluster, self._service, self._name = cluster, service, name
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
                    self.made.append(self._make(perfuse, f"{self._name}-{caller}-{number}"))
                except PerfuseError as error:
                    self.refused.append(error)

    def _make(self, perfuse: Client, name: str) -> str:
        if self._service == "registry":
            return perfuse.concepts.create(name, super_category="cat").name
        made = perfuse.image_sets.create(name)
        perfuse.image_sets.upload(made.name, [Picture("one.png", noise(1))])
        return made.name

    def make(self, count: int) -> None:
        """Wait until they made so many more."""
        enough, until = len(self.made) + count, time.monotonic() + SECONDS
        while len(self.made) < enough:
            assert time.monotonic() < until, self.refused
            time.sleep(0.01)

    def seen(self) -> None:
        """All that they were told they made is there, once and whole."""
        with self._cluster.client() as perfuse:
            if self._service == "registry":
                there = [concept.name for concept in perfuse.concepts.list()]
            else:
                there = [found.name for found in perfuse.image_sets.list()]
                assert all(len(perfuse.image_sets.get(name).images) == 1 for name in self.made)
        assert self.made
        assert len(set(there)) == len(there)
        assert set(self.made) <= set(there)


def test_a_rolling_restart_of_the_registry_loses_no_call(cluster: Cluster) -> None:
    with Callers(cluster, "registry", "rolled") as callers:
        statuses = cluster.roll("registry")
        # They go on with the new one.
        callers.make(20)
    assert statuses == [0]
    assert callers.refused == []
    callers.seen()


def test_a_rolling_restart_of_the_trainer_loses_no_call_and_no_step(cluster: Cluster) -> None:
    cluster.admit("trainer", cluster.start("trainer"))
    with cluster.client() as perfuse:
        run = train(perfuse, "rolled", steps=STEPS)
        watcher = Watcher(cluster, run)
    watcher.begun()
    # Whichever of the two trains it goes; the other is there already.
    (old,) = (pod for pod in cluster.running["trainer"] if run.name in pod.container.said)
    with Callers(cluster, "trainer", "rolled", 2) as callers:
        callers.make(1)
        assert cluster.remove("trainer", old) == 0
        callers.make(2)
    assert callers.refused == []
    callers.seen()
    watcher.went_on()
    # The old pod's worker kept what it had.
    assert watcher.steps == sorted(set(watcher.steps))
    assert watcher.steps[-1] == STEPS


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
    with cluster.client() as perfuse:
        watcher = Watcher(cluster, train(perfuse, "killed", steps=STEPS))
    watcher.begun()
    callers = {name: Callers(cluster, name, "killed", 1) for name in ("registry", "trainer")}
    with callers["registry"], callers["trainer"]:
        for service in chance.sample(["registry", "registry", "trainer"], 3):
            callers[service].make(chance.randrange(1, 5))
            cluster.kill(service, chance.choice(cluster.running[service]))
            cluster.admit(service, cluster.start(service))
        callers["trainer"].make(1)
    for each in callers.values():
        each.seen()
    watcher.went_on()


@pytest.mark.parametrize("service", ["trainer", "renderer", "registry"])
def test_all_end_in_order_within_their_grace(cluster: Cluster, service: str) -> None:
    for pod in list(cluster.running[service]):
        assert cluster.remove(service, pod) == 0, pod.container.said
