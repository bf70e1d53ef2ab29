"""Registry servers in processes of their own, started in a tenth of a second and killed at will.

    with fresh_place("postgresql+s3", tmp_path) as place:
        with place.registry() as registry:                      # in this process, to prepare
            furnish(registry)
        server = start(place, failpoints="version.stored=kill")
        server.stub().CreateVersion(...)                        # raises: the server is dead
        assert server.wait() == -signal.SIGKILL

A server does what `perfuse-registry serve` does, forked from a process that has imported it all: an
import takes two seconds, a fork none. `start(place, command=True)` runs the command itself. Every
process ends with this one, even if this one is killed.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import grpc
from sqlalchemy import Table, select
from storage.databases import Prepare, fresh_database
from storage.stores import fresh_bucket

from perfuse.names import ConceptName
from perfuse.serving.tokens import mint
from perfuse.storage.blobs import BlobStore
from perfuse.storage.blobs_directory import DirectoryBlobs
from perfuse.storage.blobs_s3 import S3Blobs
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.requests import Mutation
from perfuse.v1.registry_pb2_grpc import RegistryServiceStub
from perfuse_registry.failpoints import VARIABLE
from perfuse_registry.messages import described_base_model
from perfuse_registry.registry import Registry
from perfuse_registry.schema import SCHEMA
from registry.samples import base_model

READY_SECONDS = 30.0
_starting = threading.Lock()
TENANT = "acme"

PAIRS = ("sqlite+directory", "postgresql+s3")
"""What `fresh_place` takes: the embedded default, and what production uses."""


@dataclass(frozen=True)
class Place:
    """Where a Registry keeps everything.

    Attributes:
        url: Of the database, at the newest revision.
        environment: Settings that name it all, without the address to bind.
    """

    url: str
    environment: dict[str, str]

    def store(self) -> BlobStore:
        """The blob store, opened anew."""
        named = self.environment
        if "PERFUSE_REGISTRY_BLOB_DIRECTORY" in named:
            return DirectoryBlobs(named["PERFUSE_REGISTRY_BLOB_DIRECTORY"])
        return S3Blobs(
            named["PERFUSE_REGISTRY_S3_ENDPOINT"],
            named["PERFUSE_REGISTRY_S3_BUCKET"],
            access_key=named["PERFUSE_REGISTRY_S3_ACCESS_KEY"],
            secret_key=named["PERFUSE_REGISTRY_S3_SECRET_KEY"],
        )

    def rows(self, table: Table) -> list[AnyRow]:
        """All rows of a table."""
        database = Database(self.url)
        try:
            return database.read(lambda connection: list(connection.execute(select(table)).all()))
        finally:
            database.close()

    @contextmanager
    def registry(self, *, store: BlobStore | None = None, **settings: Any) -> Iterator[Registry]:
        """The Registry over it, in this process.

        Args:
            store: Instead of the place's own, such as one that wraps it.
            settings: As of `Registry`; by default nothing waits for anything.
        """
        defaults = {"garbage_grace": timedelta(0), "concept_retention": timedelta(0)}
        database = Database(self.url)
        registry = Registry(database, store or self.store(), **(defaults | settings))
        try:
            yield registry
        finally:
            registry.close()


def migrate(url: str) -> None:
    """Bring an empty database to the newest revision."""
    database = Database(url)
    SCHEMA.migrate(database)
    database.close()


def furnish(registry: Registry, *concepts: str) -> None:
    """Make the base model of `samples`, and these concepts of `TENANT`, cats."""
    mutation = Mutation(TENANT, "tester")
    registry.base_models.create(mutation, described_base_model("toy", base_model()))
    for concept in concepts:
        registry.concepts.create(mutation, ConceptName(TENANT, concept), super_category="cat")


@contextmanager
def fresh_place(pair: str, folder: Path, prepare: Prepare = migrate) -> Iterator[Place]:
    """A database of its own and an empty store.

    Args:
        pair: One of `PAIRS`.
        folder: Empty; for a store that is a directory.
        prepare: Of `fresh_database`; by default the database has its tables and nothing in them.
    """
    dialect, kind = pair.split("+")
    if kind == "directory":
        where = {"PERFUSE_REGISTRY_BLOB_DIRECTORY": str(folder / "blobs")}
    else:
        bucket = fresh_bucket()
        where = {
            "PERFUSE_REGISTRY_S3_ENDPOINT": bucket.endpoint,
            "PERFUSE_REGISTRY_S3_BUCKET": bucket.bucket,
            "PERFUSE_REGISTRY_S3_ACCESS_KEY": bucket.access_key,
            "PERFUSE_REGISTRY_S3_SECRET_KEY": bucket.secret_key,
        }
    with fresh_database(dialect, prepare=prepare) as url:
        yield Place(url, {"PERFUSE_REGISTRY_DATABASE_URL": url, **where})


class ServerProcess:
    """A server in a process of its own.

    Attributes:
        pid: Of the process.
        target: `127.0.0.1:port`.
        log: Everything that it wrote.
    """

    def __init__(self, pid: int, log: Path, waiting: Any) -> None:
        self.pid, self.log = pid, log
        self.target = ""
        self._waiting = waiting
        self._channels: list[Any] = []

    def stub(self, token: str = "") -> Any:
        """A stub over a connection of its own; by default everything is allowed to it."""
        channel = grpc.insecure_channel(
            self.target, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        self._channels.append(channel)
        made = RegistryServiceStub(channel)
        metadata = (("authorization", f"Bearer {token or _token()}"),)
        for name, method in vars(made).items():
            setattr(made, name, partial(method, metadata=metadata, timeout=60))
        return made

    def wait(self, seconds: float = 20.0) -> int:
        """The exit status, negative for a signal, as soon as the process is dead."""
        status: int = self._waiting(seconds)
        for channel in self._channels:
            channel.close()
        return status

    def kill(self) -> None:
        """End the process without warning, if it is still there."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.wait()


