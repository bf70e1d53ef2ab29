"""compose.yaml: what one machine runs, held to the same rules as the manifests."""

from __future__ import annotations

import json
import os
import re
import runpy
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose
from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store

from deploy.manifests import DEPLOY, ROOT, SERVICES, build, pods
from perfuse import __version__
from perfuse.client.health import SERVICES as HEALTH_NAMES
from perfuse.serving.settings import SECRETS_DIRECTORY, ServingSettings, host_port
from perfuse.serving.tokens import TokenAuthenticator
from perfuse_registry.settings import RegistrySettings
from perfuse_renderer.settings import RendererSettings
from perfuse_trainer.service_settings import TrainerSettings

SETTINGS: dict[str, type[ServingSettings]] = {
    "registry": RegistrySettings,
    "trainer": TrainerSettings,
    "renderer": RendererSettings,
}
SECRETS = "/run/secrets"


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """As Compose fills in `${NAME:-default}` and `${NAME:?what to do}`."""

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        given = variables.get(name)
        assert given or kind == ":-", f"{name} is not set: {rest}"
        return given or rest

    return re.sub(r"\$\{(\w+)(:-|:\?)([^}]*)\}", value, text)


def load(**variables: str) -> dict[str, Any]:
    text = (ROOT / "compose.yaml").read_text()
    told: dict[str, Any] = yaml.safe_load(interpolated(text, variables))
    return told


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return load(PERFUSE_USER="1000:1000")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command for secrets writes."""
    place = tmp_path_factory.mktemp("compose")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DEPLOY))
        patch.setattr(sys, "argv", ["compose_secrets.py", "--folder", str(place)])
        runpy.run_path(str(DEPLOY / "compose_secrets.py"))["main"]()
    return place


def ours(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: each
        for name, each in compose["services"].items()
        if each["image"].startswith("perfuse-")
    }


def mounted(service: dict[str, Any]) -> dict[str, str]:
    """Name of a secret's file in the container → of the secret."""
    pairs = [
        (each, each) if isinstance(each, str) else (each["target"], each["source"])
        for each in service.get("secrets", [])
    ]
    return dict(pairs)


class TestTheFile:
    def test_compose_knows_every_field(self, compose: dict[str, Any]) -> None:
        PyCompose.from_json(json.dumps(compose)).validate()

    @pytest.mark.parametrize(
        ("old", "new"),
        [("stop_grace_period:", "stop_grace:"), ("- tls_ca\n", "- tls_authority\n")],
    )
    def test_a_planted_fault_is_found(self, old: str, new: str) -> None:
        text = interpolated((ROOT / "compose.yaml").read_text(), {"PERFUSE_USER": "1000:1000"})
        assert old in text
        planted = yaml.safe_load(text.replace(old, new))
        with pytest.raises(ValueError, match=re.escape(new.strip(":- \n"))):
            PyCompose.from_json(json.dumps(planted)).validate()

    def test_without_secrets_it_says_how_to_make_them(self) -> None:
        with pytest.raises(AssertionError, match=r"run deploy/compose_secrets\.py first"):
            load()

    def test_images_are_those_of_the_manifests(self, compose: dict[str, Any]) -> None:
        deployed = {
            container["image"]
            for pod in pods(build("overlays/kind"))
            for container in pod.containers
        }
        assert {each["image"] for each in compose["services"].values()} == deployed
        assert f"perfuse-renderer:{__version__}" in deployed
        other = load(PERFUSE_USER="1:1", PERFUSE_VERSION="9.9")
        assert {each["image"].split(":")[1] for each in ours(other).values()} == {"9.9"}

    def test_volumes_and_files_are_there(self, compose: dict[str, Any]) -> None:
        for each in compose["services"].values():
            for volume in each.get("volumes", []):
                source = volume.split(":")[0]
                assert source in compose["volumes"] or (ROOT / source).is_file()

    def test_strangers_reach_nothing(self, compose: dict[str, Any]) -> None:
        published = {
            name: each["ports"] for name, each in compose["services"].items() if "ports" in each
        }
        assert published == {
            "registry": ["127.0.0.1:7071:7071"],
            "trainer": ["127.0.0.1:7072:7072"],
            "renderer": ["127.0.0.1:7073:7073"],
        }

    def test_services_may_do_nothing(self, compose: dict[str, Any]) -> None:
        for name, each in ours(compose).items():
            assert each["user"] == "1000:1000"
            assert each["read_only"] is True, name
            assert each["init"] is True
            assert each["cap_drop"] == ["ALL"]
            assert each["security_opt"] == ["no-new-privileges:true"]
            assert each["tmpfs"] == ["/tmp"]

    def test_they_start_in_order_and_end_in_peace(self, compose: dict[str, Any]) -> None:
        services = compose["services"]
        done, healthy = "service_completed_successfully", "service_healthy"
        for name in ("registry", "trainer"):
            before = {k: v["condition"] for k, v in services[name]["depends_on"].items()}
            assert before[f"{name}-migrate"] == done
            migrate = services[f"{name}-migrate"]
            assert migrate["depends_on"]["postgres"]["condition"] == healthy
            assert migrate["restart"] == "on-failure"
        assert services["registry"]["depends_on"]["buckets"]["condition"] == done
        for name in ("trainer", "renderer"):
            assert services[name]["depends_on"]["registry"]["condition"] == healthy
        for pod in pods(build("overlays/kind")):
            if pod.role in SERVICES:
                seconds = pod.spec["terminationGracePeriodSeconds"]
                assert services[pod.role]["stop_grace_period"] == f"{seconds}s"

    @pytest.mark.parametrize("service", SERVICES)
    def test_health_is_asked_where_it_is_told(self, compose: dict[str, Any], service: str) -> None:
        each = compose["services"][service]
        address = each["environment"][f"PERFUSE_{service.upper()}_HEALTH_ADDRESS"]
        assert host_port(address)[0] == "127.0.0.1"
        *command, program = each["healthcheck"]["test"]
        assert command == ["CMD", "python", "-c"]
        asked: list[Any] = []

        def check(*arguments: Any, **options: Any) -> Any:
            asked.append((arguments, options))
            return type("Health", (), {"state": "SERVING"})

        program = program.replace("from perfuse.client.health import check", "")
        with pytest.raises(SystemExit) as ended:
            exec(compile(program, "healthcheck", "exec"), {"check": check})
        assert asked == [((address,), {"service": HEALTH_NAMES[service]})]
        assert not ended.value.code


