"""Where spans are sent in a test: a real OTLP server over gRPC, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

SECONDS = 120.0


@dataclass(frozen=True)
class Seen:
    """A span as it was sent.

    Attributes:
        service: which sent it.
        trace, id, parent: in hexadecimal digits; the parent empty where there is none.
        attributes: with those of its events.
    """

    service: str
    name: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, str]
    raw: str


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps all spans."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self.endpoint = ""

    def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            named = {each.key: each.value.string_value for each in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [_seen(named["service.name"], span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def of(self, trace: str) -> list[Seen]:
        """The spans of one trace so far."""
        return [span for span in tuple(self.spans) if span.trace == trace]

    def wait_for(self, trace: str, done: Callable[[list[Seen]], object]) -> list[Seen]:
        """The spans of a trace, once they are as they should be."""
        until = time.monotonic() + SECONDS
        while not done(found := self.of(trace)):
            assert time.monotonic() < until, [(each.service, each.name) for each in found]
            time.sleep(0.05)
        return found


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens."""
    collector = Collector()
    with ThreadPoolExecutor(4) as pool:
        server: Any = grpc.server(pool)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
        collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield collector
        finally:
            server.stop(None).wait()


def _seen(service: str, span: Any) -> Seen:
    pairs = [*span.attributes, *(pair for event in span.events for pair in event.attributes)]
    attributes = {each.key: str(each.value) for each in pairs}
    parent = span.parent_span_id.hex()
    ids = (span.trace_id.hex(), span.span_id.hex(), parent)
    return Seen(service, span.name, *ids, attributes, str(span))
