"""The server of threads: the same answers as from `grpc.aio`, and nothing for those who stall."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from structlog.testing import capture_logs

from perfuse.client import from_rpc_error
from perfuse.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from perfuse.serving import Edge, TokenAuthenticator, mint, rpc, threaded
from perfuse.serving.logs import request_id as current_request_id
from perfuse.serving.testing import IssuedTokens, Served, serve
from serving.probe import POLICY, Answer, NoBadText, Probe, Question, Stub, add, probe_pb2_grpc

ASK = "/perfuse.probe.ProbeService/Ask"
NAME = "perfuse.probe.ProbeService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Worker(probe_pb2_grpc.ProbeServiceServicer):
    """Answers with what `work` makes of a question, on a thread."""

    def __init__(self, edge: Edge, work: Callable[[Any], Any]) -> None:
        self.edge, self.work = edge, work

    @rpc
    async def Ask(self, request: Any, call: Any) -> Any:
        return await call.in_thread(self.work, request)

    @rpc
    async def Operate(self, request: Any, call: Any) -> Any:
        await asyncio.sleep(0.1)
        return Answer()


class _Unary:
    """Hands a server on what generated code adds to it, without streams."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        ours = {name: handlers[name] for name in ("Ask", "Operate")}
        self._server.add_registered_method_handlers(service, ours)

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """As the roster does."""


def add_unary(servicer: Any, server: Any) -> None:
    add(servicer, _Unary(server))


@asynccontextmanager
async def working(
    work: Callable[[Any], Any], **options: Any
) -> AsyncIterator[tuple[Served, Any, Edge]]:
    """A server, a stub of a reader's, and the edge."""
    tokens = IssuedTokens()
    edge = Edge(tokens, NoBadText(), policy=POLICY, threaded=True, **options)
    async with serve((add_unary, Worker(edge, work)), edge=edge, tokens=tokens) as served:
        yield served, served.stub(Stub, "acme", "reader"), edge


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def code_of(call: Any) -> str:
    return (await refusal(call)).code().name


