"""`perfuse up`: ready, alone on its folder, ended with all that it started, and started again."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from bases import words_covariance
from platform_up import SECONDS, Platform, free_ports, refused, running, start

from perfuse.attach import BaseModel
from perfuse.cli.base_description import describe
from perfuse.client import Client
from perfuse.client.health import SERVICES, check
from perfuse_toybox.base import DIRECTORY


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the tests below start in one after the other."""
    return tmp_path_factory.mktemp("homes") / "folder with a space"


@pytest.fixture
def taken() -> Iterator[int]:
    """The second of three ports, which somebody has."""
    while True:
        first = free_ports()
        with socket.socket() as somebody:
            try:
                somebody.bind(("127.0.0.1", first + 1))
            except OSError:
                continue
            somebody.listen()
            yield first + 1
            return


def test_it_is_ready_when_it_says_so(platform: Platform) -> None:
    told = platform.told
    assert {told[service] for service in SERVICES} == {
        platform.connection.registry,
        platform.connection.trainer,
        platform.connection.renderer,
    }
    assert told["tenant"] == platform.connection.tenant == "local"
    assert told["home"] == str(platform.home)
    assert platform.connection.token not in json.dumps(told)
    for service, name in SERVICES.items():
        assert check(told[service], service=name, timeout=30).state == "SERVING"
    with Client(platform.connection, timeout=60) as client:
        (known,) = client.base_models.list()
        (resident,) = client.renderer.status().base_models
        client.concepts.create("made-by-up", super_category="cat")
        client.concepts.delete("made-by-up")
        assert list(client.training_runs.list()) is not None
    described = describe("toybox", DIRECTORY)
    assert (known.name, known.layers, known.encoders) == (
        described.name,
        described.layers,
        described.encoders,
    )
    assert known.covariance_digest == described.covariance_digest
    assert resident.fingerprint == known.fingerprint == described.fingerprint


def test_what_it_keeps_is_its_owners_alone(platform: Platform) -> None:
    secret = ("tokens", "credentials.json", "up.toml", "registry.db", "trainer.db")
    for path in (platform.home, *platform.home.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, f"{path} is open to others"
    for name in secret:
        assert (platform.home / name).is_file()
    token = platform.connection.token
    holders = {path.name for path in platform.home.rglob("*") if _holds(path, token)}
    assert holders == {"credentials.json", "up.toml"}


def test_a_terminals_signals_reach_only_the_parent(platform: Platform) -> None:
    assert set(platform.services) == set(SERVICES)
    for service in platform.services.values():
        assert os.getsid(service.pid) == service.pid


def test_no_secret_shows_in_the_list_of_processes(platform: Platform) -> None:
    for process in (psutil.Process(platform.process.pid), *platform.services.values()):
        assert "perfuse_" not in " ".join(process.cmdline()[3:])


def test_a_second_one_in_the_folder_is_refused(platform: Platform) -> None:
    status, refusal = refused(platform.home)
    assert status == 1
    assert "runs already" in refusal["message"]
    assert str(platform.process.pid) in refusal["message"]
    assert "--home" in refusal["message"]
    for service, name in SERVICES.items():
        address = getattr(platform.connection, service)
        assert check(address, service=name, timeout=30).state == "SERVING"


def test_a_port_that_is_taken_is_named(tmp_path: Path, taken: int) -> None:
    status, refusal = refused(tmp_path, "--port", str(taken - 1))
    assert status == 1
    assert f"port {taken}, which the Trainer is to have" in refusal["message"]
    assert "--port" in refusal["message"]


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        (("--base", "toybox=/nowhere/at/all"), 3, "model_index.json"),
        (("--base", "toybox"), 2, "ID=DIRECTORY"),
        (("--base", f"Toy={DIRECTORY}"), 1, "is not an id"),
        (("--base", f"a={DIRECTORY}", "--base", f"a={DIRECTORY}"), 2, "twice"),
        (("--tenant", "Not An Id"), 1, "--tenant"),
    ],
)
def test_what_it_cannot_start_with_is_refused_at_once(
    tmp_path: Path, options: tuple[str, ...], status: int, words: str
) -> None:
    code, refusal = refused(tmp_path / "home", *options)
    assert code == status
    assert words in refusal["message"]
    assert not (tmp_path / "home").exists()


# The rest starts in one folder, in this order: a test relies on what the ones before it left.


def test_killed_while_it_starts_it_leaves_no_process(home: Path) -> None:
    with start(home) as process:
        children = _children(process, 4)
        process.kill()
        process.communicate(timeout=SECONDS)
    _, alive = psutil.wait_procs(children, timeout=SECONDS)
    assert alive == []
    assert not (home / "up.toml").exists(), "it was never ready"


def test_sigterm_ends_all_in_order(home: Path) -> None:
    with running(home) as platform:
        children = psutil.Process(platform.process.pid).children(recursive=True)
        assert len(children) == 3
        with Client(platform.connection, timeout=60) as client:
            client.concepts.create("tom", super_category="cat")
        token = platform.connection.token
        assert platform.end() == (0, "")
        assert not any(child.is_running() for child in children)
    for service in SERVICES:
        log = (home / "logs" / f"{service}.log").read_text()
        assert "stopped" in log
        assert token not in log


def test_the_next_start_finds_all_and_a_lost_service_ends_it(home: Path) -> None:
    before = (home / "tokens").read_text(), (home / "credentials.json").read_text()
    described = (home / "bases" / "toybox.json").stat().st_mtime_ns
    with running(home) as platform:
        after = (home / "tokens").read_text(), (home / "credentials.json").read_text()
        assert after == before
        assert (home / "bases" / "toybox.json").stat().st_mtime_ns == described
        with Client(platform.connection, timeout=60) as client:
            assert [each.id for each in client.concepts.list()] == ["tom"]
            assert len(list(client.base_models.list())) == 1
        children = psutil.Process(platform.process.pid).children(recursive=True)
        platform.services["trainer"].kill()
        status, said = platform.wait()
        assert status == 1
        told = json.loads(said)
        assert told["reason"] == "SERVICE_DIED"
        assert "the Trainer was ended by SIGKILL" in told["message"]
        assert str(home / "logs" / "trainer.log") in told["message"]
        assert not any(child.is_running() for child in children)


def test_a_base_model_that_changed_is_noticed(
    home: Path, tiny_sd15_dir: Path, tmp_path: Path
) -> None:
    changed = Path(shutil.copytree(tiny_sd15_dir, tmp_path / "base"))
    words_covariance(BaseModel.load(changed)).write(changed)
    status, refusal = refused(home, "--base", f"toybox={changed}")
    assert status == 1
    message = refusal["message"]
    assert f"{changed} holds the base model sha256:" in message
    assert "but toybox is registered as sha256:" in message
    assert "--base ID=" in message


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and text.encode() in path.read_bytes()


def _children(process: subprocess.Popen[str], count: int) -> list[psutil.Process]:
    """So many processes that it has started."""
    ends = time.monotonic() + SECONDS
    while True:
        found = psutil.Process(process.pid).children()
        if len(found) >= count:
            return found
        assert time.monotonic() < ends
        time.sleep(0.01)
