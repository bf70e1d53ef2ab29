"""The edge, over a real server: what reaches a method, what leaves it, and what nobody learns."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from perfuse.client import from_rpc_error
from perfuse.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)
from perfuse.serving import Caller, Edge, rpc, unguarded
from perfuse.serving.guard import full_name
from perfuse.serving.logs import request_id as current_request_id
from perfuse.serving.policy import Policy, Row
from perfuse.serving.testing import IssuedTokens, serve
from serving.probe import (
    POLICY,
    SERVICE,
    Answer,
    Probe,
    Question,
    Stub,
    add,
    probe,
    probe_pb2_grpc,
)

CANARY = "canary-4711"


def raises(error: BaseException) -> Any:
    def answer() -> Any:
        raise error

    return answer


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    """What a call of any shape is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await result(call)
    return caught.value


async def result(call: Any) -> Any:
    """What a call of any shape gives, a stream's responses as a list."""
    return [each async for each in call] if hasattr(call, "__aiter__") else await call


async def code_of(call: Any) -> str:
    return (await refusal(call)).code().name


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as events:
        yield events


class TestShapes:
    async def test_every_shape_is_answered(self) -> None:
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            stub = served.stub(Stub, "acme", "publisher")
            assert await stub.Ask(Question(count=3)) == Answer(text="acme", count=3)
            assert [a.count async for a in stub.Watch(Question(count=3))] == [0, 1, 2]
            several = [Question(count=1), Question(count=2)]
            assert (await stub.Upload(iter(several))).count == 3
            assert [a.count async for a in stub.Talk(iter(several))] == [1, 2]
            assert (await stub.Upload(iter([]))).count == 0

    async def test_the_call_knows_its_caller_and_its_deadline(self) -> None:
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            stub = served.stub(Stub, "acme", "reader", "operator", subject="alice")
            await stub.Ask(Question(), timeout=30)
            await stub.Ask(Question())
        with_deadline, without = servicer.calls
        assert with_deadline.caller == Caller("acme", "alice", frozenset({"reader", "operator"}))
        assert without.deadline is None
        assert time.monotonic() < with_deadline.deadline <= time.monotonic() + 30

    async def test_a_method_must_return_a_message(self) -> None:
        tokens, edge, servicer = probe(none=lambda: None, text=lambda: CANARY)
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            stub = served.stub(Stub)
            for text in ("none", "text"):
                error = await refusal(stub.Ask(Question(text=text)))
                assert error.code() is grpc.StatusCode.INTERNAL
                assert CANARY not in repr(error)


