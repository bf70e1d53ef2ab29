"""`perfuse-registry` as its operator meets it: commands, a server that tells the truth, an end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import grpc
import ports
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from sqlalchemy import text
from sqlalchemy.engine import make_url
from storage.databases import fresh_database, postgres_server
from storage.stores import fresh_bucket

from perfuse.errors import Unavailable
from perfuse.storage.database import Database
from perfuse.v1 import registry_pb2 as wire
from perfuse_registry.__main__ import main
from perfuse_registry.schema import SCHEMA
from registry import samples
from registry.served import OWN_BACKENDS, Client, Installation, installed, migrate, refused

SERVICE = "perfuse.v1.RegistryService"
PREFIX = "PERFUSE_REGISTRY_"
COMMAND = (sys.executable, "-m", "perfuse_registry")
CANARY = "canary-in-a-payload"
SECONDS = 30.0
# Torch and what comes with it; none of it is in the Registry's image.
HEAVY = ("torch", "numpy", "safetensors", "transformers", "diffusers", "PIL")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command, to its end, with these settings alone."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=clean() | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def clean() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}


def status(channel: grpc.Channel, service: str = SERVICE) -> str:
    stub = health_pb2_grpc.HealthStub(channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=SECONDS)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def wait_for(wanted: str, channel: grpc.Channel) -> None:
    deadline = time.monotonic() + SECONDS
    while status(channel) != wanted:
        assert time.monotonic() < deadline, f"not {wanted} within {SECONDS} seconds"
        time.sleep(0.02)


@dataclass
class Place:
    """Where a Registry keeps everything, and how to take its parts away for a while.

    Attributes:
        environment: The settings that say so.
        url: Of the database, migrated.
        store_away, database_away: While one lasts, that is gone.
    """

    environment: dict[str, str]
    url: str
    store_away: Callable[[], object]
    database_away: Callable[[], object]


@contextmanager
def place(backend: str, folder: Path) -> Iterator[Place]:
    dialect, kind = backend.split("+")
    with fresh_database(dialect, prepare=migrate) as url:
        environment = {
            f"{PREFIX}DATABASE_URL": url,
            f"{PREFIX}BIND": "127.0.0.1:0",
            f"{PREFIX}TOKEN_FILE": str(folder / "tokens"),
        }
        if kind == "directory":
            store = folder / "blobs"
            environment[f"{PREFIX}BLOB_DIRECTORY"] = str(store)
            database = Path(make_url(url).database or "")
            yield Place(environment, url, lambda: moved(store), lambda: moved(database))
            return
        bucket = fresh_bucket()
        environment |= {
            f"{PREFIX}S3_ENDPOINT": bucket.endpoint,
            f"{PREFIX}S3_BUCKET": bucket.bucket,
            f"{PREFIX}S3_ACCESS_KEY": bucket.access_key,
            f"{PREFIX}S3_SECRET_KEY": bucket.secret_key,
        }

        @contextmanager
        def bucket_away() -> Iterator[None]:
            client = bucket.client()
            for item in client.list_objects(bucket.bucket, recursive=True):
                client.remove_object(bucket.bucket, item.object_name)
            client.remove_bucket(bucket.bucket)
            yield
            client.make_bucket(bucket.bucket)

        yield Place(environment, url, bucket_away, lambda: closed(url))


@contextmanager
def moved(path: Path) -> Iterator[None]:
    elsewhere = path.with_name(f"{path.name}.elsewhere")
    path.rename(elsewhere)
    yield
    elsewhere.rename(path)


@contextmanager
def closed(url: str) -> Iterator[None]:
    """A PostgreSQL database that drops its connections and takes no new ones."""
    name = make_url(url).database
    server = postgres_server().set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false".encode())
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
        )
        yield
        admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true".encode())


class Server:
    """`perfuse-registry serve` in a process of its own.

    Attributes:
        process: Of the command.
        log: All that it wrote.
    """

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*COMMAND, "serve"], env=clean() | environment, stdout=output, stderr=output
            )

    def target(self) -> str:
        """`127.0.0.1:port`, as soon as it is bound."""
        deadline = time.monotonic() + SECONDS
        while not (bound := self.lines("serving")):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        return f"127.0.0.1:{bound[0]['port']}"

    def lines(self, event: str) -> list[dict[str, object]]:
        """What was logged of one event."""
        found = []
        for line in self.log.read_text().splitlines():
            with suppress(json.JSONDecodeError):
                entry = json.loads(line)
                if entry.get("event") == event:
                    found.append(entry)
        return found

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit status after a signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(SECONDS)
        finally:
            self.process.kill()


@dataclass
class Running:
    """A server in production, so to speak."""

    place: Place
    server: Server
    channel: grpc.Channel
    token: str

    @property
    def client(self) -> Client:
        return Client(self.channel, self.token)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    """A server over each pair of database and store, until the module's end."""
    with ExitStack() as stack:
        started = []
        for backend in OWN_BACKENDS:
            folder = tmp_path_factory.mktemp("process")
            where = stack.enter_context(place(backend, folder))
            where.environment[f"{PREFIX}METRICS_ADDRESS"] = f"127.0.0.1:{free_port()}"
            (folder / "tokens").touch(mode=0o600)
            server = Server(where.environment, folder / "log")
            stack.callback(server.end)
            started.append((backend, where, server))
        minted = run("token", "acme", "--role", "admin", "--role", "operator",
                     **started[0][1].environment)  # fmt: skip
        assert minted.returncode == 0, minted.stderr
        tokens = [path.environment[f"{PREFIX}TOKEN_FILE"] for _, path, _ in started]
        Path(tokens[1]).write_text(Path(tokens[0]).read_text())
        yield {
            backend: Running(
                where,
                server,
                stack.enter_context(grpc.insecure_channel(server.target())),
                minted.stdout.strip(),
            )
            for backend, where, server in started
        }


