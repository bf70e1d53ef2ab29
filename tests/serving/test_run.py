"""A server's life: health that tells the truth, an orderly end, TLS, reflection."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from perfuse.errors import FailedPrecondition, Unavailable
from perfuse.serving import Edge, Server, ServingSettings, TokenAuthenticator, mint
from perfuse.serving.testing import Served, serve
from serving.probe import POLICY, Answer, Probe, Question, Stub, add, probe

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
NAME = "perfuse.probe.ProbeService"


async def check(channel: Any, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return (await health_pb2_grpc.HealthStub(channel).Check(request)).status


async def eventually(status: int, channel: Any, service: str = "") -> None:
    async with asyncio.timeout(5):
        while await check(channel, service) != status:
            await asyncio.sleep(0.005)


class TestHealth:
    async def test_it_follows_readiness_and_liveness_does_not(self) -> None:
        problem: Exception | None = Unavailable("the database is away")

        async def ready() -> None:
            if problem is not None:
                raise problem

        tokens, edge, servicer = probe()
        with capture_logs() as logs:
            async with serve(
                (add, servicer), edge=edge, tokens=tokens, ready=ready, probe_seconds=0.01
            ) as served:
                channel = served.channel
                for service in ("", NAME):
                    assert await check(channel, service) == NOT_SERVING
                problem = None
                for service in ("", NAME):
                    await eventually(SERVING, channel, service)
                problem = RuntimeError("postgresql://user:canary@host")
                for service in ("", NAME):
                    await eventually(NOT_SERVING, channel, service)
                assert await check(channel, "live") == SERVING
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await check(channel, "unknown")
                assert caught.value.code() is grpc.StatusCode.NOT_FOUND
                # Not ready is a hint to those who choose among servers; calls are still answered.
                assert (await served.stub(Stub).Ask(Question(count=1))).count == 1
        told = [(e["event"], e.get("problem")) for e in logs if "ready" in e["event"]]
        assert told == [
            ("not_ready", "the database is away"),
            ("ready", None),
            ("not_ready", "RuntimeError"),
        ]

    async def test_a_server_without_a_probe_is_ready(self) -> None:
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            await eventually(SERVING, served.channel, NAME)
            stub = health_pb2_grpc.HealthStub(served.channel)
            every = (await stub.List(health_pb2.HealthListRequest())).statuses
            assert {name: each.status for name, each in every.items()} == dict.fromkeys(
                ("", "live", NAME), SERVING
            )

    async def test_watchers_hear_of_changes_even_when_one_has_left(self) -> None:
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            await eventually(SERVING, served.channel)
            watch = health_pb2_grpc.HealthStub(served.channel).Watch
            first, second = (watch(health_pb2.HealthCheckRequest()) for _ in range(2))
            assert (await first.read()).status == (await second.read()).status == SERVING
            first.cancel()
            served.server.health.set_ready(False)
            assert (await second.read()).status == NOT_SERVING
            served.server.health.drain()
            served.server.health.set_ready(True)
            assert await second.read() is grpc.aio.EOF

    async def test_watchers_are_limited(self) -> None:
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            watch = health_pb2_grpc.HealthStub(served.channel).Watch
            held = [watch(health_pb2.HealthCheckRequest()) for _ in range(64)]
            for each in held:
                await each.read()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await watch(health_pb2.HealthCheckRequest()).read()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


class TestEnd:
    async def test_what_is_in_flight_ends_and_then_the_hooks_run(self) -> None:
        events: list[str] = []
        begun, go = asyncio.Event(), asyncio.Event()

        async def wait() -> Any:
            begun.set()
            await go.wait()
            events.append("answered")
            return Answer(count=7)

        async def hook() -> None:
            events.append("hook")

        def failing() -> None:
            events.append("failing")
            raise RuntimeError

        tokens, edge, servicer = probe(wait=wait)
        with capture_logs() as logs:
            async with serve((add, servicer), edge=edge, tokens=tokens) as served:
                served.server.on_close(hook)
                served.server.on_close(failing)
                await eventually(SERVING, served.channel)
                call = asyncio.ensure_future(answer(served, "wait"))
                await begun.wait()
                watch = health_pb2_grpc.HealthStub(served.channel).Watch(
                    health_pb2.HealthCheckRequest(service="")
                )
                await watch.read()
                stopping = asyncio.create_task(served.server.stop())
                while (await watch.read()).status != NOT_SERVING:
                    pass
                assert await watch.read() is grpc.aio.EOF
                assert await refused(served) is grpc.StatusCode.UNAVAILABLE
                assert edge.draining
                go.set()
                assert (await call).count == 7
                await stopping
                assert events == ["answered", "failing", "hook"]
                assert [e["event"] for e in logs if e["log_level"] == "error"] == ["close_fault"]

    async def test_what_has_arrived_is_answered(self) -> None:
        """gRPC alone would take one of the calls, and cancel the others."""
        tokens, edge, servicer = probe()
        callers = 8
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            metadata = (("authorization", f"Bearer {served.token()}"),)
            connected, go = threading.Barrier(callers + 1), threading.Event()

            def ask(count: int) -> int:
                options = [("grpc.use_local_subchannel_pool", 1)]
                with grpc.insecure_channel(served.target, options=options) as channel:
                    grpc.channel_ready_future(channel).result(10)
                    connected.wait(10)
                    go.wait(10)
                    return int(Stub(channel).Ask(Question(count=count), metadata=metadata).count)

            with ThreadPoolExecutor(callers) as pool:
                asked = [pool.submit(ask, count) for count in range(callers)]
                await asyncio.to_thread(connected.wait, 10)
                go.set()
                # The calls arrive, and the loop has no time for them.
                time.sleep(0.3)
                await served.server.stop()
                answers = [await asyncio.wrap_future(each) for each in asked]
            assert answers == list(range(callers))

    async def test_grace_has_an_end(self) -> None:
        tokens, edge, servicer = probe(wait=lambda: asyncio.sleep(60))
        async with serve((add, servicer), edge=edge, tokens=tokens, grace_seconds=0.1) as served:
            call = asyncio.ensure_future(answer(served, "wait"))
            while not servicer.calls:
                await asyncio.sleep(0.005)
            async with asyncio.timeout(5):
                await served.server.stop()
            with pytest.raises(grpc.aio.AioRpcError):
                await call

    def test_sigterm_lets_the_call_in_flight_end(self, tmp_path: Path) -> None:
        with running(tmp_path) as (process, port, token):
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                known = (("authorization", f"Bearer {token}"),)
                call = Stub(channel).Ask.future(Question(text="slow", count=5), metadata=known)
                assert process.stdout.readline() == "begun\n"
                process.send_signal(signal.SIGTERM)
                assert call.result(timeout=10).count == 5
            assert process.wait(10) == 0
            assert process.stdout.read() == "closed\n"

    def test_a_second_signal_ends_the_grace(self, tmp_path: Path) -> None:
        with running(tmp_path) as (process, port, token):
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                known = (("authorization", f"Bearer {token}"),)
                call = Stub(channel).Ask.future(Question(text="stuck"), metadata=known)
                assert process.stdout.readline() == "begun\n"
                process.send_signal(signal.SIGINT)
                process.send_signal(signal.SIGTERM)
                assert call.code() is not grpc.StatusCode.OK
            assert process.wait(10) == 0
            assert process.stdout.read() == "closed\n"


async def refused(served: Served) -> grpc.StatusCode:
    """The code of the first call that is not answered."""
    async with asyncio.timeout(5):
        while True:
            try:
                await answer(served, "")
            except grpc.aio.AioRpcError as error:
                return error.code()
            # The end waits for quiet.
            await asyncio.sleep(0.1)


async def answer(served: Served, text: str) -> Any:
    return await served.stub(Stub).Ask(Question(text=text))


PROGRAM = """
import asyncio, sys
from pathlib import Path
from perfuse.serving import Edge, Server, TokenAuthenticator
from serving.probe import POLICY, Answer, Probe, add