class TestOrder:
    """Who fails at one check learns nothing of the next."""

    async def test_credential_then_role_then_rules_then_method(self) -> None:
        tokens, edge, servicer = probe(missing=raises(NotFound("no such concept")))
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            stranger = Stub(served.channel)
            reader = served.stub(Stub, "acme", "reader")
            publisher = served.stub(Stub, "acme", "publisher")
            for text, last in (("bad", "INVALID_ARGUMENT"), ("missing", "NOT_FOUND")):
                for call in (stranger.Ask, stranger.Publish, stranger.Operate, stranger.Watch):
                    assert await code_of(call(Question(text=text, count=1))) == "UNAUTHENTICATED"
                assert await code_of(reader.Publish(Question(text=text))) == "PERMISSION_DENIED"
                assert await code_of(publisher.Publish(Question(text=text))) == last
            for call in (stranger.Upload, stranger.Talk):
                assert await code_of(call(iter([Question(text="bad")]))) == "UNAUTHENTICATED"
            assert await code_of(reader.Upload(iter([Question(text="bad")]))) == "PERMISSION_DENIED"

    async def test_strangers_are_all_answered_alike(self) -> None:
        tokens, edge, servicer = probe(missing=raises(NotFound("no such concept")))
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            stub = Stub(served.channel)
            answers = set()
            for question in (Question(), Question(text="bad"), Question(text="missing")):
                for sent in ("Bearer x", "Bearer", "Basic x", "", None):
                    metadata = [("x-request-id", "r")]
                    if sent is not None:
                        metadata.append(("authorization", sent))
                    error = await refusal(stub.Ask(question, metadata=tuple(metadata)))
                    answers.add((error.details(), str(error.trailing_metadata())))
        assert len(answers) == 1
        assert not servicer.calls

    async def test_two_credentials_are_none(self) -> None:
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            pair = tuple(("authorization", f"Bearer {served.token()}") for _ in range(2))
            error = await refusal(Stub(served.channel).Ask(Question(), metadata=pair))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED

    @pytest.mark.parametrize(
        ("role", "allowed"),
        [
            ("reader", {"Ask"}),
            ("publisher", {"Ask", "Publish"}),
            ("admin", {"Ask", "Publish"}),
            ("operator", {"Operate"}),
        ],
    )
    async def test_roles(self, role: str, allowed: set[str]) -> None:
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            stub = served.stub(Stub, "acme", role)
            passed = set()
            for name in ("Ask", "Publish", "Operate"):
                try:
                    await getattr(stub, name)(Question())
                except grpc.aio.AioRpcError as error:
                    fault = from_rpc_error(error)
                    assert isinstance(fault, PermissionDenied)
                    assert name in str(fault)
                else:
                    passed.add(name)
        assert passed == allowed

    async def test_a_delegate_may_call_what_its_rows_say(self) -> None:
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            token = served.token("platform", "delegate")
            known = (("authorization", f"Bearer {token}"), ("perfuse-tenant", "acme"))
            stub = Stub(served.channel)
            assert (await stub.Ask(Question(), metadata=known)).text == "acme"
            assert await code_of(stub.Publish(Question(), metadata=known)) == "PERMISSION_DENIED"
            assert await code_of(stub.Watch(Question(), metadata=known)) == "PERMISSION_DENIED"

    async def test_another_tenants_name_reaches_no_method(self) -> None:
        tokens, edge, servicer = probe()
        own, other = "tenants/acme/concepts/tom", "tenants/globex/concepts/tom"
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            stub = served.stub(Stub)
            for question in (
                Question(name=other),
                Question(name="tenants/globex"),
                Question(name="tenants/acme-2/concepts/tom"),
                Question(names=[own, other]),
            ):
                fault = from_rpc_error(await refusal(stub.Ask(question)))
                assert isinstance(fault, NotFound)
                assert fault.resource == (question.name or other)
                questions = iter([Question(name=own), Question(name=question.name or other)])
                assert await code_of(stub.Upload(questions)) == "NOT_FOUND"
            assert [seen.name for seen in servicer.seen] == [own] * 4
            error = await refusal(stub.Publish(Question(name=f"{other}/versions/1")))
            assert from_rpc_error(error).resource == other
            # What is wrong with the request is told first, and what is no name is the method's.
            assert await code_of(stub.Ask(Question(name=other, text="bad"))) == "INVALID_ARGUMENT"
            for name in ("", own, "tenants/acme", "concepts/tom", "tenants/Globex", "tenants//x"):
                assert (await stub.Ask(Question(name=name))).text == "acme"

    async def test_an_authenticator_that_fails_says_nothing_of_why(self, logs: list[Any]) -> None:
        class Broken(IssuedTokens):
            async def authenticate(self, metadata: Any, peer: Any = None) -> Caller:
                raise FailedPrecondition(CANARY)

        edge = Edge(Broken(), policy=POLICY)
        async with serve((add, Probe(edge)), edge=edge, tokens=Broken()) as served:
            error = await refusal(Stub(served.channel).Ask(Question()))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert CANARY not in repr(error) + str(error.trailing_metadata())
        assert any(CANARY in repr(event.get("exc_info")) for event in logs)


class TestRules:
    async def test_each_broken_rule_comes_back(self) -> None:
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            error = await refusal(served.stub(Stub).Ask(Question(text="bad", count=-1)))
        fault = from_rpc_error(error)
        assert isinstance(fault, InvalidArgument)
        assert fault.violations == (("text", "must not be bad"), ("count", "must be at least 0"))
        assert not servicer.calls

    async def test_each_message_of_a_stream_is_held_to_them(self) -> None:
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            several = [Question(count=1), Question(count=2), Question(text="bad")]
            for call in (served.stub(Stub).Upload, served.stub(Stub).Talk):
                servicer.seen.clear()
                assert await code_of(call(iter(several))) == "INVALID_ARGUMENT"
                assert [question.count for question in servicer.seen] == [1, 2]

    async def test_bytes_that_are_no_message(self) -> None:
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            method = served.channel.unary_unary("/perfuse.probe.ProbeService/Ask")
            upload = served.channel.stream_unary("/perfuse.probe.ProbeService/Upload")
            assert await code_of(method(b"\xff\xff")) == "UNAUTHENTICATED"
            known = (("authorization", f"Bearer {served.token()}"),)
            for call in (
                method(b"\xff\xff", metadata=known),
                upload(iter([b"\x0a\xff"]), metadata=known),
            ):
                error = await refusal(call)
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert "ProbeService" in error.details()
        assert not servicer.calls


