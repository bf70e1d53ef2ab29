"""What is given beats the environment, and the environment beats the file."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from perfuse.client import Connection
from perfuse.client.connection import LEFT_BY_UP, config_file
from perfuse.errors import FailedPrecondition, InvalidArgument, NotFound


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and nothing in the environment."""
    for name in ("CONFIG", *(each.name.upper() for each in fields(Connection))):
        monkeypatch.delenv(f"PERFUSE_{name}", raising=False)
    monkeypatch.setenv("PERFUSE_HOME", str(tmp_path))
    return tmp_path


def test_from_nothing_it_is_this_machine() -> None:
    found = Connection.find()
    assert found == Connection("127.0.0.1:7071", "127.0.0.1:7072", "127.0.0.1:7073", "", "", None)
    assert config_file() is None


def test_each_source_beats_the_next(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / LEFT_BY_UP).write_text('tenant = "up"\ntoken = "up"\nregistry = "localhost:1"\n')
    assert Connection.find().tenant == "up"
    (home / "config.toml").write_text('tenant = "file"\ntoken = "file"\nregistry = "a:1"\n')
    assert (Connection.find().tenant, Connection.find().registry) == ("file", "a:1")
    monkeypatch.setenv("PERFUSE_TENANT", "environment")
    monkeypatch.setenv("PERFUSE_TOKEN", "environment")
    found = Connection.find(token="given", trainer=None)
    assert (found.token, found.tenant, found.registry) == ("given", "environment", "a:1")
    other = home / "other.toml"
    other.write_text('registry = "b:2"\n')
    monkeypatch.setenv("PERFUSE_CONFIG", str(other))
    assert Connection.find().registry == "b:2"
    assert Connection.find(config=home / "config.toml").registry == "a:1"


@pytest.mark.parametrize(
    "text", ["registry = 7071", 'registri = "a:1"', "registry", 'tenant = "A"', 'trainer = "a"']
)
def test_a_file_that_says_something_else_is_refused(home: Path, text: str) -> None:
    (home / "config.toml").write_text(text)
    with pytest.raises(InvalidArgument):
        Connection.find()


def test_a_file_that_was_named_must_be_there(home: Path) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.toml"):
        Connection.find(config=home / "nowhere.toml")


@pytest.mark.parametrize("address", ["", "host", "host:", ":1", "host:x", "host:70000", "::1:7"])
def test_an_address_is_host_and_port(address: str) -> None:
    with pytest.raises(InvalidArgument, match="host:port"):
        Connection(registry=address)


def test_a_token_travels_in_plain_text_on_this_machine_alone() -> None:
    for local in ("127.0.0.1:1", "localhost:1", "[::1]:1"):
        assert Connection(registry=local).credentials("registry") is None
    for remote in ("registry.example.com:443", "10.0.0.1:1", "[2001:db8::1]:1"):
        assert Connection(registry=remote).credentials("registry") is not None


def test_an_authority_that_cannot_be_read_is_told(home: Path) -> None:
    with pytest.raises(FailedPrecondition, match="PEM"):
        Connection(ca=home / "ca.pem").credentials("registry")


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(Connection(token="secret"))


def test_who_calls_is_said_by_one_source(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / LEFT_BY_UP).write_text('token = "up"\n')
    monkeypatch.setenv("PERFUSE_TOKEN_FILE", str(home / "token"))
    found = Connection.find()
    assert (found.token, found.token_file) == ("", home / "token")
    found = Connection.find(token="given")
    assert (found.token, found.token_file) == ("given", None)


def test_a_token_file_is_read_every_time(home: Path) -> None:
    connection = Connection(token_file=home / "token")
    for wrong in (None, b"", b" \n", "töken".encode()):
        if wrong is not None:
            (home / "token").write_bytes(wrong)
        with pytest.raises(FailedPrecondition, match="must hold a token"):
            connection.bearer()
    for token in ("first", "second"):
        (home / "token").write_text(f"{token}\n")
        assert connection.bearer() == token


def test_a_token_may_be_asked_for() -> None:
    tokens = iter(["first", "second"])
    connection = Connection(token=lambda: next(tokens))
    assert connection.identified
    assert [connection.bearer(), connection.bearer()] == ["first", "second"]


def test_a_certificate_needs_its_key(home: Path) -> None:
    with pytest.raises(InvalidArgument, match="belong together"):
        Connection(client_cert=home / "me.pem")
    whole = Connection(client_cert=home / "me.pem", client_key=home / "me.key")
    assert whole.identified
    # Even on loopback: a certificate that is not shown says nothing.
    with pytest.raises(FailedPrecondition, match=r"me\.key cannot be read"):
        whole.credentials("registry")
