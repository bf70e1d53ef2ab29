"""The Dockerfiles, by a linter and by our own rules, for no Docker runs here."""

from __future__ import annotations

import functools
import io
import json
import re
import subprocess
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.manifests import ROOT, SERVICES, build, named
from perfuse import __version__

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKED = {
    canonicalize_name(name): version
    for name, version in re.findall(
        r"(?m)^([\w.-]+)==([^\s;]+)", (ROOT / "requirements.lock").read_text()
    )
}
DIGEST = "sha256:" + "0123456789abcdef" * 4


class Dockerfile:
    """A service's Dockerfile, by its instructions.

    Attributes:
        stages: the instructions of each, FROM first; what stands before the first is dropped.
    """

    def __init__(self, service: str) -> None:
        self.path = ROOT / "services" / service / "Dockerfile"
        parser = DockerfileParser(fileobj=io.BytesIO(self.path.read_bytes()))
        self.stages: list[list[tuple[str, str]]] = []
        for each in parser.structure:
            if each["instruction"] == "FROM":
                self.stages.append([])
            if each["instruction"] != "COMMENT" and self.stages:
                self.stages[-1].append((each["instruction"], each["value"]))

    def values(self, instruction: str) -> list[str]:
        """Of the stage that becomes the image."""
        return [value for name, value in self.stages[-1] if name == instruction]


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def dockerfile(service: str) -> Dockerfile:
    return Dockerfile(service)


def lint(text: str) -> list[dict[str, Any]]:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    ran = subprocess.run(
        [hadolint, "--no-color", "--format=json", "--failure-threshold=style", "-"],
        input=text,
        capture_output=True,
        text=True,
        cwd="/",
    )
    findings: list[dict[str, Any]] = json.loads(ran.stdout)
    assert bool(findings) == bool(ran.returncode), ran.stderr
    return findings


class TestDockerfiles:
    def test_the_linter_finds_nothing(self, dockerfile: Dockerfile) -> None:
        assert lint(dockerfile.path.read_text()) == []

    def test_the_linter_finds_what_is_planted(self, dockerfile: Dockerfile) -> None:
        text = dockerfile.path.read_text().replace("USER 10001:10001", "USER root")
        found = {each["code"] for each in lint(text + "FROM debian:latest\n")}
        assert {"DL3002", "DL3007"} <= found

    def test_nothing_is_pinned_by_guess(self, dockerfile: Dockerfile) -> None:
        """The base comes with its digest from outside, without a default that would grow old."""
        lines = dockerfile.path.read_text().splitlines()
        assert "ARG PYTHON_IMAGE" in lines
        bases = [value.split()[0] for stage in dockerfile.stages for _, value in stage[:1]]
        assert bases == ["${PYTHON_IMAGE}"] * 2

    def test_only_what_is_built_gets_in(self, service: str, dockerfile: Dockerfile) -> None:
        copied = ["--from=build /opt/perfuse /opt/perfuse"]
        if service != "registry":
            copied.append("toybox/perfuse_toybox/base /opt/perfuse/toybox")
        assert dockerfile.values("COPY") == copied
        assert not dockerfile.values("ADD")
        assert not dockerfile.values("RUN")
        (run,) = (value for name, value in dockerfile.stages[0] if name == "RUN")
        assert f'--constraint requirements.lock ".[{service}]"' in run

    def test_it_is_a_number_that_runs_it(self, service: str, dockerfile: Dockerfile) -> None:
        (user,) = dockerfile.values("USER")
        pod = named(build("overlays/kind"), "Deployment", service)["spec"]["template"]["spec"]
        context = pod["securityContext"]
        assert user == f"{context['runAsUser']}:{context['runAsGroup']}" == "10001:10001"

    def test_it_starts_what_the_pods_start(self, service: str, dockerfile: Dockerfile) -> None:
        """In exec form, so that signals reach the service and no shell."""
        (command,) = dockerfile.values("CMD")
        (container,) = named(build("overlays/kind"), "Deployment", service)["spec"]["template"][
            "spec"
        ]["containers"]
        assert json.loads(command) == container["command"] == [f"perfuse-{service}", "serve"]
        assert not dockerfile.values("ENTRYPOINT")
        (ports,) = dockerfile.values("EXPOSE")
        assert [int(port) for port in ports.split()] == [
            port["containerPort"] for port in container["ports"]
        ]

    def test_it_says_what_it_is(self, service: str, dockerfile: Dockerfile) -> None:
        (text,) = dockerfile.values("LABEL")
        labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', text))
        assert labels.keys() == {"title", "description", "licenses", "version", "revision"}
        assert labels["title"] == f"perfuse-{service}"
        assert labels["version"] == "${VERSION}"
        assert labels["licenses"] == PROJECT["license"]

    def test_it_holds_no_secret(self, dockerfile: Dockerfile) -> None:
        text = dockerfile.path.read_text()
        told = [
            value for stage in dockerfile.stages for name, value in stage if name in ("ARG", "ENV")
        ]
        assert not [each for each in told if re.search(r"(?i)token|password|secret|key", each)]
        # What a mount brings stays in no layer.
        assert "--mount=type=secret" in text

    def test_what_is_not_built_stays_outside(self) -> None:
        rules = [
            line
            for line in (ROOT / ".dockerignore").read_text().splitlines()
            if line and not line.startswith("#")
        ]
        assert rules[0] == "*"
        let_in = {rule[1:] for rule in rules if rule.startswith("!")}
        copied = set()
        for service in SERVICES:
            for stage in Dockerfile(service).stages:
                for name, value in stage:
                    if name == "COPY" and not value.startswith("--from"):
                        copied |= {part.split("/")[0] for part in value.split()[:-1]}
        assert copied == let_in
        assert all((ROOT / name).exists() for name in let_in)