class TestFaults:
    async def test_nothing_of_an_unknown_exception_leaves_the_server(self, logs: list[Any]) -> None:
        tokens, edge, servicer = probe(boom=raises(RuntimeError(CANARY)))
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            stub = served.stub(Stub)
            boom = Question(text="boom", count=1)
            calls = (
                stub.Ask(boom),
                stub.Watch(boom),
                stub.Upload(iter([boom])),
                stub.Talk(iter([boom])),
            )
            for call in calls:
                error = await refusal(call)
                sent = repr(error) + str(error.trailing_metadata()) + str(error.initial_metadata())
                assert error.code() is grpc.StatusCode.INTERNAL
                assert CANARY not in sent
                assert "Traceback" not in sent
        told = [event for event in logs if event["event"] == "rpc"]
        assert [event["code"] for event in told] == ["INTERNAL"] * 4
        assert all(CANARY in str(event["exc_info"]) for event in told)
        assert all(event["log_level"] == "error" for event in told)

    async def test_a_cancellation_within_is_a_fault_and_no_silence(self) -> None:
        """gRPC sends nothing for a CancelledError, so this call would wait for ever."""
        tokens, edge, servicer = probe(inner=raises(asyncio.CancelledError()))
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            async with asyncio.timeout(5):
                assert await code_of(served.stub(Stub).Ask(Question(text="inner"))) == "INTERNAL"


class TestRequestId:
    async def test_one_that_is_sent_comes_back(self) -> None:
        tokens, edge, servicer = probe(boom=raises(RuntimeError()))
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            stub = served.stub(Stub)
            known = ("authorization", f"Bearer {served.token()}")
            call = stub.Ask(Question(), metadata=(known, ("x-request-id", "abc-1")))
            assert dict(await call.trailing_metadata())["x-request-id"] == "abc-1"
            stream = stub.Watch(Question(count=1), metadata=(known, ("x-request-id", "abc-2")))
            assert len([answer async for answer in stream]) == 1
            assert dict(await stream.trailing_metadata())["x-request-id"] == "abc-2"
            error = await refusal(
                stub.Ask(Question(text="boom"), metadata=(known, ("x-request-id", "abc-3")))
            )
        assert dict(error.trailing_metadata())["x-request-id"] == "abc-3"
        assert "abc-3" in error.details()
        assert [call.request_id for call in servicer.calls] == ["abc-1", "abc-2", "abc-3"]

    @pytest.mark.parametrize("sent", ["x" * 65, "a b", ""])
    async def test_one_that_is_not_fit_for_a_log_is_replaced(self, sent: str) -> None:
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            known = ("authorization", f"Bearer {served.token()}")
            await Stub(served.channel).Ask(Question(), metadata=(known, ("x-request-id", sent)))
        made = uuid.UUID(servicer.calls[0].request_id)
        assert (str(made), made.version) == (servicer.calls[0].request_id, 4)


class TestEnds:
    @pytest.mark.parametrize("shape", ["Ask", "Watch", "Upload"])
    async def test_a_caller_who_leaves_stops_the_method(self, shape: str, logs: list[Any]) -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def wait() -> Any:
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

        tokens, edge, servicer = probe(wait=wait)
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            method = getattr(served.stub(Stub), shape)
            request = Question(text="wait", count=1)
            call = method(iter([request])) if shape == "Upload" else method(request)
            await asyncio.wait_for(begun.wait(), 5)
            call.cancel()
            await asyncio.wait_for(ended.wait(), 5)
            await eventually(lambda: any(event["event"] == "rpc" for event in logs))
        (event,) = (event for event in logs if event["event"] == "rpc")
        assert event["code"] == "CANCELLED"
        assert event["log_level"] == "info"

    async def test_a_stream_is_closed_when_its_reader_leaves(self) -> None:
        """Also while gRPC writes, where the generator itself hears of nothing."""
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            call = served.stub(Stub).Watch(Question(count=1 << 40))
            async for answer in call:
                if answer.count == 5:
                    break
            call.cancel()
            await asyncio.wait_for(servicer.ended.wait(), 5)

    async def test_half_a_stream_never_passes_for_a_whole_one(self) -> None:
        """gRPC gives the end of a cancelled stream as if the caller had sent all."""
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            stub = served.stub(Stub)
            for number in range(30):
                call = stub.Upload()
                await call.write(Question(count=1))
                await asyncio.sleep(0.002 * (number % 2))
                call.cancel()
            await eventually(lambda: _count(edge, "Upload", "CANCELLED") == 30)
        assert not servicer.ended.is_set()

    async def test_a_deadline_stops_the_method(self, logs: list[Any]) -> None:
        tokens, edge, servicer = probe(wait=lambda: asyncio.sleep(60))
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            call = served.stub(Stub).Ask(Question(text="wait"), timeout=0.2)
            assert await code_of(call) == "DEADLINE_EXCEEDED"
            await eventually(lambda: any(event["event"] == "rpc" for event in logs))
        (event,) = (event for event in logs if event["event"] == "rpc")
        assert event["code"] == "DEADLINE_EXCEEDED"

    async def test_past_its_deadline_a_method_is_not_called(self) -> None:
        class Slow(IssuedTokens):
            async def authenticate(self, metadata: Any, peer: Any = None) -> Caller:
                # Blocks the loop, so that gRPC's own cancellation cannot come in between.
                time.sleep(0.3)
                return await super().authenticate(metadata)

        tokens = Slow()
        edge = Edge(tokens, policy=POLICY)
        servicer = Probe(edge)
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            call = served.stub(Stub).Ask(Question(), timeout=0.1)
            assert await code_of(call) == "DEADLINE_EXCEEDED"
            await eventually(lambda: _count(edge, "Ask", "DEADLINE_EXCEEDED") == 1)
        assert not servicer.calls


