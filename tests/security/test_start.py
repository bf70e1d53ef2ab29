"""No service starts where strangers reach it, in plain text or without knowing its callers."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from serving.authority import Authority
from typer.testing import CliRunner

from perfuse.serving import mint

SERVICES = ("registry", "trainer", "renderer")


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("lacking", ["TLS", "callers", "both"])
def test_beyond_loopback_it_needs_tls_and_an_authenticator(
    service: str, lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Authority().install(tmp_path)
    mint(tmp_path / "tokens", "acme", "alice", ["admin"])
    prefix = f"PERFUSE_{service.upper()}_"
    told = {"BIND": "0.0.0.0:0", "BASE_MODELS": f"small={tmp_path}"}
    if lacking == "callers":
        told |= {"TLS_CERT": f"{tmp_path}/cert.pem", "TLS_KEY": f"{tmp_path}/key.pem"}
    if lacking == "TLS":
        told |= {"TOKEN_FILE": f"{tmp_path}/tokens"}
    for name, value in told.items():
        monkeypatch.setenv(prefix + name, value)
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(f"perfuse_{service}.__main__")
    done = CliRunner().invoke(module.app, ["serve"])
    assert done.exit_code == 1
    said = " ".join(done.output.split())
    assert "0.0.0.0:0 can be reached from other machines" in said
    assert (f"{prefix}TLS_CERT" in said) == (lacking != "callers")
    assert (f"{prefix}TOKEN_FILE" in said) == (lacking != "TLS")
    assert {path.name for path in tmp_path.iterdir()} == {
        *("ca.pem", "cert.pem", "key.pem", "tokens"),
    }
