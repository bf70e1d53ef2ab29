"""Settings: safe as they come, and one sentence when they would not be."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic_settings import SettingsConfigDict

from perfuse.errors import FailedPrecondition
from perfuse.serving import ServingSettings
from perfuse.serving.settings import host_port, is_loopback


class ProbeSettings(ServingSettings):
    """As a service has them."""

    model_config = SettingsConfigDict(env_prefix="PERFUSE_PROBE_")

    bind: str = "127.0.0.1:7999"
    database: str = "sqlite://"


def test_the_defaults_serve_this_machine_alone() -> None:
    settings = ProbeSettings.load()
    assert settings.bind == "127.0.0.1:7999"
    assert settings.credentials() is None
    assert settings.metrics_address is None
    assert (settings.grace_seconds, settings.max_message_bytes, settings.threads) == (
        20,
        8 << 20,
        16,
    )


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFUSE_PROBE_THREADS", "3")
    monkeypatch.setenv("PERFUSE_PROBE_LOG_FORMAT", "console")
    monkeypatch.setenv("PERFUSE_PROBE_TOKEN_FILE", "/etc/tokens")
    settings = ProbeSettings.load()
    assert (settings.threads, settings.log_format) == (3, "console")
    assert settings.token_file == Path("/etc/tokens")


def test_a_file_stands_for_a_variable_that_is_not_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PERFUSE_SECRETS_DIRECTORY", str(tmp_path))
    monkeypatch.setenv("PERFUSE_PROBE_THREADS", "3")
    (tmp_path / "perfuse_probe_database").write_text("postgresql://of-the-file\n")
    (tmp_path / "perfuse_probe_threads").write_text("4")
    settings = ProbeSettings.load()
    assert (settings.database, settings.threads) == ("postgresql://of-the-file", 3)
    (tmp_path / "perfuse_probe_log_level").write_text("canary")
    with pytest.raises(FailedPrecondition, match="PERFUSE_PROBE_LOG_LEVEL: ") as caught:
        ProbeSettings.load()
    assert "canary" not in str(caught.value)
    monkeypatch.setenv("PERFUSE_SECRETS_DIRECTORY", str(tmp_path / "missing"))
    with pytest.raises(FailedPrecondition, match=r"PERFUSE_SECRETS_DIRECTORY is .*missing"):
        ProbeSettings.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [("THREADS", "canary"), ("THREADS", "0"), ("LOG_LEVEL", "canary"), ("GRACE_SECONDS", "-1")],
)
def test_a_bad_value_is_named_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"PERFUSE_PROBE_{name}", value)
    with pytest.raises(FailedPrecondition, match=f"PERFUSE_PROBE_{name}: ") as caught:
        ProbeSettings.load()
    assert "canary" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bind", ["0.0.0.0:7999", "[::]:7999", "192.0.2.1:1", "registry:7999"])
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"token_file": "t"},
        {"tls_cert": "c", "tls_key": "k"},
        {"tls_cert": "c", "token_file": "t"},
    ],
    ids=str,
)
def test_beyond_loopback_all_three_are_needed(bind: str, given: dict[str, str]) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        ProbeSettings(bind=bind, **given)  # type: ignore[arg-type]
    for name in ("tls_cert", "tls_key", "token_file"):
        assert (f"PERFUSE_PROBE_{name.upper()}" in str(caught.value)) or name in given
    whole = ProbeSettings(bind=bind, tls_cert=Path("c"), tls_key=Path("k"), token_file=Path("t"))
    assert whole.bind == bind


def test_half_of_tls_is_refused_on_loopback_too() -> None:
    with pytest.raises(FailedPrecondition, match="set both, or neither"):
        ProbeSettings(tls_key=Path("k"))


def test_beyond_loopback_any_authenticator_will_do() -> None:
    tls = {"tls_cert": Path("c"), "tls_key": Path("k"), "bind": "0.0.0.0:7999"}
    for given in (
        {"oidc_issuer": "https://issuer.example", "oidc_audience": "perfuse"},
        {"certificate_file": Path("f"), "tls_client_ca": Path("a")},
    ):
        assert ProbeSettings(**tls, **given).knows_callers  # type: ignore[arg-type]
        with pytest.raises(FailedPrecondition, match="PERFUSE_PROBE_TLS_CERT"):
            ProbeSettings(bind="0.0.0.0:7999", **given)  # type: ignore[arg-type]
    with pytest.raises(FailedPrecondition, match="PERFUSE_PROBE_OIDC_ISSUER"):
        ProbeSettings(**tls)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"certificate_file": "f"}, "set PERFUSE_PROBE_TLS_CLIENT_CA"),
        ({"tls_client_ca": "a"}, "set PERFUSE_PROBE_TLS_CERT"),
        ({"oidc_issuer": "https://issuer.example"}, "set PERFUSE_PROBE_OIDC_AUDIENCE"),
    ],
    ids=str,
)
def test_half_of_an_authenticator_is_none(given: dict[str, str], told: str) -> None:
    with pytest.raises(FailedPrecondition, match=told):
        ProbeSettings(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("OIDC_ISSUER", "http://issuer.example", "https"),
        ("OIDC_ALGORITHMS", "RS256,none", "algorithm"),
        ("OIDC_ALGORITHMS", "HS256", "algorithm"),
        ("OIDC_ALGORITHMS", "", "algorithm"),
        ("OIDC_GRANTS", "reader,root", "role"),
        ("OIDC_AUDIENCE", " , ", "audience"),
        ("OIDC_CA", "missing.pem", "cannot be read"),
    ],
)
def test_an_issuer_that_would_let_anyone_in(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    monkeypatch.setenv("PERFUSE_PROBE_OIDC_ISSUER", "https://issuer.example")
    monkeypatch.setenv("PERFUSE_PROBE_OIDC_AUDIENCE", "perfuse")
    monkeypatch.setenv(f"PERFUSE_PROBE_{name}", value)
    with pytest.raises(FailedPrecondition, match=told):
        ProbeSettings.load().authenticator()


def test_without_tokens_nobody_could_call() -> None:
    with pytest.raises(FailedPrecondition, match="PERFUSE_PROBE_TOKEN_FILE is not set"):
        ProbeSettings().authenticator()


@pytest.mark.parametrize(
    ("address", "parts", "loopback"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80), True),
        ("127.8.8.8:0", ("127.8.8.8", 0), True),
        ("[::1]:80", ("::1", 80), True),
        ("localhost:80", ("localhost", 80), True),
        ("[::ffff:192.0.2.1]:80", ("::ffff:192.0.2.1", 80), False),
        ("localhost.example.com:80", ("localhost.example.com", 80), False),
        ("0.0.0.0:80", ("0.0.0.0", 80), False),
        ("[::]:80", ("::", 80), False),
    ],
)
def test_addresses(address: str, parts: tuple[str, int], loopback: bool) -> None:
    assert host_port(address) == parts
    assert is_loopback(address) is loopback


@pytest.mark.parametrize(
    "address", ["", "80", ":80", "host", "host:", "::1:80", "host:x", "h:70000"]
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(FailedPrecondition, match="host:port"):
        host_port(address)
