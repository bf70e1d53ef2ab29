"""Several processes on one address: shared by them alone, kept up, and ended in order."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import ports
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from perfuse.errors import FailedPrecondition
from perfuse.serving import mint
from perfuse.serving.workers import supervise
from serving.probe import Question, Stub

# The parent, and with arguments a worker, whose answers tell who it is.
PROGRAM = """
import asyncio, os, sys, threading
from pathlib import Path
from perfuse.serving import Edge, Server, ServingSettings, TokenAuthenticator, logs
from perfuse.serving.workers import supervise, this_worker

logs.configure()
command, tokens, count, bind, fault, metrics, health = sys.argv[1:8]
if this_worker() is None:
    again = [sys.executable, "-c", command, *sys.argv[1:8]]
    sys.exit(supervise(again, int(count), bind))
if fault == f"worker {this_worker().index} is refused":
    sys.exit("perfuse-probe: refused")

from serving.probe import POLICY, Answer
from serving.test_threaded import Worker, add_unary

def work(question):
    if question.text == "slow":
        print("begun", file=sys.stderr, flush=True)
        threading.Event().wait(1.0)
    return Answer(text=str(this_worker().index), count=os.getpid())

async def main():
    settings = ServingSettings(
        bind=bind,
        token_file=Path(tokens),
        metrics_address=metrics or None,
        health_address=health or None,
    )
    edge = Edge(settings.authenticator(), policy=POLICY, threaded=True)
    server = Server.from_settings(settings, edge)
    server.add(add_unary, Worker(edge, work))
    await server.run()

asyncio.run(main())
"""


class Family:
    """A parent and its workers, as their log tells of them."""

    def __init__(self, process: subprocess.Popen[str], log: Path, port: int, token: str) -> None:
        self.process, self._log, self.port = process, log, port
        self.metadata = (("authorization", f"Bearer {token}"),)

    def told(self, event: str) -> list[dict[str, Any]]:
        lines = self._log.read_text().splitlines()
        events = [json.loads(line) for line in lines if line.startswith("{") and line[-1] == "}"]
        return [each for each in events if each["event"] == event]

    def ask(self, text: str = "", wait: bool = False) -> Any:
        """An answer, over a connection of its own."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", options=options) as channel:
            request = Question(text=text)
            return Stub(channel).Ask(
                request, metadata=self.metadata, timeout=20, wait_for_ready=wait
            )

    def who(self, tries: int = 40) -> dict[str, int]:
        """Workers who answered, with their processes."""
        answers = [self.ask(wait=True) for _ in range(tries)]
        return {answer.text: answer.count for answer in answers}


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def free_port() -> int:
    return ports.free_ports(1)


def free_pair() -> int:
    """The first of two ports in a row that nobody has."""
    return ports.free_ports(2)


@contextlib.contextmanager
def running(
    folder: Path, count: int = 2, fault: str = "", metrics: str = "", health: str = ""
) -> Iterator[Family]:
    tokens, log = folder / "tokens", folder / "log"
    token, port = mint(tokens, "acme", "alice", ["reader"]), free_port()
    arguments = [PROGRAM, str(tokens), str(count), f"127.0.0.1:{port}", fault, metrics, health]
    with log.open("w") as written:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stderr=written,
            text=True,
            cwd=Path(__file__).parent.parent,
        )
    children = []
    try:
        if not fault:
            family = Family(process, log, port, token)
            until(lambda: len(family.told("serving")) == count)
            children = psutil.Process(process.pid).children()
        yield Family(process, log, port, token)
    finally:
        process.kill()
        process.wait()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def test_calls_are_spread_and_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path) as family:
        before = family.who()
        assert before.keys() == {"0", "1"}
        os.kill(before["1"], signal.SIGKILL)
        until(lambda: len(family.told("worker_started")) == 3)
        until(lambda: len(family.told("serving")) == 3)
        after = family.who()
        assert after["0"] == before["0"]
        assert after["1"] != before["1"]
        assert [(e["worker"], e["status"]) for e in family.told("worker_died")] == [(1, -9)]
        # Nobody else gets a share of the calls.
        with pytest.raises(FailedPrecondition, match="another process has the port"):
            supervise(["never"], 2, f"127.0.0.1:{family.port}")
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", family.port))


def test_sigterm_drains_every_worker(tmp_path: Path) -> None:
    with running(tmp_path) as family:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"127.0.0.1:{family.port}", options=options) as channel:
            call = Stub(channel).Ask.future(Question(text="slow"), metadata=family.metadata)
            until(lambda: "begun" in family._log.read_text())
            family.process.send_signal(signal.SIGTERM)
            assert call.result(timeout=20).text in {"0", "1"}
        assert family.process.wait(20) == 0
        assert len(family.told("stopped")) == 2
        assert not family.told("worker_died")


def test_workers_drain_when_their_parent_is_gone(tmp_path: Path) -> None:
    with running(tmp_path) as family:
        workers = [psutil.Process(pid) for pid in family.who().values()]
        family.process.kill()
        until(lambda: len(family.told("stopped")) == 2)
        until(lambda: not any(map(alive, workers)))


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_worker_that_is_refused_something_ends_all(tmp_path: Path) -> None:
    with running(tmp_path, fault="worker 1 is refused") as family:
        assert family.process.wait(30) == 1
        assert "perfuse-probe: refused" in family._log.read_text()
        assert [each["worker"] for each in family.told("worker_refused")] == [1]


def test_each_worker_tells_its_measures_on_a_port_of_its_own_and_all_their_health_on_one(
    tmp_path: Path,
) -> None:
    port, shared = free_pair(), f"127.0.0.1:{free_port()}"
    with running(tmp_path, metrics=f"127.0.0.1:{port}", health=shared):
        with grpc.insecure_channel(shared) as channel:
            asked = health_pb2.HealthCheckRequest(service="live")
            told = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=5)
            assert told.status == health_pb2.HealthCheckResponse.SERVING
        for index in range(2):
            with socket.create_connection(("127.0.0.1", port + index), timeout=5):
                pass
