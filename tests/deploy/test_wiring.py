"""What refers to something finds it: Services their pods, pods their settings and secrets."""

from __future__ import annotations

import json
import re
import runpy
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy.manifests import DEPLOY, ROOT, SERVICES, TARGETS, Manifest, Pod, build, named, pods
from perfuse.quotas import Quotas
from perfuse.serving.tokens import TokenAuthenticator
from perfuse_renderer import measures


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def of_kind(target: str, *kinds: str) -> Iterator[Manifest]:
    yield from (each for each in build(target) if each["kind"] in kinds)


def selected(target: str, selector: Mapping[str, str]) -> list[Pod]:
    return [pod for pod in pods(build(target)) if selector.items() <= pod.labels.items()]


def secrets_of(pod: Pod) -> Iterator[tuple[str, str]]:
    """Every Secret and key that a pod needs, with what its settings name of the mounted ones."""
    for container in pod.containers:
        told = pod.environment(container)
        yield from (value for value in told.values() if isinstance(value, tuple))
        for path, volume in pod.mounts(container).items():
            if "secret" in volume:
                for value in told.values():
                    if isinstance(value, str) and value.startswith(f"{path}/"):
                        yield volume["secret"]["secretName"], Path(value).name


class TestSelectors:
    def test_a_service_has_the_pods_of_one_owner_and_their_ports(self, target: str) -> None:
        for service in of_kind(target, "Service"):
            found = selected(target, service["spec"]["selector"])
            assert [pod.owner.split("/")[1] for pod in found] == [service["metadata"]["name"]]
            ports = {port["name"] for each in found[0].containers for port in each.get("ports", [])}
            assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports

    def test_owners_budgets_and_spreads_are_of_their_own_pods(self, target: str) -> None:
        for owner in of_kind(target, "Deployment", "StatefulSet"):
            name = f"{owner['kind']}/{owner['metadata']['name']}"
            template = owner["spec"]["template"]["spec"]
            selectors = [
                owner["spec"]["selector"],
                *(each["labelSelector"] for each in template.get("topologySpreadConstraints", [])),
            ]
            for selector in selectors:
                found = selected(target, selector["matchLabels"])
                assert [pod.owner for pod in found] == [name]
        budgets = {
            each["metadata"]["name"]: each for each in of_kind(target, "PodDisruptionBudget")
        }
        assert budgets.keys() == set(SERVICES)
        for name, budget in budgets.items():
            found = selected(target, budget["spec"]["selector"]["matchLabels"])
            assert [pod.owner for pod in found] == [f"Deployment/{name}"]

    def test_monitors_find_a_service_and_its_port(self, target: str) -> None:
        for monitor in of_kind(target, "ServiceMonitor"):
            wanted = monitor["spec"]["selector"]["matchLabels"].items()
            (service,) = (
                each
                for each in of_kind(target, "Service")
                if wanted <= each["metadata"]["labels"].items()
            )
            ports = {port["name"] for port in service["spec"]["ports"]}
            assert {each["port"] for each in monitor["spec"]["endpoints"]} <= ports

    def test_all_is_in_one_namespace(self, target: str) -> None:
        for each in build(target):
            expected = None if each["kind"] == "Namespace" else "perfuse"
            assert each["metadata"].get("namespace") == expected


