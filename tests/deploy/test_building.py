"""Every overlay and scenario builds, and Kubernetes would know each of its fields."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from kubernetes_validate import utils

from deploy.manifests import DEPLOY, OVERLAYS, TARGETS, Manifest, build, named, pods

# The oldest release that the manifests are for, and the newest that the schemas are of.
VERSIONS = ("1.32", "1.37")
OURS = {path.stem: json.loads(path.read_text()) for path in (DEPLOY / "schemas").glob("*.json")}


@pytest.fixture(scope="module", autouse=True)
def _schemas_are_read_once() -> Any:
    """The validator reads a megabyte of definitions for each resource."""
    patch = pytest.MonkeyPatch()
    patch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
    yield
    patch.undo()


def fault(resource: Manifest) -> str | None:
    """What is wrong with a resource, in the validator's words."""
    return _fault(json.dumps(resource))


@functools.cache
def _fault(text: str) -> str | None:
    """The targets have most of their resources in common."""
    resource = json.loads(text)
    kind = resource["kind"].lower()
    try:
        if kind in OURS:
            jsonschema.validate(resource, OURS[kind], jsonschema.Draft202012Validator)
        else:
            for version in VERSIONS:
                kubernetes_validate.validate(resource, version, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    return None


def test_there_is_something_to_build() -> None:
    assert {path.name for path in OVERLAYS} == {"kind", "production"}
    assert len(TARGETS) >= 7


@pytest.mark.parametrize("target", TARGETS)
def test_it_builds_and_every_field_is_known(target: str) -> None:
    resources = build(target)
    names = [(each["apiVersion"], each["kind"], each["metadata"]["name"]) for each in resources]
    assert len(set(names)) == len(names)
    faults = {f"{each['kind']}/{each['metadata']['name']}": fault(each) for each in resources}
    assert not {name: found for name, found in faults.items() if found}


@pytest.mark.parametrize("target", TARGETS)
def test_rays_templates_are_pod_templates(target: str) -> None:
    for pod in pods(build(target)):
        if pod.owner.startswith("RayCluster/"):
            template = {"metadata": {"labels": dict(pod.labels)}, "spec": pod.spec}
            resource = {"apiVersion": "v1", "kind": "PodTemplate", "template": template}
            assert fault({**resource, "metadata": {"name": "x"}}) is None


def _misspell_a_probe(resources: tuple[Manifest, ...]) -> Manifest:
    deployment = copy.deepcopy(named(resources, "Deployment", "registry"))
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["livenesProbe"] = container.pop("livenessProbe")
    return deployment


def _put_a_word_for_a_number(resources: tuple[Manifest, ...]) -> Manifest:
    deployment = copy.deepcopy(named(resources, "Deployment", "registry"))
    deployment["spec"]["replicas"] = "two"
    return deployment


def _misspell_rays_option(resources: tuple[Manifest, ...]) -> Manifest:
    cluster = copy.deepcopy(named(resources, "RayCluster", "perfuse-ray"))
    cluster["spec"]["enableInTreeAutoscalling"] = cluster["spec"].pop("enableInTreeAutoscaling")
    return cluster


def _give_ray_a_number(resources: tuple[Manifest, ...]) -> Manifest:
    cluster = copy.deepcopy(named(resources, "RayCluster", "perfuse-ray"))
    cluster["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    return cluster


def _misspell_a_certificate(resources: tuple[Manifest, ...]) -> Manifest:
    certificate = copy.deepcopy(named(resources, "Certificate", "registry"))
    certificate["spec"]["dnsName"] = certificate["spec"].pop("dnsNames")
    return certificate


@pytest.mark.parametrize(
    "plant",
    [
        _misspell_a_probe,
        _put_a_word_for_a_number,
        _misspell_rays_option,
        _give_ray_a_number,
        _misspell_a_certificate,
    ],
)
def test_a_planted_fault_is_found(plant: Callable[[tuple[Manifest, ...]], Manifest]) -> None:
    assert fault(plant(build("tests/ray"))) is not None