class TestPackages:
    """What `pip install perfuse[EXTRA]` brings, by what the installed packages say they need."""

    @staticmethod
    @functools.cache
    def brought(extra: str) -> frozenset[str]:
        found: set[str] = set()
        waiting = [*map(Requirement, PROJECT["dependencies"]), Requirement(f"perfuse[{extra}]")]
        seen = set()
        while waiting:
            requirement = waiting.pop()
            name = canonicalize_name(requirement.name)
            key = (name, *sorted(requirement.extras))
            if key in seen:
                continue
            seen.add(key)
            if name == "perfuse":
                for each in requirement.extras:
                    waiting += map(Requirement, PROJECT["optional-dependencies"][each])
                continue
            found.add(name)
            for text in metadata.requires(name) or []:
                needed = Requirement(text)
                extras = [*requirement.extras, ""]
                if needed.marker is None or any(
                    needed.marker.evaluate({"extra": one}) for one in extras
                ):
                    waiting.append(needed)
        return frozenset(found)

    def test_the_registry_has_no_torch_and_nothing_that_computes(self) -> None:
        brought = self.brought("registry")
        assert {"sqlalchemy", "alembic", "minio", "grpcio", "psycopg"} <= brought
        heavy = {"torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy", "ray"}
        assert not brought & heavy

    def test_the_others_have_what_they_compute_with(self) -> None:
        assert {"torch", "diffusers", "ray"} <= self.brought("renderer") & self.brought("trainer")
        assert not self.brought("renderer") & {"alembic", "minio", "psycopg"}
        # The nodes of Ray are of the Trainer's image, and step rows for the Renderer as well.
        assert self.brought("renderer") <= self.brought("trainer")

    @pytest.mark.parametrize("extra", SERVICES)
    def test_nothing_for_tests_gets_in_and_all_is_pinned(self, extra: str) -> None:
        brought = self.brought(extra)
        assert not brought & {"pytest", "hypothesis", "moto", "mypy", "ruff", "grpcio-tools"}
        for name in brought:
            installed = metadata.version(name).partition("+")[0]
            assert LOCKED.get(name) == installed, name


class TestMake:
    @staticmethod
    def make(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", "--no-print-directory", "images", *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )

    def test_it_builds_every_service_under_the_releases_tag(self) -> None:
        base = f"python:3.11-slim-bookworm@{DIGEST}"
        ran = self.make("DOCKER=echo ran:", f"PYTHON_IMAGE={base}")
        assert ran.returncode == 0, ran.stderr
        built = [line.split() for line in ran.stdout.splitlines() if line.startswith("ran:")]
        assert [words[words.index("--tag") + 1] for words in built] == [
            f"perfuse-{service}:{__version__}" for service in SERVICES
        ]
        for words, service in zip(built, SERVICES, strict=True):
            assert words[words.index("--file") + 1] == f"services/{service}/Dockerfile"
            assert f"PYTHON_IMAGE={base}" in words
            assert f"VERSION={__version__}" in words

    @pytest.mark.parametrize("given", ["", "python:3.11-slim", "python@sha256:abc"])
    def test_a_base_without_a_digest_is_refused(self, given: str) -> None:
        ran = self.make("DOCKER=echo ran:", f"PYTHON_IMAGE={given}")
        assert ran.returncode != 0
        assert "ran:" not in ran.stdout
        assert f"PYTHON_IMAGE is '{given}'; name a slim image of Python 3.11" in ran.stderr