class Threaded(Probe):
    """Answers on a thread with what `work` returns."""

    def __init__(self, edge: Edge, work: Any) -> None:
        super().__init__(edge)
        self.work = work

    @rpc
    async def Ask(self, request: Any, call: Any) -> Any:
        return await call.in_thread(self.work, request.count)


class TestThreads:
    async def test_work_runs_on_a_thread_and_knows_the_call(self) -> None:
        def work(count: int) -> Any:
            assert threading.current_thread() is not threading.main_thread()
            return Answer(text=current_request_id.get(), count=count + 1)

        tokens = IssuedTokens()
        edge = Edge(tokens, policy=POLICY)
        async with serve((add, Threaded(edge, work)), edge=edge, tokens=tokens) as served:
            call = served.stub(Stub).Ask(Question(count=1))
            answer = await call
            assert answer.count == 2
            assert answer.text == dict(await call.trailing_metadata())["x-request-id"]

    async def test_what_work_raises_is_what_the_caller_gets(self) -> None:
        def work(_: int) -> Any:
            raise NotFound("no such concept")

        tokens = IssuedTokens()
        edge = Edge(tokens, policy=POLICY)
        async with serve((add, Threaded(edge, work)), edge=edge, tokens=tokens) as served:
            error = await refusal(served.stub(Stub).Ask(Question()))
        assert isinstance(from_rpc_error(error), NotFound)

    async def test_more_work_than_may_wait_is_refused_at_once(self) -> None:
        go = threading.Event()

        def work(count: int) -> Any:
            go.wait(30)
            return Answer(count=count)

        tokens = IssuedTokens()
        edge = Edge(tokens, policy=POLICY, threads=1, backlog=2)
        async with serve((add, Threaded(edge, work)), edge=edge, tokens=tokens) as served:
            stub = served.stub(Stub)
            calls = [asyncio.ensure_future(result(stub.Ask(Question(count=n)))) for n in range(3)]
            await eventually(lambda: _in_flight(edge, "Ask") == 3)
            fault = from_rpc_error(await refusal(stub.Ask(Question(count=3))))
            assert isinstance(fault, ResourceExhausted)
            assert fault.retry_after == 1.0
            go.set()
            assert [answer.count for answer in await asyncio.gather(*calls)] == [0, 1, 2]
            assert (await stub.Ask(Question(count=4))).count == 4

    async def test_work_that_waits_is_given_up_with_its_caller(self) -> None:
        go, begun = threading.Event(), []

        def work(count: int) -> Any:
            begun.append(count)
            go.wait(30)
            return Answer()

        tokens = IssuedTokens()
        edge = Edge(tokens, policy=POLICY, threads=1)
        async with serve((add, Threaded(edge, work)), edge=edge, tokens=tokens) as served:
            stub = served.stub(Stub)
            first = asyncio.ensure_future(result(stub.Ask(Question(count=1))))
            await eventually(lambda: begun == [1])
            second = stub.Ask(Question(count=2))
            await eventually(lambda: _in_flight(edge, "Ask") == 2)
            second.cancel()
            await eventually(lambda: _count(edge, "Ask", "CANCELLED") == 1)
            go.set()
            await first
            await stub.Ask(Question(count=3))
        assert begun == [1, 3]


