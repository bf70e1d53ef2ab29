"""What a pod may do and is told: rights, settings, ports, probes, the time to end."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.manifests import ROOT, SERVICES, TARGETS, Manifest, Pod, build, named, pods
from perfuse import __version__
from perfuse.client.health import SERVICES as HEALTH_NAMES
from perfuse.serving.health import LIVE
from perfuse.serving.settings import ServingSettings, host_port
from perfuse.v1 import registry_pb2, renderer_pb2, trainer_pb2
from perfuse_registry.settings import RegistrySettings
from perfuse_renderer.settings import RendererSettings
from perfuse_trainer.service_settings import TrainerSettings

SETTINGS: dict[str, type[ServingSettings]] = {
    "registry": RegistrySettings,
    "trainer": TrainerSettings,
    "renderer": RendererSettings,
}
# Every place that a container must be able to write to, by its name.
WRITABLE: dict[str, set[str]] = {
    "registry": set(),
    "migrate": set(),
    "upkeep": set(),
    "buckets": set(),
    "trainer": {"/tmp"},
    "renderer": {"/tmp", "/var/cache/perfuse"},
    "ray-node": {"/tmp", "/dev/shm"},
    "ray-head": {"/tmp"},
    "ray-worker": {"/tmp"},
    "postgres": {"/var/run/postgresql", "/tmp"},
    "minio": {"/tmp"},
}
# What is read by others than our services.
OTHERS = {
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_USAGE_STATS_ENABLED",
}
# What a service must be told as a secret. The Trainer's jobs publish nothing.
SECRETS = {
    "registry": {"DATABASE_URL", "S3_ACCESS_KEY", "S3_SECRET_KEY"},
    "trainer": {"DATABASE_URL", "S3_ACCESS_KEY", "S3_SECRET_KEY"},
    "renderer": set[str](),
}
# How often the grace may pass in a row: the Trainer's calls end first, and then its workers.
GRACES = {"registry": 1, "trainer": 2, "renderer": 1}
MARGIN_SECONDS = 10
TOYBOX = Path("/opt/perfuse/toybox")


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def containers(target: str) -> Iterator[tuple[Pod, Manifest]]:
    for pod in pods(build(target)):
        for container in pod.containers:
            yield pod, container


def servers(target: str) -> Iterator[tuple[str, Pod, Manifest, dict[str, Any]]]:
    """Service, pod, container, and the settings by their names without the prefix."""
    for pod, container in containers(target):
        if (service := container["name"]) in SERVICES:
            prefix = f"PERFUSE_{service.upper()}_"
            told = pod.environment(container).items()
            yield service, pod, container, {k.removeprefix(prefix): v for k, v in told}


def service_of(container: Manifest) -> str | None:
    """Whose settings a container reads."""
    command: str = container.get("command", [""])[0]
    return command.removeprefix("perfuse-") if command.startswith("perfuse-") else None


class TestRights:
    def test_all_are_nobody_in_particular_and_may_do_nothing(self, target: str) -> None:
        for pod, container in containers(target):
            of_pod = pod.spec["securityContext"]
            assert of_pod["runAsNonRoot"] is True, pod.owner
            assert of_pod["runAsUser"] > 0
            assert of_pod["runAsGroup"] > 0
            assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, f"{pod.owner} {container['name']}"
            assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys()

    def test_they_write_where_they_must_and_nowhere_else(self, target: str) -> None:
        for pod, container in containers(target):
            writable = set()
            for path, volume in pod.mounts(container).items():
                if "emptyDir" in volume:
                    assert "sizeLimit" in volume["emptyDir"], f"{path} may fill the node"
                    writable.add(path)
                else:
                    assert volume["mount"]["readOnly"] is True, f"{pod.owner} {path}"
            needed = WRITABLE[container["name"]]
            if container["name"] in SERVICES and "perfuse-ray-node" in pod.labels:
                needed = needed | WRITABLE["ray-node"]
            assert writable == needed, f"{pod.owner} {container['name']}"

    def test_none_may_ask_kubernetes_but_rays_autoscaler(self, target: str) -> None:
        for pod in pods(build(target)):
            if pod.role == "ray head":
                continue  # The operator makes an account for it.
            assert pod.spec["automountServiceAccountToken"] is False, pod.owner
            if (account := pod.spec.get("serviceAccountName")) is not None:
                there = named(pod.resources, "ServiceAccount", account)
                assert there["automountServiceAccountToken"] is False

    def test_none_of_ours_is_process_one(self, target: str) -> None:
        """A SIGTERM during a process's imports would be lost on it; others are reaped by none."""
        for pod, container in containers(target):
            ours = container["image"].rpartition("/")[2].startswith("perfuse-")
            if ours and not pod.owner.startswith("RayCluster/"):
                assert pod.spec["shareProcessNamespace"] is True, pod.owner

    def test_they_say_what_they_take(self, target: str) -> None:
        for pod, container in containers(target):
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys(), pod.owner
            assert "memory" in resources["limits"]


