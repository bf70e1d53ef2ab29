"""`perfuse doctor`: each thing that may be wrong, told apart from the others, and never hanging."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from platform_up import Platform
from serving.authority import Authority

from perfuse.cli import installation_checks, run
from perfuse.cli.endpoint_checks import check_access, check_base_models, check_service
from perfuse.cli.finding import Finding, ok, together
from perfuse.client import Client, Connection
from perfuse.client.endpoint import look
from perfuse.client.health import SERVICES, check


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody has said where services are."""
    for name in ("REGISTRY", "TRAINER", "RENDERER", "TENANT", "TOKEN", "CA", "CONFIG"):
        monkeypatch.delenv(f"PERFUSE_{name}", raising=False)
    monkeypatch.setenv("PERFUSE_HOME", str(tmp_path / "home"))


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first test has it loaded, which takes seconds; the others need not."""
    monkeypatch.setattr("perfuse.cli.doctor.check_device", lambda: iter(()))


def doctor(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = run([*options, "doctor", "--json"])
    return int(code), json.loads(capsys.readouterr().out)


def only(findings: Iterator[Finding]) -> Finding:
    (found,) = findings
    return found


@contextmanager
def registry_served(folder: Path | None = None, state: int = 1) -> Iterator[str]:
    """A server that tells the Registry's health; with TLS where a folder has a certificate."""
    with ThreadPoolExecutor(4) as threads:
        server: Any = grpc.server(threads)
        health: Any = HealthServicer()
        health.set(SERVICES["registry"], state)
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        if folder is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            pair = (folder / "key.pem").read_bytes(), (folder / "cert.pem").read_bytes()
            port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