async def slow():
    print("begun", flush=True)
    await asyncio.sleep(0.5)
    return Answer(count=5)

async def stuck():
    print("begun", flush=True)
    await asyncio.sleep(600)

async def main():
    edge = Edge(TokenAuthenticator(Path(sys.argv[1])), policy=POLICY)
    server = Server(edge, bind="127.0.0.1:0")
    server.add(add, Probe(edge, slow=slow, stuck=stuck))
    server.on_close(lambda: print("closed", flush=True))
    start = server.start
    async def told():
        print(await start(), flush=True)
    server.start = told
    await server.run()

import structlog
structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
asyncio.run(main())
"""


@contextlib.contextmanager
def running(folder: Path) -> Any:
    token = mint(folder / "tokens", "acme", "alice", ["reader"])
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder / "tokens")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    try:
        yield process, int(process.stdout.readline()), token
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


class TestBinding:
    async def test_a_port_that_is_taken_is_refused(self) -> None:
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            second = Server(Edge(tokens, policy=POLICY), bind=served.target)
            second.add(add, Probe(second.edge))
            with pytest.raises(FailedPrecondition, match="another process has the port"):
                await second.start()

    async def test_large_messages_pass_and_larger_do_not(self) -> None:
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            stub = served.stub(Stub)
            await stub.Ask(Question(payload=bytes(7 << 20)))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Ask(Question(payload=bytes(8 << 20)))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    async def test_metrics_are_told_on_their_own_port(self) -> None:
        tokens, edge, servicer = probe()
        server = Server(edge, metrics_address="127.0.0.1:0")
        server.add(add, servicer)
        await server.start()
        url = f"http://127.0.0.1:{server.metrics_port}/metrics"
        token = tokens.issue("acme", "reader")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            known = (("authorization", f"Bearer {token}"),)
            await Stub(channel).Ask(Question(), metadata=known)
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(url).read().decode())
        await server.stop()
        line = f'perfuse_rpc_seconds_count{{code="OK",method="{NAME}/Ask"}} 1.0'
        assert line in text.splitlines()
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(url)

    async def test_health_is_told_in_plain_text_on_a_port_of_its_own_to_the_very_end(self) -> None:
        problem: Exception | None = None

        async def ready() -> None:
            if problem is not None:
                raise problem

        _, edge, servicer = probe()
        server = Server(edge, ready=ready, probe_seconds=0.01, health_address="127.0.0.1:0")
        server.add(add, servicer)
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.health_port}") as channel:
            await eventually(SERVING, channel, NAME)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await Stub(channel).Ask(Question())
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            problem = Unavailable("the database is away")
            await eventually(NOT_SERVING, channel, NAME)
            at_the_end: list[int] = []

            async def hook() -> None:
                at_the_end.extend([await check(channel, NAME), await check(channel, "live")])

            server.on_close(hook)
            await server.stop()
            assert at_the_end == [NOT_SERVING, SERVING]
            with pytest.raises(grpc.aio.AioRpcError):
                await check(channel)

    async def test_a_health_port_that_is_taken_is_refused(self) -> None:
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            second = Server(Edge(tokens, policy=POLICY), health_address=served.target)
            with pytest.raises(FailedPrecondition, match="cannot be bound: another process"):
                await second.start()

    async def test_a_metrics_port_that_is_taken_is_refused(self) -> None:
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            second = Server(Edge(tokens, policy=POLICY), metrics_address=served.target)
            with pytest.raises(FailedPrecondition, match="metrics cannot be told"):
                await second.start()


async def services(channel: Any) -> list[str]:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    async for response in stub.ServerReflectionInfo(iter([request])):
        return [each.name for each in response.list_services_response.service]
    return []


class TestReflection:
    async def test_on_loopback_it_names_the_services(self) -> None:
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            assert NAME in await services(served.channel)

    async def test_elsewhere_it_is_off(self) -> None:
        _, edge, servicer = probe()
        server = Server(edge, bind="0.0.0.0:0")
        server.add(add, servicer)
        port = await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await services(channel)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert await check(channel, "live") == SERVING
        await server.stop()


def test_the_token_file_is_what_a_server_knows_callers_by(tmp_path: Path) -> None:
    mint(tmp_path / "tokens", "acme", "alice", ["reader"])
    settings = ServingSettings(token_file=tmp_path / "tokens")
    assert isinstance(settings.authenticator()._minted, TokenAuthenticator)