class TestSettings:
    def test_every_variable_is_one_that_somebody_reads(self, target: str) -> None:
        for pod, container in containers(target):
            service = service_of(container)
            for name in pod.environment(container):
                if service is None or name in OTHERS:
                    assert not name.startswith("PERFUSE_")
                    continue
                prefix = SETTINGS[service].model_config["env_prefix"]
                field = name.removeprefix(prefix).lower()
                assert name.startswith(prefix), f"{pod.owner}: {name}"
                assert field in SETTINGS[service].model_fields, f"{pod.owner}: {name}"

    def test_the_services_take_them(self, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for pod, container in containers(target):
            if (service := service_of(container)) is None:
                continue
            with monkeypatch.context() as patch:
                for name in [name for name in os.environ if name.startswith("PERFUSE_")]:
                    patch.delenv(name)
                told = pod.environment(container)
                for name, value in told.items():
                    patch.setenv(name, value if isinstance(value, str) else f"secret {value[1]}")
                settings: Any = SETTINGS[service].load()
                prefix = f"PERFUSE_{service.upper()}_"
                hidden = {
                    name.removeprefix(prefix)
                    for name, value in told.items()
                    if isinstance(value, tuple)
                }
                assert SECRETS[service] <= hidden
                if container["name"] == service:
                    self._holds(settings, service, pod.mounts(container))

    def _holds(self, settings: Any, service: str, mounts: dict[str, Manifest]) -> None:
        assert None not in (settings.tls_cert, settings.tls_key, settings.token_file)
        for name, value in settings:
            if isinstance(value, Path):
                assert _is_there(value, mounts), f"{name} is {value}, where nothing is mounted"
        if service == "registry":
            return
        assert settings.registry_ca is not None
        assert host_port(settings.registry) == ("registry", 7071)
        for directory in settings.base_directories().values():
            assert directory == TOYBOX or _is_there(directory, mounts)
        if service == "trainer":
            assert settings.registry_authorization()

    @pytest.mark.parametrize("service", ["trainer", "renderer"])
    def test_the_image_has_the_toybox_where_they_say(self, service: str) -> None:
        text = (ROOT / "services" / service / "Dockerfile").read_text()
        assert f"toybox/perfuse_toybox/base {TOYBOX}" in text

    def test_no_secret_is_written_down(self, target: str) -> None:
        assert "Secret" not in {each["kind"] for each in build(target)}
        for pod, container in containers(target):
            for name, value in pod.environment(container).items():
                if re.search(r"(PASSWORD|TOKEN|SECRET_KEY|ACCESS_KEY|DATABASE_URL)$", name):
                    assert isinstance(value, tuple), f"{pod.owner}: {name}"

    def test_ray_is_of_the_release_that_is_installed(self) -> None:
        cluster = named(build("tests/ray"), "RayCluster", "perfuse-ray")
        lock = (ROOT / "requirements.lock").read_text()
        assert f"\nray=={cluster['spec']['rayVersion']}\n" in lock


def _is_there(path: Path, mounts: dict[str, Manifest]) -> bool:
    """Whether a volume holds the path; of certificates, whether it is one that is in the Secret."""
    for place, volume in mounts.items():
        if path == Path(place) or Path(place) in path.parents:
            return volume["name"] != "tls" or path.name in ("tls.crt", "tls.key", "ca.crt")
    return False


class TestServers:
    def test_ports_are_those_that_they_bind(self, target: str) -> None:
        for service, pod, container, told in servers(target):
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            bound = {
                "grpc": told["BIND"],
                "health": told["HEALTH_ADDRESS"],
                "metrics": told["METRICS_ADDRESS"],
            }
            assert {name: host_port(address) for name, address in bound.items()} == {
                name: ("0.0.0.0", port) for name, port in ports.items()
            }
            assert len(set(ports.values())) == 3
            offered = named(pod.resources, "Service", service)["spec"]["ports"]
            assert {port["targetPort"]: port["port"] for port in offered} == {
                name: ports[name] for name in ("grpc", "metrics")
            }

    def test_probes_ask_for_what_they_tell(self, target: str) -> None:
        for service, _, container, told in servers(target):
            probes = [container[f"{name}Probe"]["grpc"] for name in ("startup", "liveness")]
            ready = container["readinessProbe"]["grpc"]
            _, port = host_port(told["HEALTH_ADDRESS"])
            # A restart brings no database back.
            assert probes == [{"port": port, "service": LIVE}] * 2
            assert ready == {"port": port, "service": HEALTH_NAMES[service]}

    def test_health_is_told_under_the_services_own_names(self) -> None:
        modules = (registry_pb2, trainer_pb2, renderer_pb2)
        described = [
            f"{module.DESCRIPTOR.package}.{name}"
            for module in modules
            for name in module.DESCRIPTOR.services_by_name
        ]
        assert described == [HEALTH_NAMES[service] for service in SERVICES]

    def test_they_have_the_time_to_finish(self, target: str) -> None:
        for service, pod, container, told in servers(target):
            before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
            # Kubernetes tells the Service and the pod at the same time.
            assert before >= 5
            needed = before + GRACES[service] * float(told["GRACE_SECONDS"]) + MARGIN_SECONDS
            assert pod.spec["terminationGracePeriodSeconds"] >= needed, service

    def test_a_release_takes_no_pod_away_first_unless_a_new_one_needs_its_gpu(
        self, target: str
    ) -> None:
        for service, pod, container, _ in servers(target):
            strategy = named(pod.resources, "Deployment", service)["spec"]["strategy"]
            gpu = "nvidia.com/gpu" in container["resources"]["limits"]
            wanted = {"maxSurge": 1 - gpu, "maxUnavailable": 0 + gpu}
            assert strategy["rollingUpdate"] == wanted

    def test_they_have_a_gpu_where_they_compute_on_one(self, target: str) -> None:
        for service, _, container, told in servers(target):
            elsewhere = told.get("RUNNER") == "ray" or told.get("BACKEND") == "serve"
            computes = told.get("DEVICE") == "cuda" and not elsewhere
            assert ("nvidia.com/gpu" in container["resources"]["limits"]) == computes, service


class TestImages:
    def test_none_is_whatever_is_newest(self, target: str) -> None:
        for _, container in containers(target):
            name, colon, tag = container["image"].rpartition(":")
            assert (bool(name), colon) == (True, ":"), container["image"]
            assert tag != "latest"
            assert "/" not in tag

    def test_ours_are_those_that_make_builds_of_this_release(self, target: str) -> None:
        for _, container in containers(target):
            name, _, tag = container["image"].rpartition("/")[2].rpartition(":")
            if name.startswith("perfuse-"):
                service = name.removeprefix("perfuse-")
                assert (ROOT / "services" / service / "Dockerfile").is_file()
                assert tag == __version__