class TestSecrets:
    def test_all_that_is_named_is_written_for_its_owner_alone(
        self, compose: dict[str, Any], folder: Path
    ) -> None:
        named = {each["file"] for each in compose["secrets"].values()}
        written = {str(path.relative_to(folder)) for path in (folder / "secrets").iterdir()}
        # The token is the caller's.
        assert written == named | {"secrets/token"}
        assert stat.S_IMODE((folder / "secrets").stat().st_mode) == 0o700
        assert {stat.S_IMODE((folder / each).stat().st_mode) for each in written} == {0o600}
        assert (folder / ".env").read_text() == f"PERFUSE_USER={os.getuid()}:{os.getgid()}\n"

    def test_they_are_not_written_over(self, folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(DEPLOY))
            write = runpy.run_path(str(DEPLOY / "compose_secrets.py"))["write"]
            with pytest.raises(FileExistsError):
                write(folder, {"token": "another"})
        assert (folder / "secrets" / "token").read_text() != "another"

    def test_none_is_in_the_environment(self, compose: dict[str, Any]) -> None:
        for name, each in compose["services"].items():
            for variable, value in each["environment"].items():
                if re.search(r"PASSWORD|TOKEN|SECRET|_KEY|ACCESS|DATABASE_URL|_USER", variable):
                    assert value.startswith(SECRETS), f"{name}: {variable}"
                if value.startswith(f"{SECRETS}/"):
                    assert Path(value).name in mounted(each), f"{name}: {variable}"

    @pytest.mark.parametrize(
        "name", ["registry-migrate", "registry", "trainer-migrate", "trainer", "renderer"]
    )
    def test_the_service_takes_its_settings(
        self,
        name: str,
        compose: dict[str, Any],
        folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        each, service = compose["services"][name], name.partition("-")[0]
        for variable in [one for one in os.environ if one.startswith("PERFUSE_")]:
            monkeypatch.delenv(variable)
        for target, source in mounted(each).items():
            file = folder / compose["secrets"][source]["file"]
            (tmp_path / target).write_bytes(file.read_bytes())
        (tmp_path / "tokens").chmod(0o600)
        fields, prefix = SETTINGS[service].model_fields, f"PERFUSE_{service.upper()}_"
        for variable, value in each["environment"].items():
            if variable != SECRETS_DIRECTORY:
                assert variable.removeprefix(prefix).lower() in fields, variable
            monkeypatch.setenv(variable, value.replace(SECRETS, str(tmp_path)))
        # Every file for a setting is called like one.
        secret = {one.removeprefix(prefix.lower()) for one in mounted(each) if "perfuse_" in one}
        assert secret <= fields.keys()
        settings: Any = SETTINGS[service].load()
        for one in secret:
            assert getattr(settings, one).get_secret_value(), one
        assert settings.credentials() is not None
        assert isinstance(TokenAuthenticator(settings.token_file), TokenAuthenticator)
        if service != "registry":
            assert settings.registry_credentials() is not None
            assert host_port(settings.registry) == ("registry", 7071)

    def test_the_certificate_is_good_for_every_name(self, folder: Path) -> None:
        def certificate(name: str) -> x509.Certificate:
            return x509.load_pem_x509_certificate((folder / "secrets" / name).read_bytes())

        policy = PolicyBuilder().store(Store([certificate("tls_ca")]))
        for name in (*SERVICES, "localhost"):
            chain = policy.build_server_verifier(x509.DNSName(name)).verify(
                certificate("tls_cert"), []
            )
            assert len(chain) == 2