class TestTelling:
    async def test_one_event_a_call_without_payloads_or_tokens(self, logs: list[Any]) -> None:
        tokens, edge, servicer = probe(missing=raises(NotFound("no such concept")))
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            stub = served.stub(Stub, "acme")
            await stub.Ask(Question(text=CANARY, payload=CANARY.encode()))
            await refusal(stub.Ask(Question(text="missing")))
            await refusal(Stub(served.channel).Ask(Question(text=CANARY)))
            issued = list(tokens._callers)
        told = [event for event in logs if event["event"] == "rpc"]
        assert [(event["tenant"], event["code"], event.get("reason")) for event in told] == [
            ("acme", "OK", None),
            ("acme", "NOT_FOUND", "NOT_FOUND"),
            (None, "UNAUTHENTICATED", "UNAUTHENTICATED"),
        ]
        for event in told:
            assert event["method"] == "perfuse.probe.ProbeService/Ask"
            assert event["ms"] >= 0
            assert len(event["request_id"]) == 36
        assert all(secret not in repr(logs) for secret in (CANARY, *issued))

    async def test_calls_are_counted_by_method_and_code(self) -> None:
        tokens, edge, servicer = probe(missing=raises(NotFound("")))
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            stub = served.stub(Stub)
            await stub.Ask(Question())
            await stub.Ask(Question())
            await refusal(stub.Ask(Question(text="missing")))
            assert [a.count async for a in stub.Watch(Question(count=1))] == [0]
        counts = {(m, c): _count(edge, m, c) for m in ("Ask", "Watch") for c in ("OK", "NOT_FOUND")}
        assert counts == {
            ("Ask", "OK"): 2,
            ("Ask", "NOT_FOUND"): 1,
            ("Watch", "OK"): 1,
            ("Watch", "NOT_FOUND"): 0,
        }
        assert _in_flight(edge, "Ask") == _in_flight(edge, "Watch") == 0
        labels = {
            label
            for metric in edge.metrics.registry.collect()
            for sample in metric.samples
            for label in sample.labels
        }
        assert labels == {"method", "code", "le"}


class TestGuards:
    def test_the_probe_is_guarded_whole(self) -> None:
        assert unguarded(SERVICE, Probe) == []

    def test_what_stands_open_is_named(self) -> None:
        class Open(Probe):
            async def Ask(self, request: Any, context: Any) -> Any:
                return Answer()

            @rpc
            async def Watch(self, request: Any, call: Any) -> Any:
                return Answer()

        assert unguarded(SERVICE, Open) == ["Ask", "Watch"]
        names = [method.name for method in SERVICE.methods]
        assert unguarded(SERVICE, probe_pb2_grpc.ProbeServiceServicer) == names

    async def test_a_server_does_not_start_with_an_open_method(self) -> None:
        class Open(Probe):
            async def Publish(self, request: Any, context: Any) -> Any:
                return Answer()

        tokens = IssuedTokens()
        edge = Edge(tokens, policy=POLICY)
        with pytest.raises(FailedPrecondition, match="ProbeService/Publish stands open"):
            async with serve((add, Open(edge)), edge=edge, tokens=tokens):
                pass
        await edge.close()

    async def test_a_server_does_not_start_with_a_method_that_has_no_row(self) -> None:
        tokens = IssuedTokens()
        edge = Edge(tokens, policy=Policy({SERVICE.full_name: [Row("Ask", "reader")]}))
        with pytest.raises(FailedPrecondition, match="ProbeService/Publish has no row"):
            async with serve((add, Probe(edge)), edge=edge, tokens=tokens):
                pass
        await edge.close()

    def test_a_method_must_be_async(self) -> None:
        with pytest.raises(InvalidArgument, match="async def"):
            rpc(lambda self, request, call: None)  # type: ignore[arg-type]

    def test_a_method_has_its_full_name(self) -> None:
        assert full_name(Probe, "Ask") == "perfuse.probe.ProbeService/Ask"
        assert full_name(Threaded, "Ask") == "perfuse.probe.ProbeService/Ask"
        assert full_name(dict, "Ask") == "dict/Ask"


def _count(edge: Edge, method: str, code: str) -> int:
    labels = {"method": f"perfuse.probe.ProbeService/{method}", "code": code}
    return int(edge.metrics.registry.get_sample_value("perfuse_rpc_seconds_count", labels) or 0)


def _in_flight(edge: Edge, method: str) -> int:
    labels = {"method": f"perfuse.probe.ProbeService/{method}"}
    return int(edge.metrics.registry.get_sample_value("perfuse_rpc_in_flight_calls", labels) or 0)
