"""A cluster in small: an overlay's pods as processes, its Services as forwarded ports.

PostgreSQL and the S3 server are the tests' own, in place of the components'; everything else is as
the manifests have it: jobs first, probes as they are written, a Service that sends new connections
to ready pods, rolling updates that start one pod before another ends.
"""

from __future__ import annotations

import random
import runpy
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import psycopg
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ports import free_ports
from serving.authority import Authority
from storage.databases import postgres_server
from storage.stores import moto_server

from deploy.manifests import DEPLOY, SERVICES, Manifest, build, named, pods
from deploy.sandbox import Container, Sandbox
from perfuse.client import Client, Connection
from perfuse_toybox.base import DIRECTORY

TARGET = "overlays/kind"
TENANT = "acme"
_PATIENCE = 4.0
"""Times the seconds that a probe allows: these machines are busy with other tests."""


_QUICKER = {"PERFUSE_TRAINER_LEASE_SECONDS": "5", "OMP_NUM_THREADS": "1"}
"""A killed pod's runs wait for their lease, half a minute as it is; and small models take several
times as long on two threads, which wait for one another where other tests run beside them."""


class Forwarder:
    """A port whose new connections go to one of the backends; those that stand stay.

    Attributes:
        backends: how each is connected to.
        port: on loopback.
    """

    def __init__(self) -> None:
        self.backends: list[Callable[[], socket.socket]] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no further connection."""
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(near,), daemon=True).start()

    def _forward(self, near: socket.socket) -> None:
        with near, suppress(OSError, IndexError), random.choice(self.backends)() as far:
            other = {near: far, far: near}
            with selectors.DefaultSelector() as ready:
                for each in other:
                    ready.register(each, selectors.EVENT_READ)
                while True:
                    for key, _ in ready.select():
                        one: Any = key.fileobj
                        data = one.recv(65536)
                        if not data:
                            return
                        other[one].sendall(data)


@dataclass
class Running:
    """A pod that runs.

    Attributes:
        container: it.
        ports: as the manifest has them → as they are here.
        connect: to its server.
    """

    container: Container
    ports: Mapping[int, int]
    connect: Callable[[], socket.socket]


class Cluster:
    """The overlay, running.

    Args:
        home: a folder.
    """

    def __init__(self, home: Path) -> None:
        self.resources = build(TARGET)
        self.pods = {pod.role: pod for pod in pods(self.resources)}
        self.running: dict[str, list[Running]] = {service: [] for service in SERVICES}
        self.services = {service: Forwarder() for service in SERVICES}
        self._home = home
        self._count = 0
        self._database = Forwarder()
        self._database.backends.append(_database_socket)
        script = runpy.run_path(str(DEPLOY / "trial_secrets.py"))
        made, self.token = script["trial_secrets"](TENANT)
        self._secrets: dict[str, dict[str, Any]] = made
        authority = Authority()
        self.ca = home / "ca.pem"
        self.ca.write_bytes(authority.certificate)
        for service in SERVICES:
            wanted = named(self.resources, "Certificate", service)["spec"]
            cert, key = authority.issue(service, hosts=wanted["dnsNames"])
            self._secrets[wanted["secretName"]] = {
                "tls.crt": cert,
                "tls.key": key,
                "ca.crt": authority.certificate,
            }
            if url := self._secrets[f"{service}-secrets"].get("database-url"):
                _make_database(service, url)
        self._replaced = {
            "@postgres:5432/": f"@127.0.0.1:{self._database.port}/",
            "http://minio:9000": moto_server(),
            "/opt/perfuse/toybox": str(DIRECTORY),
            **{
                f"{name}:{707 * 10 + index + 1}": f"localhost:{self.services[name].port}"
                for index, name in enumerate(SERVICES)
            },
        }

    def close(self) -> None:
        """End everything."""
        for forwarder in (*self.services.values(), self._database):
            forwarder.close()
        for each in (each for some in self.running.values() for each in some):
            each.container.kill()
            each.container.wait(30)

    @property
    def connection(self) -> Connection:
        """To the Services, as the administrator of the tenant."""
        targets = {name: f"localhost:{self.services[name].port}" for name in SERVICES}
        return Connection(**targets, tenant=TENANT, token=self.token, ca=self.ca)

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client of the Services."""
        with Client(self.connection) as client:
            yield client

    def sandbox(self, role: str) -> Sandbox:
        """Where a pod's container is started."""
        pod = self.pods[role]
        (container,) = pod.spec["containers"]
        self._count += 1
        home = self._home / f"{self._count}-{role.replace(' ', '-')}"
        home.mkdir()
        numbers = [port["containerPort"] for port in container.get("ports", [])]
        first = free_ports(max(1, len(numbers)))
        ports = {number: first + index for index, number in enumerate(numbers)}
        return Sandbox(pod, container, home, self._secrets, self._replaced, ports, _QUICKER)

    def run_jobs(self, *roles: str) -> None:
        """Jobs side by side, to their end."""
        jobs = [self.sandbox(role).start() for role in roles]
        for job in jobs:
            assert job.wait(120) == 0, job.said

    def start(self, service: str) -> Running:
        """A pod that is not ready yet."""
        sandbox = self.sandbox(service)
        container = sandbox.start()
        port = sandbox.ports[next(iter(sandbox.ports))]

        def connect() -> socket.socket:
            return socket.create_connection(("127.0.0.1", port), 5)

        return Running(container, sandbox.ports, connect)

    def admit(self, service: str, pod: Running) -> None:
        """Let callers come to a pod as soon as it is ready."""
        self.ready(service, pod)
        self.running[service].append(pod)
        self.services[service].backends.append(pod.connect)

    def ready(self, service: str, pod: Running) -> None:
        """Wait until a pod's probes say that it has started and is ready."""
        container: Manifest = self.pods[service].spec["containers"][0]
        for probe in ("startupProbe", "readinessProbe"):
            self.probe(pod, container[probe])

    def probe(self, pod: Running, probe: Manifest) -> None:
        """Ask as a probe says, until it succeeds or would have failed too often."""
        seconds = probe["periodSeconds"] * probe["failureThreshold"] * _PATIENCE
        address = f"127.0.0.1:{pod.ports[probe['grpc']['port']]}"
        request = health_pb2.HealthCheckRequest(service=probe["grpc"].get("service", ""))
        until, last = time.monotonic() + seconds, ""
        while time.monotonic() < until and not pod.container.ended:
            # In plain text and without any credential, as a kubelet asks.
            with grpc.insecure_channel(address) as channel, suppress(grpc.RpcError):
                stub = health_pb2_grpc.HealthStub(channel)
                answer = stub.Check(request, timeout=probe.get("timeoutSeconds", 1))
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
                last = str(answer)
            time.sleep(0.1)
        raise AssertionError(f"{probe} failed: {last}\n{pod.container.said}")

    def kill(self, service: str, pod: Running) -> None:
        """End a pod as the kernel does; callers come to it until it is gone."""
        self.running[service].remove(pod)
        pod.container.signal(signal.SIGKILL)
        pod.container.wait(30)
        self.services[service].backends.remove(pod.connect)

    def remove(self, service: str, pod: Running) -> int:
        """End a pod as a rolling update does; its exit status."""
        spec = self.pods[service].spec
        self.running[service].remove(pod)
        # The Service knows at once here, so that nothing has to be slept through before the signal.
        self.services[service].backends.remove(pod.connect)
        pod.container.signal(signal.SIGTERM)
        return pod.container.wait(spec["terminationGracePeriodSeconds"])

    def roll(self, service: str) -> list[int]:
        """Replace every pod as the Deployment's strategy says; exit statuses of the old ones."""
        strategy = named(self.resources, "Deployment", service)["spec"]["strategy"]
        assert strategy == {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        statuses = []
        for old in list(self.running[service]):
            self.admit(service, self.start(service))
            statuses.append(self.remove(service, old))
        return statuses


def _database_socket() -> socket.socket:
    """A connection to the tests' PostgreSQL server."""
    folder = postgres_server().query["host"]
    found = socket.socket(socket.AF_UNIX)
    found.connect(f"{folder}/.s.PGSQL.5432")
    return found


def _make_database(name: str, url: str) -> None:
    """A user with a password and a database, as the component's script makes them."""
    password = url.partition(f"{name}:")[2].partition("@")[0]
    server = postgres_server().set(drivername="postgresql").render_as_string(hide_password=False)
    with closing(psycopg.connect(server, autocommit=True)) as admin:
        admin.execute(f"DROP DATABASE IF EXISTS {name}".encode())
        admin.execute(f"DROP ROLE IF EXISTS {name}".encode())
        admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'".encode())
        admin.execute(f"CREATE DATABASE {name} OWNER {name}".encode())


@contextmanager
def running(home: Path) -> Iterator[Cluster]:
    """The overlay with everything ready."""
    with ExitStack() as stack:
        cluster = Cluster(home)
        stack.callback(cluster.close)
        cluster.run_jobs("minio buckets", "registry migrate", "trainer migrate")
        starting = {service: cluster.start(service) for service in SERVICES}
        for pod in starting.values():
            stack.callback(pod.container.kill)
        for service, pod in starting.items():
            cluster.admit(service, pod)
        yield cluster