class TestReferences:
    def test_settings_and_files_are_there(self, target: str) -> None:
        resources = build(target)
        for pod in pods(resources):
            for container in pod.containers:
                for source in container.get("envFrom", []):
                    assert named(resources, "ConfigMap", source["configMapRef"]["name"])["data"]
            for volume in pod.spec.get("volumes", []):
                if "configMap" in volume:
                    assert named(resources, "ConfigMap", volume["configMap"]["name"])["data"]
                if "persistentVolumeClaim" in volume:
                    claim = volume["persistentVolumeClaim"]["claimName"]
                    assert named(resources, "PersistentVolumeClaim", claim)

    def test_secrets_are_made_here_or_listed_in_the_guide(self, target: str) -> None:
        needed = {secret for pod in pods(build(target)) for secret in secrets_of(pod)}
        needed -= made_in_the_cluster(target)
        guide = listed_in_the_guide()
        assert needed <= guide
        if target == "tests/ray":
            assert made_in_the_cluster(target)
        if target == "tests/bare":
            assert needed == guide - {
                each for each in guide if each[0].split("-")[0] in ("postgres", "minio")
            }

    def test_issuers_are_there_and_certificates_name_their_services(self, target: str) -> None:
        resources = build(target)
        certificates = list(of_kind(target, "Certificate"))
        for each in certificates:
            named(resources, "Issuer", each["spec"]["issuerRef"]["name"])
        for service in SERVICES if certificates else ():
            spec = named(resources, "Certificate", service)["spec"]
            assert spec["secretName"] == f"{service}-tls"
            assert {service, f"{service}.perfuse.svc"} <= set(spec["dnsNames"])

    def test_what_is_scaled_is_there_and_leaves_its_number_to_the_scaler(self, target: str) -> None:
        scaled = set()
        for each in of_kind(target, "HorizontalPodAutoscaler", "ScaledObject"):
            name = each["spec"]["scaleTargetRef"]["name"]
            assert name not in scaled, f"two autoscalers would pull at {name}"
            scaled.add(name)
        for each in of_kind(target, "Deployment"):
            assert ("replicas" in each["spec"]) == (each["metadata"]["name"] not in scaled)

    @pytest.mark.parametrize("target", ["tests/gpu", "tests/keda"])
    def test_scalers_ask_for_measures_that_are_told(self, target: str) -> None:
        told = {value for value in vars(measures).values() if isinstance(value, str)}
        text = json.dumps(list(of_kind(target, "HorizontalPodAutoscaler", "ScaledObject")))
        assert set(re.findall(r"perfuse_\w+", text)) == {measures.QUEUE_SECONDS} <= told


class TestFiles:
    def test_the_quotas_are_read(self) -> None:
        text = named(build("overlays/kind"), "ConfigMap", "quotas")["data"]["quotas.toml"]
        assert text == (DEPLOY / "base" / "quotas.toml").read_text()
        assert Quotas(DEPLOY / "base" / "quotas.toml").limit("acme", "concepts") is None

    def test_the_trials_secrets_are_all_that_its_pods_need(self, tmp_path: Path) -> None:
        made, token = runpy.run_path(str(DEPLOY / "trial_secrets.py"))["trial_secrets"]("acme")
        keys = {(name, key) for name, values in made.items() for key in values}
        needed = {secret for pod in pods(build("overlays/kind")) for secret in secrets_of(pod)}
        assert keys == needed - made_in_the_cluster("overlays/kind")
        tokens = tmp_path / "tokens"
        tokens.write_text(made["perfuse-tokens"]["tokens"])
        TokenAuthenticator(tokens)
        assert token not in json.dumps(made)
        # What the database is made with is what the services connect with.
        for name in ("registry", "trainer"):
            password = made["postgres-secrets"][f"{name}-password"]
            url = f"postgresql://{name}:{password}@postgres:5432/{name}"
            assert made[f"{name}-secrets"]["database-url"] == url

    def test_secrets_are_written_for_kubernetes_and_the_token_for_its_owner(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        token = tmp_path / "token"
        main = runpy.run_path(str(DEPLOY / "trial_secrets.py"))["main"]
        monkeypatch.setattr(sys, "argv", ["trial_secrets.py", "--token-file", str(token)])
        main()
        items = json.loads(capsys.readouterr().out)["items"]
        assert {each["kind"] for each in items} == {"Secret"}
        assert {each["metadata"]["namespace"] for each in items} == {"perfuse"}
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        assert token.read_text().startswith("perfuse_")
        # A second set would not fit the database of the first.
        with pytest.raises(FileExistsError):
            main()
        assert not capsys.readouterr().out


def made_in_the_cluster(target: str) -> set[tuple[str, str]]:
    """By cert-manager and by KubeRay."""
    certificates = {
        (each["spec"]["secretName"], key)
        for each in of_kind(target, "Certificate")
        for key in ("tls.crt", "tls.key", "ca.crt")
    }
    clusters = of_kind(target, "RayCluster")
    return certificates | {(each["metadata"]["name"], "auth_token") for each in clusters}


def listed_in_the_guide() -> set[tuple[str, str]]:
    """Rows of the table of Secrets: `| `name` | `key`, `key` | ...`."""
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    rows: Any = re.findall(
        r"(?m)^\| ((?:`[a-z-]+`(?:, )?)+) \| ((?:`[a-z0-9.-]+`(?:, )?)+) \|", text
    )
    return {
        (name, key)
        for names, keys in rows
        for name in re.findall("`([^`]+)`", names)
        for key in re.findall("`([^`]+)`", keys)
    }