def free_port() -> int:
    return ports.free_ports(1)


@pytest.fixture(params=OWN_BACKENDS)
def one(request: pytest.FixtureRequest, running: dict[str, Running]) -> Running:
    return running[request.param]


class TestImports:
    def test_no_torch_is_loaded(self) -> None:
        source = (
            "import sys, perfuse_registry.__main__, perfuse_registry.servicer\n"
            f"print(*sorted({set(HEAVY)!r} & sys.modules.keys()), sep=',')"
        )
        process = subprocess.run(
            [sys.executable, "-W", "error", "-c", source],
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert (process.stdout, process.stderr) == ("\n", "")

    def test_the_command_is_installed(self) -> None:
        (entry,) = entry_points(group="console_scripts", name="perfuse-registry")
        assert entry.value == "perfuse_registry.__main__:main"


class TestServing:
    def test_health_names_the_service(self, one: Running) -> None:
        wait_for("SERVING", one.channel)
        assert status(one.channel, "") == "SERVING"
        assert status(one.channel, "live") == "SERVING"

    def test_reflection_lists_the_service(self, one: Running) -> None:
        stub = reflection_pb2_grpc.ServerReflectionStub(one.channel)
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        (answer,) = stub.ServerReflectionInfo(iter([asked]), timeout=SECONDS)
        names = {service.name for service in answer.list_services_response.service}
        assert names >= {SERVICE, "grpc.health.v1.Health"}

    def test_an_adapter_goes_in_and_comes_out(self, one: Running) -> None:
        call = one.client
        base = samples.base_model()
        call.CreateBaseModel(wire.CreateBaseModelRequest(base_model_id="small", base_model=base))
        concept = wire.Concept(super_category="cat", description=CANARY, labels={"a": CANARY})
        call.CreateConcept(
            wire.CreateConceptRequest(parent="tenants/acme", concept_id="tom", concept=concept)
        )
        data = samples.adapter(1, training={"note": CANARY})
        made = call.CreateVersion(samples.upload("tenants/acme/concepts/tom", data))
        download = wire.DownloadAdapterRequest(name=made.name)
        assert call.DownloadAdapter(download).adapter == data
        with refused("INVALID_ARGUMENT"):
            call.ListConcepts(
                wire.ListConceptsRequest(parent="tenants/acme", filter=f"{CANARY} = 1")
            )
        with refused("UNAUTHENTICATED"):
            Client(one.channel, f"perfuse_{CANARY}").DownloadAdapter(download)

    def test_the_other_commands_see_it(
        self, one: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for key, value in one.place.environment.items():
            monkeypatch.setenv(key, value)
        assert command("verify") == 0
        assert "1 adapters read, 0 damaged; 0 more" in capsys.readouterr().out
        assert command("verify", "--tenant", "nobody") == 0
        assert "0 adapters read" in capsys.readouterr().out
        for arguments in ((), ("--dry-run",)):
            assert command("collect-garbage", *arguments) == 0
            assert "removed: 0 adapters (0 bytes)" in capsys.readouterr().out

    def test_a_fault_of_the_database_is_told_without_payloads(self, one: Running) -> None:
        """A table that vanishes makes the statements fail that carry a caller's words."""
        database = Database(one.place.url)
        swap = "ALTER TABLE {} RENAME TO {}"

        def rename(old: str, new: str) -> None:
            statement = text(swap.format(old, new))
            database.transact(lambda connection: connection.execute(statement) and None)

        request = wire.CreateConceptRequest(
            parent="tenants/acme", concept_id="tim",
            concept=wire.Concept(super_category=CANARY, description=CANARY),
        )  # fmt: skip
        rename("concepts", "elsewhere")
        with refused("UNAVAILABLE") as caught:
            one.client.CreateConcept(request)
        rename("elsewhere", "concepts")
        database.close()
        assert caught.value.details["RetryInfo"].retry_delay.seconds == 1
        assert "concepts" not in caught.value.message
        assert one.client.CreateConcept(request).description == CANARY

    def test_health_tells_when_database_or_store_is_away(self, running: dict[str, Running]) -> None:
        """Of both servers at once, since each looks every five seconds."""
        embedded, production = (running[backend] for backend in OWN_BACKENDS)
        with ExitStack() as outage:
            outage.enter_context(embedded.place.store_away())
            outage.enter_context(production.place.database_away())
            for each in (embedded, production):
                wait_for("NOT_SERVING", each.channel)
                assert status(each.channel, "live") == "SERVING"
        for each in (embedded, production):
            wait_for("SERVING", each.channel)
            get = wire.GetConceptRequest(name="tenants/acme/concepts/tom")
            assert each.client.GetConcept(get).description == CANARY
            assert each.server.lines("not_ready")
            assert len(each.server.lines("ready")) >= 2

    def test_the_log_holds_calls_and_no_payloads(self, one: Running) -> None:
        calls = one.server.lines("rpc")
        assert {"OK", "INVALID_ARGUMENT", "UNAUTHENTICATED", "UNAVAILABLE"} == {
            line["code"] for line in calls
        }
        assert all(line["request_id"] and line["method"] for line in calls)
        log = one.server.log.read_text()
        secret = one.place.environment.get(f"{PREFIX}S3_SECRET_KEY", one.token)
        for kept in (CANARY, one.token, secret, samples.adapter(1)[-8:].hex()):
            assert kept not in log
        tokens = Path(one.place.environment[f"{PREFIX}TOKEN_FILE"]).read_text()
        assert one.token not in tokens

    def test_metrics_are_told(self, one: Running) -> None:
        address = one.place.environment[f"{PREFIX}METRICS_ADDRESS"]
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=SECONDS) as page:
            told = page.read().decode()
        labels = f'code="OK",method="{SERVICE}/CreateVersion"'
        assert f"perfuse_rpc_seconds_count{{{labels}}} 1.0" in told
        assert 'code="UNAUTHENTICATED"' in told
        assert "acme" not in told

    def test_sigterm_ends_it_in_order(self, one: Running) -> None:
        """The last of these tests: nothing is served afterwards."""
        assert one.server.process.poll() is None
        assert one.server.end(signal.SIGTERM) == 0, one.server.log.read_text()
        events = [json.loads(line)["event"] for line in one.server.log.read_text().splitlines()]
        assert events[-3:] == ["signalled", "draining", "stopped"]


def command(*arguments: str) -> int:
    """The exit status of the command, run in this process."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


class TestSentences:
    """What cannot be is told in one sentence, and ends with 1."""

    def test_serve_refuses_a_database_of_another_revision(self, tmp_path: Path) -> None:
        settings = {
            f"{PREFIX}DATABASE_URL": f"sqlite:///{tmp_path}/registry.db",
            f"{PREFIX}BLOB_DIRECTORY": str(tmp_path / "blobs"),
            f"{PREFIX}TOKEN_FILE": str(tmp_path / "tokens"),
        }
        process = run("serve", **settings)
        assert process.returncode == 1
        sentence = process.stderr.splitlines()[-1]
        assert sentence.startswith("perfuse-registry: the database is at revision none")
        assert "perfuse-registry migrate" in sentence
        assert "Traceback" not in process.stderr

        migrated = run("migrate", **settings)
        assert (migrated.returncode, migrated.stderr) == (0, "")
        assert migrated.stdout == f"database: revision none -> {SCHEMA.latest_revision}\n"

    @pytest.mark.parametrize(
        ("arguments", "settings", "told"),
        [
            (["serve"], {}, "blobs need one place"),
            (["migrate"], {"S3_ENDPOINT": "http://h"}, "blobs need one place"),
            (["verify"], {"BLOB_DIRECTORY": "b", "S3_ENDPOINT": "http://h", "S3_BUCKET": "b"},
             "blobs need one place"),
            (["serve"], {"BLOB_DIRECTORY": "b", "BIND": "0.0.0.0:7071"}, "needs TLS"),
            (["serve"], {"BLOB_DIRECTORY": "b", "BIND": "nonsense"}, "is not an address"),
            (["serve"], {"BLOB_DIRECTORY": "b", "THREADS": "canary"}, f"{PREFIX}THREADS"),
            (["serve"], {"BLOB_DIRECTORY": "b", "GARBAGE_GRACE_HOURS": "-1"},
             f"{PREFIX}GARBAGE_GRACE_HOURS"),
            (["serve"], {"BLOB_DIRECTORY": "b", "LOG_LEVEL": "loud"}, f"{PREFIX}LOG_LEVEL"),
            (["migrate"], {"BLOB_DIRECTORY": "b", "DATABASE_URL": "mysql://u:canary@h/d"},
             "works with a SQLite file and with PostgreSQL"),
            (["migrate"], {"BLOB_DIRECTORY": "b", "DATABASE_URL": "sqlite:////nowhere/r.db"},
             "/nowhere/r.db cannot be made"),
            (["migrate", "0042"], {"BLOB_DIRECTORY": "b"}, "'0042' is no revision"),
            (["token", "acme"], {"BLOB_DIRECTORY": "b"}, f"{PREFIX}TOKEN_FILE"),
            (["token", "Acme"], {"BLOB_DIRECTORY": "b", "TOKEN_FILE": "t"}, "'Acme' is not an id"),
            (["token", "acme", "--role", "king"], {"BLOB_DIRECTORY": "b", "TOKEN_FILE": "t"},
             "'king'"),
            (["token", "acme", "--file", "/nowhere/t"], {}, "/nowhere/t: No such file"),
            (["collect-garbage"], {"BLOB_DIRECTORY": "b"}, "perfuse-registry migrate"),
            (["verify", "--tenant", "Acme"], {"BLOB_DIRECTORY": "b", "DATABASE_URL": "migrated"},
             "'Acme' is not an id"),
        ],
        ids=lambda value: "" if isinstance(value, dict) else " ".join(value)[:24],
    )  # fmt: skip
    def test_what_is_set_wrong(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
        settings: dict[str, str],
        told: str,
    ) -> None:
        for key in list(os.environ):
            if key.startswith(PREFIX):
                monkeypatch.delenv(key)
        monkeypatch.chdir(tmp_path)
        if settings.get("DATABASE_URL") == "migrated":
            settings = settings | {"DATABASE_URL": "sqlite:///registry.db"}
            migrate("sqlite:///registry.db")
        for key, value in settings.items():
            monkeypatch.setenv(f"{PREFIX}{key}", value)
        assert command(*arguments) == 1
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("perfuse-registry: ")
        assert output.err.count("\n") == 1
        assert told in output.err
        assert "canary" not in output.err


@pytest.fixture
def watched(backend: str, tmp_path: Path) -> Iterator[Installation]:
    """One whose health follows at once."""
    with installed(backend, tmp_path, probe_seconds=0.05) as installation:
        wait_for("SERVING", installation.channel)
        yield installation


class TestHealth:
    def test_it_follows_the_store(self, watched: Installation) -> None:
        ground = watched.ground
        if ground.root is not None:
            with moved(ground.root):
                wait_for("NOT_SERVING", watched.channel)
        else:
            assert ground.bucket is not None
            client = ground.bucket.client()
            client.remove_bucket(ground.bucket.bucket)
            wait_for("NOT_SERVING", watched.channel)
            client.make_bucket(ground.bucket.bucket)
        wait_for("SERVING", watched.channel)

    def test_it_follows_the_database(self, watched: Installation) -> None:
        acme = watched.tenant()
        acme.concept()
        url = watched.database.engine.url
        away = (
            closed(url.render_as_string(hide_password=False))
            if watched.backend.startswith("postgresql")
            else moved(Path(url.database or ""))
        )
        with away:
            wait_for("NOT_SERVING", watched.channel)
            assert status(watched.channel, "live") == "SERVING"
        wait_for("SERVING", watched.channel)
        assert acme.version().name.endswith("/versions/1")

    def test_a_file_that_was_replaced_is_none_to_go_on_with(self, tmp_path: Path) -> None:
        with installed("sqlite+directory", tmp_path, probe_seconds=0.05) as watched:
            wait_for("SERVING", watched.channel)
            file = Path(watched.database.engine.url.database or "")
            other = file.with_name("other")
            other.write_bytes(file.read_bytes())
            with moved(file):
                wait_for("NOT_SERVING", watched.channel)
                other.rename(file)
                with pytest.raises(Unavailable, match="Restart the server"):
                    watched.registry.check()
                assert status(watched.channel) == "NOT_SERVING"
            wait_for("SERVING", watched.channel)