def start(
    place: Place, *, failpoints: str = "", command: bool = False, **settings: float
) -> ServerProcess:
    """A server over this place, ready for calls.

    Args:
        place: Whose database and store.
        failpoints: To be armed, as in the variable.
        command: Start Python anew and run the command, not a fork.
        settings: More settings of the Registry, such as `lease_minutes=0.01`.
    """
    with _starting:
        home = _home()
        _token()
        begin = _run_command if command else _forge().fork
    environment = {
        **place.environment,
        **{f"PERFUSE_REGISTRY_{name.upper()}": str(value) for name, value in settings.items()},
        "PERFUSE_REGISTRY_BIND": "127.0.0.1:0",
        "PERFUSE_REGISTRY_TOKEN_FILE": str(home / "tokens"),
        VARIABLE: failpoints,
    }
    descriptor, name = tempfile.mkstemp(dir=home, suffix=".log")
    os.close(descriptor)
    pid, waiting = begin(environment, name)
    server = ServerProcess(pid, Path(name), waiting)
    deadline = time.monotonic() + READY_SECONDS
    while not server.target:
        text = server.log.read_text()
        for line in text.splitlines():
            if '"event": "serving"' in line:
                server.target = f"127.0.0.1:{json.loads(line)['port']}"
        if time.monotonic() > deadline or (not server.target and _is_dead(server)):
            server.kill()
            raise AssertionError(f"the server did not start:\n{text}")
        time.sleep(0.005)
    return server


def _is_dead(server: ServerProcess) -> bool:
    try:
        server._waiting(0)
    except TimeoutError:
        return False
    return True


@cache
def _home() -> Path:
    home = tempfile.mkdtemp(prefix="perfuse-servers-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    return Path(home)


@cache
def _token() -> str:
    return mint(_home() / "tokens", TENANT, "tester", ["admin", "operator"])


def _run_command(environment: dict[str, str], log: str) -> tuple[int, Any]:
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "perfuse_registry", "serve"],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    atexit.register(process.kill)

    def waiting(seconds: float) -> int:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None

    return process.pid, waiting


class Forge:
    """The process from which servers are forked, and the news of their deaths."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forge.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Away from the terminal, whose Ctrl-C is for the tests.
            start_new_session=True,
        )
        self._news = threading.Condition()
        self._pids: dict[int, int] = {}
        self._statuses: dict[int, int] = {}
        self._asked = 0
        threading.Thread(target=self._read, daemon=True).start()
        atexit.register(self._close)

    def fork(self, environment: dict[str, str], log: str) -> tuple[int, Any]:
        """Fork a server; its process id, and a function that waits for its exit status."""
        assert self._process.stdin is not None
        with self._news:
            self._asked += 1
            number = self._asked
            order = {"number": number, "environment": environment, "log": log}
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            assert self._news.wait_for(lambda: number in self._pids, READY_SECONDS)
            pid = self._pids.pop(number)

        def waiting(seconds: float) -> int:
            with self._news:
                if not self._news.wait_for(lambda: pid in self._statuses, seconds):
                    raise TimeoutError(f"process {pid} still runs after {seconds} seconds")
                return self._statuses[pid]

        return pid, waiting

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            news = json.loads(line)
            with self._news:
                if "number" in news:
                    self._pids[news["number"]] = news["pid"]
                    self._statuses.pop(news["pid"], None)
                else:
                    self._statuses[news["pid"]] = news["status"]
                self._news.notify_all()

    def _close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@cache
def _forge() -> Forge:
    return Forge()
