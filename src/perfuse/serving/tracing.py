"""Traces: a span for each call, made by hand, sent where OpenTelemetry's environment says.

Within a call `span` tells of a part of it, and `carried` and its `parent` take a trace across a
queue: what happens later on the caller's behalf is in the caller's trace too (decision 21). No
attribute has anything that callers choose: no prompt, no name, no tenant.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

__all__ = ["CallSpan", "Span", "begin", "carried", "configure", "span"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROPAGATOR = TraceContextTextMapPropagator()

# The codes that are the service's fault and not the caller's, with their numbers: all that
# OpenTelemetry's conventions have a server's span call errors.
_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}


def configure(service: str) -> tuple[Tracer | None, Callable[[], None]]:
    """Send spans over OTLP where the environment names an endpoint.

    Args:
        service: The service's name, unless OTEL_SERVICE_NAME gives another.

    Returns:
        A tracer, None where no endpoint is named, and a function that sends what is left.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return None, lambda: None
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME") or service
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.get_tracer("perfuse.serving"), provider.shutdown


def begin(name: str, parent: str | None = None, **attributes: str | int) -> Span:
    """A span that is not current, for work whose end is elsewhere; `end()` it there.

    It costs next to nothing where spans are sent nowhere.

    Args:
        name: of the work, such as `perfuse.plan`.
        parent: what `carried` gave; None for the current span.
        attributes: nothing that callers choose; each is told under `perfuse.`.
    """
    within = _PROPAGATOR.extract({"traceparent": parent}) if parent else None
    told = {f"perfuse.{key}": value for key, value in attributes.items()}
    return trace.get_tracer("perfuse").start_span(name, within, attributes=told)


@contextmanager
def span(name: str, parent: str | None = None, **attributes: str | int) -> Iterator[Span]:
    """A span that is current meanwhile; see `begin`. An error that passes through marks it."""
    begun = begin(name, parent, **attributes)
    with trace.use_span(begun, end_on_exit=True, record_exception=False):
        yield begun


def carried() -> str | None:
    """The current span, to be kept and given as `parent` later; None where there is none."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent")


class CallSpan:
    """The span of one call, current from its making to its end.

    Args:
        tracer: Makes it.
        method: `package.Service/Method`.
        metadata: Of the call; its `traceparent` names the span that called.
    """

    __slots__ = ("_span", "_token")

    def __init__(self, tracer: Tracer, method: str, metadata: Mapping[str, str]) -> None:
        service, _, name = method.rpartition("/")
        self._span = tracer.start_span(
            method,
            _PROPAGATOR.extract(metadata),
            SpanKind.SERVER,
            {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
        )
        self._token = context.attach(trace.set_span_in_context(self._span))

    def end(self, code: str, number: int) -> None:
        """End it with the call's status, by name and by number."""
        self._span.set_attribute("rpc.grpc.status_code", number)
        if code in _FAULTS:
            self._span.set_status(StatusCode.ERROR, code)
        context.detach(self._token)
        self._span.end()
