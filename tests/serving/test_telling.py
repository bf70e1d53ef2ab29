"""Logs and traces: one line an event, one span a call, nothing that is nobody's business."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
import structlog
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from perfuse.errors import NotFound
from perfuse.serving import Edge, logs, rpc, tracing
from perfuse.serving.testing import IssuedTokens, serve
from serving.probe import POLICY, Answer, Probe, Question, Stub, add, probe


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class TestLogs:
    def test_a_line_is_json_with_level_time_and_request(self, stream: io.StringIO) -> None:
        logs.configure("info", "json", stream)
        token = logs.request_id.set("r-1")
        structlog.get_logger().info("moved", alias="prod")
        logs.request_id.reset(token)
        structlog.get_logger().info("moved", odd=object)
        structlog.get_logger().debug("unseen")
        first, second = lines(stream)
        assert (first["event"], first["level"], first["alias"]) == ("moved", "info", "prod")
        assert first["request_id"] == "r-1"
        assert datetime.fromisoformat(first["timestamp"]).tzinfo is UTC
        assert "request_id" not in second

    def test_a_traceback_shows_no_variables(self, stream: io.StringIO) -> None:
        logs.configure("info", "json", stream)
        prompt = "".join(("can", "ary"))
        try:
            raise ValueError(len(prompt))
        except ValueError:
            structlog.get_logger().exception("fault")
        (line,) = lines(stream)
        assert "ValueError: 6" in line["exception"]
        assert "canary" not in line["exception"]

    def test_the_standard_library_logs_alike(self, stream: io.StringIO) -> None:
        logs.configure("warning", "json", stream)
        logging.getLogger("sqlalchemy").warning("slow %s", "query")
        logging.getLogger("sqlalchemy").info("unseen")
        (line,) = lines(stream)
        assert (line["event"], line["level"], line["logger"]) == (
            "slow query",
            "warning",
            "sqlalchemy",
        )

    def test_people_may_read_lines_of_text(self, stream: io.StringIO) -> None:
        logs.configure("debug", "console", stream)
        structlog.get_logger().debug("moved", alias="prod")
        try:
            raise ValueError("odd")
        except ValueError:
            structlog.get_logger().exception("fault")
        assert "alias=prod" in stream.getvalue()
        assert "ValueError: odd" in stream.getvalue()

    async def test_a_log_that_is_closed_stops_nothing(self, stream: io.StringIO) -> None:
        tokens, edge, servicer = probe()
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            logs.configure("info", "json", stream)
            stub = served.stub(Stub)
            assert (await stub.Ask(Question(count=1))).count == 1
            text = stream.getvalue()
            stream.close()
            assert (await stub.Ask(Question(count=2))).count == 2
        assert json.loads(text.splitlines()[-1])["code"] == "OK"


class Traced(Probe):
    """Answers with the span that is current on a thread."""

    @rpc
    async def Ask(self, request: Any, call: Any) -> Any:
        if request.text:
            return await super()._answer(request, call)
        current = await call.in_thread(lambda: trace.get_current_span().get_span_context())
        return Answer(text=f"{current.span_id:016x}")


class TestTraces:
    async def test_a_span_a_call_under_the_callers(self) -> None:
        exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        tokens = IssuedTokens()
        edge = Edge(tokens, policy=POLICY, tracer=provider.get_tracer("test"))

        def missing() -> Any:
            raise NotFound("canary")

        def boom() -> Any:
            raise RuntimeError("canary")

        servicer = Traced(edge, missing=missing, boom=boom)
        async with serve((add, servicer), edge=edge, tokens=tokens) as served:
            stub = served.stub(Stub)
            known = ("authorization", f"Bearer {served.token()}")
            parent = ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01")
            inside = (await stub.Ask(Question(), metadata=(known, parent))).text
            for text in ("missing", "boom"):
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.Ask(Question(text=text))
            bad = ("traceparent", "canary")
            assert [a.count async for a in stub.Watch(Question(count=2), metadata=(known, bad))]
        first, second, third, stream = exporter.get_finished_spans()
        assert (first.name, first.kind) == ("perfuse.probe.ProbeService/Ask", SpanKind.SERVER)
        assert f"{first.context.trace_id:032x}" == "a" * 32
        assert f"{first.parent.span_id:016x}" == "b" * 16
        assert f"{first.context.span_id:016x}" == inside
        assert dict(first.attributes) == {
            "rpc.system": "grpc",
            "rpc.service": "perfuse.probe.ProbeService",
            "rpc.method": "Ask",
            "rpc.grpc.status_code": 0,
        }
        assert (second.attributes["rpc.grpc.status_code"], second.parent) == (5, None)
        assert second.status.status_code is StatusCode.UNSET
        assert third.status.status_code is StatusCode.ERROR
        assert stream.attributes["rpc.method"] == "Watch"
        assert "canary" not in "".join(span.to_json() for span in (first, second, third, stream))

    def test_without_an_endpoint_there_is_no_tracer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
        tracer, end = tracing.configure("perfuse-probe")
        assert tracer is None
        end()

    def test_with_an_endpoint_spans_are_sent_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        received: list[Any] = []

        class Collector(trace_service_pb2_grpc.TraceServiceServicer):
            def Export(self, request: Any, context: Any) -> Any:
                received.append(request)
                return trace_service_pb2.ExportTraceServiceResponse()

        with ThreadPoolExecutor(1) as pool:
            server = grpc.server(pool)
            trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Collector(), server)
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
            tracer, end = tracing.configure("perfuse-probe")
            span = tracing.CallSpan(tracer, "perfuse.probe.ProbeService/Ask", {})
            span.end("OK", 0)
            end()
            server.stop(None).wait()
        (resource,) = received[0].resource_spans
        names = {each.key: each.value.string_value for each in resource.resource.attributes}
        assert names["service.name"] == "perfuse-probe"
        assert resource.scope_spans[0].spans[0].name == "perfuse.probe.ProbeService/Ask"