async def eventually(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def in_flight(edge: Edge) -> float:
    return edge.metrics.in_flight.labels(f"{NAME}/Ask")._value.get()


def opened(served: Served, token: str = "", **options: Any) -> Any:
    """A call that sends no request until it is told to."""
    method = served.channel.stream_unary(
        ASK, request_serializer=Question.SerializeToString, response_deserializer=Answer.FromString
    )
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    return method(metadata=metadata, **options)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as events:
        yield events


def coded(logs: list[Any]) -> list[str]:
    return [event["code"] for event in logs if event["event"] == "rpc"]


class TestAnswers:
    async def test_a_call_is_answered_on_a_thread_that_knows_it(self) -> None:
        def work(question: Any) -> Any:
            assert threading.current_thread() is not threading.main_thread()
            return Answer(text=current_request_id.get(), count=question.count + 1)

        async with working(work) as (_, stub, _):
            call = stub.Ask(Question(count=1))
            answer = await call
            assert answer.count == 2
            assert answer.text == dict(await call.trailing_metadata())["x-request-id"]

    async def test_refusals_are_those_of_the_other_server(self, logs: list[Any]) -> None:
        def work(question: Any) -> Any:
            raise NotFound("no such concept") if question.count else RuntimeError("canary-4711")

        async with working(work) as (served, stub, _):
            stranger = Stub(served.channel)
            assert await code_of(stranger.Ask(Question(text="bad"))) == "UNAUTHENTICATED"
            assert await code_of(stub.Operate(Question(text="bad"))) == "PERMISSION_DENIED"
            broken = from_rpc_error(await refusal(stub.Ask(Question(text="bad", count=-1))))
            assert isinstance(broken, InvalidArgument)
            assert [field for field, _ in broken.violations] == ["text", "count"]
            raw = served.channel.unary_unary(ASK)
            token = (("authorization", f"Bearer {served.token('acme', 'reader')}"),)
            assert await code_of(raw(b"\xff\xff", metadata=token)) == "INVALID_ARGUMENT"
            assert isinstance(from_rpc_error(await refusal(stub.Ask(Question(count=1)))), NotFound)
            fault = await refusal(stub.Ask(Question()))
            assert fault.code() is grpc.StatusCode.INTERNAL
            assert "canary" not in str(fault)
        assert coded(logs) == [
            *("UNAUTHENTICATED", "PERMISSION_DENIED"),
            *("INVALID_ARGUMENT", "INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL"),
        ]

    async def test_a_method_that_awaits_is_a_fault(self) -> None:
        async with working(lambda _: Answer()) as (served, _, _):
            operator = served.stub(Stub, "acme", "operator")
            assert await code_of(operator.Operate(Question())) == "INTERNAL"

    async def test_a_service_with_streams_is_refused(self) -> None:
        tokens = IssuedTokens()
        edge = Edge(tokens, policy=POLICY, threaded=True)
        with pytest.raises(FailedPrecondition, match="cannot afford"):
            async with serve((add, Probe(edge)), edge=edge, tokens=tokens):
                pass

    async def test_calls_are_counted(self) -> None:
        async with working(lambda _: Answer()) as (_, stub, edge):
            for _ in range(3):
                await stub.Ask(Question())
            await eventually(lambda: in_flight(edge) == 0)
            seconds = edge.metrics.seconds.labels(f"{NAME}/Ask", "OK")
            assert sum(bucket.get() for bucket in seconds._buckets) == 3


class TestStalling:
    async def test_a_stranger_is_refused_before_sending_anything(self) -> None:
        async with working(lambda _: Answer()) as (served, _, _), asyncio.timeout(5):
            assert await code_of(opened(served)) == "UNAUTHENTICATED"

    async def test_a_request_that_does_not_come_ends_its_call(
        self, monkeypatch: pytest.MonkeyPatch, logs: list[Any]
    ) -> None:
        monkeypatch.setattr(threaded, "ARRIVAL_SECONDS", 0.05)
        async with working(lambda _: Answer(count=7), threads=1) as (served, stub, edge):
            token = served.token("acme", "reader")
            held = [opened(served, token) for _ in range(2)]
            await eventually(lambda: in_flight(edge) == 2)
            # Both threads are held, and let go of.
            assert (await stub.Ask(Question(), timeout=10)).count == 7
            assert {await code_of(call) for call in held} == {"CANCELLED"}
        assert sorted(coded(logs))[-1] == "OK"
        assert len(coded(logs)) == 3

    async def test_a_call_without_a_request_is_refused(self) -> None:
        async with working(lambda _: Answer()) as (served, _, _):
            call = opened(served, served.token("acme", "reader"))
            await call.done_writing()
            assert await code_of(call) == "INVALID_ARGUMENT"

    async def test_more_calls_than_may_wait_are_refused_while_health_answers(self) -> None:
        go = threading.Event()

        def work(question: Any) -> Any:
            go.wait(30)
            return Answer(count=question.count)

        async with working(work, threads=1, backlog=1) as (served, stub, edge):
            calls = [asyncio.ensure_future(_answer(stub, n)) for n in range(3)]
            await eventually(lambda: in_flight(edge) == 2)
            fault: Any = None
            async with asyncio.timeout(10):
                # Until the third has come.
                while not isinstance(fault, ResourceExhausted):
                    fault = from_rpc_error(await refusal(stub.Ask(Question(), timeout=0.5)))
            assert fault.retry_after == 1.0
            assert await code_of(Stub(served.channel).Ask(Question())) == "UNAUTHENTICATED"
            assert await check(served.channel) == SERVING
            go.set()
            assert [answer.count for answer in await asyncio.gather(*calls)] == [0, 1, 2]
            assert (await stub.Ask(Question(count=4))).count == 4

    async def test_what_nobody_waits_for_any_more_is_not_begun(self, logs: list[Any]) -> None:
        go, begun = threading.Event(), []

        def work(question: Any) -> Any:
            begun.append(question.count)
            go.wait(30)
            return Answer()

        async with working(work, threads=1) as (_, stub, _):
            held = [asyncio.ensure_future(_answer(stub, n)) for n in (1, 1)]
            await eventually(lambda: begun == [1, 1])
            assert await code_of(stub.Ask(Question(count=2), timeout=0.05)) == "DEADLINE_EXCEEDED"
            left = stub.Ask(Question(count=3))
            await asyncio.sleep(0.05)
            left.cancel()
            go.set()
            await asyncio.gather(*held)
            await eventually(lambda: len(coded(logs)) == 4)
        assert begun == [1, 1]
        assert sorted(coded(logs)) == ["CANCELLED", "DEADLINE_EXCEEDED", "OK", "OK"]

    async def test_a_caller_who_leaves_does_not_count_as_answered(self, logs: list[Any]) -> None:
        go, begun = threading.Event(), threading.Event()

        def work(_: Any) -> Any:
            begun.set()
            go.wait(30)
            return Answer()

        async with working(work) as (_, stub, edge):
            call = stub.Ask(Question())
            await asyncio.to_thread(begun.wait, 10)
            call.cancel()
            await asyncio.sleep(0.1)
            go.set()
            await eventually(lambda: coded(logs) == ["CANCELLED"])
            assert in_flight(edge) == 0


async def _answer(stub: Any, count: int) -> Any:
    return await stub.Ask(Question(count=count))


async def _answer_for_ever(stub: Any) -> None:
    while True:
        await _answer(stub, 0)


async def check(channel: Any, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    status: int = (await health_pb2_grpc.HealthStub(channel).Check(request)).status
    return status


class TestHealth:
    async def test_it_is_told_without_credentials_and_to_watchers(self) -> None:
        async with working(lambda _: Answer()) as (served, _, _):
            stub = health_pb2_grpc.HealthStub(served.channel)
            async with asyncio.timeout(5):
                while await check(served.channel, NAME) != SERVING:
                    await asyncio.sleep(0.005)
            every = (await stub.List(health_pb2.HealthListRequest())).statuses
            assert {name: each.status for name, each in every.items()} == dict.fromkeys(
                ("", "live", NAME), SERVING
            )
            unknown = await refusal(check(served.channel, "unknown"))
            assert unknown.code() is grpc.StatusCode.NOT_FOUND
            first, second = (stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(2))
            assert (await first.read()).status == (await second.read()).status == SERVING
            first.cancel()
            served.server.health.set_ready(False)
            assert (await second.read()).status == NOT_SERVING
            assert await check(served.channel, "live") == SERVING
            # The thread of a watcher who left is free again.
            await eventually(lambda: len(served.server.health._watchers) == 1)
            served.server.health.drain()
            assert await second.read() is grpc.aio.EOF

    async def test_watchers_are_limited_and_leave_room_for_probes(self) -> None:
        async with working(lambda _: Answer()) as (served, _, _):
            watch = health_pb2_grpc.HealthStub(served.channel).Watch
            held = [watch(health_pb2.HealthCheckRequest()) for _ in range(64)]
            for each in held:
                await each.read()
            error = await refusal(watch(health_pb2.HealthCheckRequest()).read())
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert await check(served.channel, "live") == SERVING

    async def test_a_probe_without_a_request_is_refused(self) -> None:
        async with working(lambda _: Answer()) as (served, _, _):
            call = served.channel.stream_unary("/grpc.health.v1.Health/Check")()
            await call.done_writing()
            assert await code_of(call) == "INVALID_ARGUMENT"


class TestEnd:
    async def test_what_is_in_flight_ends(self) -> None:
        go, begun = threading.Event(), threading.Event()

        def work(question: Any) -> Any:
            begun.set()
            if question.count:
                go.wait(30)
            return Answer(count=question.count)

        async with working(work) as (served, stub, _):
            call = asyncio.ensure_future(_answer(stub, 7))
            await asyncio.to_thread(begun.wait, 10)
            stopping = asyncio.create_task(served.server.stop())
            async with asyncio.timeout(5):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await _answer_for_ever(stub)
            # gRPC cancels what had arrived and was not begun yet, and turns away what comes later.
            refused = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
            assert caught.value.code() in refused
            go.set()
            assert (await call).count == 7
            await stopping

    async def test_grace_has_an_end_for_the_caller(self) -> None:
        go, begun = threading.Event(), threading.Event()

        def work(_: Any) -> Any:
            begun.set()
            go.wait(30)
            return Answer()

        async with working(work) as (served, stub, _):
            call = asyncio.ensure_future(_answer(stub, 0))
            await asyncio.to_thread(begun.wait, 10)
            stopping = asyncio.create_task(served.server.stop(0.05))
            async with asyncio.timeout(5):
                await refusal(call)
            # Synchronous code cannot be interrupted, so the server's end waits for it.
            assert not stopping.done()
            go.set()
            await stopping


class TestTokens:
    async def test_a_token_is_in_force_from_the_next_call_on_every_thread(
        self, tmp_path: Path
    ) -> None:
        path = tmp_path / "tokens"
        mint(path, "acme", "first", ["reader"])
        edge = Edge(TokenAuthenticator(path), policy=POLICY, threaded=True)
        servicer = Worker(edge, lambda _: Answer())
        async with serve((add_unary, servicer), edge=edge, tokens=IssuedTokens()) as served:
            stub = Stub(served.channel)
            for number in range(20):
                token = mint(path, "acme", f"caller-{number}", ["reader"])
                metadata = (("authorization", f"Bearer {token}"),)
                await asyncio.gather(*(stub.Ask(Question(), metadata=metadata) for _ in range(8)))


async def test_every_refusal_has_its_details() -> None:
    async with working(lambda _: Answer()) as (served, _, _):
        error = await refusal(Stub(served.channel).Ask(Question()))
    status = rpc_status.from_call(_Plain(error))
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.reason == "UNAUTHENTICATED"
    assert info.metadata["request_id"] == dict(error.trailing_metadata())["x-request-id"]


class _Plain:
    """An error of `grpc.aio` as `rpc_status` wants a call."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code, self.details = error.code, error.details
        self.trailing_metadata = error.trailing_metadata