def test_a_platform_in_health(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = doctor(capsys, "--config", str(platform.home / "up.toml"))
    marks = {each["check"]: each["mark"] for each in told["findings"]}
    assert code == 0, told
    assert told["healthy"] is True
    wanted = ("Python", "packages", "torch", "folder", "configuration", "Registry", "Trainer")
    for name in (*wanted, "Renderer", "token", "tenant", "base models"):
        assert marks[name] == "ok", told


@pytest.mark.usefixtures("no_torch")
def test_nothing_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", 0))  # Nobody can listen there, and nobody does.
        address = f"127.0.0.1:{somebody.getsockname()[1]}"
        places = [f"--{service}={address}" for service in SERVICES]
        assert run([*places, "doctor"]) == 1
        lines = capsys.readouterr().out.splitlines()
    assert f"problem Registry: nothing listens at {address}" in "\n".join(lines)
    for name in ("Registry", "Trainer", "Renderer", "token"):
        (line,) = [line for line in lines if line.startswith(f"problem {name}: ")]
        assert "perfuse up" in line
    assert any(line.startswith("note    configuration: no file") for line in lines)
    assert all(line.split()[0] in ("ok", "note", "problem") for line in lines), "one line a check"


@pytest.mark.usefixtures("no_torch")
@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "is not there"), ("registry = ", "is not readable TOML"), ("port = 1", "it may have")],
)
def test_a_configuration_that_cannot_be_read(
    content: str | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "perfuse.toml"
    if content is not None:
        file.write_text(content)
    code, told = doctor(capsys, "--config", str(file))
    assert code == 1
    (finding,) = [each for each in told["findings"] if each["check"] == "configuration"]
    assert finding["mark"] == "problem"
    assert str(file) in finding["text"]
    assert words in finding["text"]


def test_a_file_with_a_token_that_others_may_read(tmp_path: Path) -> None:
    file = tmp_path / "perfuse.toml"
    file.write_text("")
    file.chmod(0o644)
    found = only(installation_checks.check_configuration(file))
    assert (found.mark, found.remedy) == ("note", f"chmod 600 {file}")
    file.chmod(0o600)
    assert only(installation_checks.check_configuration(file)).mark == "ok"


def test_a_token_that_nobody_knows(platform: Platform) -> None:
    stranger = replace(platform.connection, token="perfuse_nobody")
    found = only(check_access(stranger, list(SERVICES)))
    assert found.mark == "problem"
    assert "unknown to the Registry and the Renderer and the Trainer" in found.text
    assert "perfuse_nobody" not in found.text + found.remedy


def test_a_tenant_that_is_not_the_tokens_own(platform: Platform) -> None:
    found = list(check_access(replace(platform.connection, tenant="globex"), list(SERVICES)))
    assert [each.mark for each in found] == ["ok", "problem"]
    assert found[1].text == "globex is not the token's own"
    *_, last = check_access(replace(platform.connection, tenant=""), list(SERVICES))
    assert (last.check, last.mark) == ("tenant", "problem")


def test_services_that_are_swapped(platform: Platform) -> None:
    found = only(
        check_service(
            replace(platform.connection, registry=platform.connection.trainer), "registry"
        )
    )
    assert found.mark == "problem"
    assert "is a gRPC server, but no Registry" in found.text


def test_a_base_model_that_only_the_registry_has(platform: Platform) -> None:
    with Client(platform.connection, timeout=60) as client:
        toybox = client.base_models.get("toybox")
        other = replace(toybox, name="baseModels/other", fingerprint=f"sha256:{'0' * 64}")
        client.base_models.create(other)
        try:
            agreeing, elsewhere = check_base_models(platform.connection)
        finally:
            client.base_models.delete("other")
    assert (agreeing.mark, elsewhere.mark) == ("ok", "note")
    assert "other" in elsewhere.text


def test_plain_text_and_tls_are_told_apart(tmp_path: Path) -> None:
    Authority().install(tmp_path, "registry")
    ca = tmp_path / "ca.pem"
    with registry_served() as plain, registry_served(tmp_path) as secure:
        well = only(check_service(Connection(registry=plain), "registry"))
        assert (well.mark, well.text) == (
            "ok",
            f"{plain} serves, in plain text, on this machine",
        )
        well = only(check_service(Connection(registry=secure, ca=ca), "registry"))
        assert (well.mark, well.text) == ("ok", f"{secure} serves, with TLS")
        ill = only(check_service(Connection(registry=secure), "registry"))
        assert ill.mark == "problem"
        assert "speaks TLS, and plain text was expected" in ill.text
        assert "PERFUSE_CA" in ill.remedy
        ill = only(check_service(Connection(registry=plain, ca=ca), "registry"))
        assert ill.mark == "problem"
        assert "speaks plain text, and TLS was expected" in ill.text
        stranger = tmp_path / "stranger"
        stranger.mkdir()
        Authority("stranger").install(stranger)
        ill = only(check_service(Connection(registry=secure, ca=stranger / "ca.pem"), "registry"))
        assert ill.mark == "problem"
        assert "is not vouched for by" in ill.text
        ill = only(check_service(Connection(registry=secure, ca=tmp_path / "none"), "registry"))
        assert "cannot be read" in ill.text


def test_a_service_that_lives_but_cannot_serve() -> None:
    with registry_served(state=health_pb2.HealthCheckResponse.NOT_SERVING) as address:
        found = only(check_service(Connection(registry=address), "registry"))
    assert found.mark == "problem"
    assert "lives but cannot serve" in found.text


def test_a_name_without_an_address() -> None:
    found = only(check_service(Connection(registry="nowhere.invalid:443"), "registry"))
    assert found.mark == "problem"
    assert "nowhere.invalid is not the name of a machine" in found.text


def test_whoever_says_nothing_is_not_waited_for() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        assert look(address, timeout=0.2).speech == "SILENT"
        assert check(address, timeout=0.2).state == "SILENT"


def test_a_check_that_hangs_or_fails_is_a_finding() -> None:
    release = threading.Event()

    def hangs() -> Iterator[Finding]:
        yield ok("hangs", "so far")
        release.wait()

    def fails() -> Iterator[Finding]:
        yield ok("fails", "so far")
        raise ZeroDivisionError

    try:
        found = together({"hangs": hangs, "fails": fails}, 0.2)
    finally:
        release.set()
    assert [(each.check, each.mark) for each in found] == [
        ("hangs", "ok"),
        ("hangs", "problem"),
        ("fails", "ok"),
        ("fails", "problem"),
    ]


def test_what_this_machine_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    absent = {"torch", "grpcio"}
    real = installation_checks.metadata.version

    def version(package: str) -> str:
        if package in absent:
            raise installation_checks.metadata.PackageNotFoundError(package)
        return real(package)

    monkeypatch.setattr(installation_checks.metadata, "version", version)
    base, *extras = installation_checks.check_packages()
    assert base.mark == "problem"
    assert "grpcio" in base.text
    assert {each.check: each.remedy for each in extras} == {
        f"extra {name}": f"pip install 'perfuse[{name}]'"
        for name in ("engine", "trainer", "renderer")
    }
    assert {each.mark for each in extras} == {"note"}, "whoever only calls needs none of them"
    (tmp_path / "home").write_text("a file where the folder should be")
    found = only(installation_checks.check_home())
    assert (found.check, found.mark) == ("folder", "problem")
