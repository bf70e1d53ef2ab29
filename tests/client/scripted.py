"""A real gRPC server whose answers a test scripts, to see what the client does with them.

with scripted(GetConcept=[Refuse("UNAVAILABLE"), wire.Concept(name=...)]) as server:
    Client(server.connection).concepts.get("tom")
    assert len(server.seen["GetConcept"]) == 2
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from perfuse.client import Connection
from perfuse.v1 import registry_pb2, renderer_pb2, trainer_pb2

_SERVICES = {
    name: service
    for file in (registry_pb2, renderer_pb2, trainer_pb2)
    for name, service in file.DESCRIPTOR.services_by_name.items()
}


@dataclass(frozen=True)
class Refuse:
    """Refuse the call with this code."""

    code: str
    text: str = "scripted"


@dataclass(frozen=True)
class Tell:
    """A stream: these messages, then the end or a refusal; or wait for the caller to go."""

    messages: tuple[Any, ...]
    end: Refuse | None = None
    hold: bool = False


class Server:
    """What was asked, and where.

    Attributes:
        connection: For clients.
        seen: Method → requests; those of a client stream as a list.
        metadata: Of the last call.
        left: Method → whether a held stream saw its caller go.
    """

    def __init__(self, script: dict[str, list[Any]], tls: grpc.ServerCredentials | None) -> None:
        self.seen: dict[str, list[Any]] = defaultdict(list)
        self.metadata: dict[str, str] = {}
        # Made beforehand: of two threads that ask for what is missing, each could get its own.
        self.left = {method: threading.Event() for method in script}
        self._script = {name: list(answers) for name, answers in script.items()}
        self._server = grpc.server(ThreadPoolExecutor(32))
        for name, service in _SERVICES.items():
            handlers = {method.name: self._handler(method) for method in service.methods}
            self._server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(f"perfuse.v1.{name}", handlers),)
            )
        bind = "127.0.0.1:0"
        port = (
            self._server.add_secure_port(bind, tls) if tls else self._server.add_insecure_port(bind)
        )
        target = f"127.0.0.1:{port}"
        self.connection = Connection(target, target, target, "acme", "perfuse_scripted")
        self._server.start()

    def stop(self) -> None:
        """End at once."""
        self._server.stop(0).wait()

    def _handler(self, method: Any) -> Any:
        request_kind = GetMessageClass(method.input_type)

        def unary(request: Any, context: grpc.ServicerContext) -> Any:
            answer = self._next(method.name, request, context)
            if isinstance(answer, Refuse):
                context.abort(grpc.StatusCode[answer.code], answer.text)
            return answer

        def upload(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            return unary(list(requests), context)

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            told = self._next(method.name, request, context)
            if isinstance(told, Refuse):
                context.abort(grpc.StatusCode[told.code], told.text)
            try:
                yield from told.messages
                while told.hold and context.is_active():
                    time.sleep(0.005)
            finally:
                # Also where a caller goes so soon that gRPC does not come back for more.
                if told.hold:
                    self.left[method.name].set()
            if told.end is not None:
                context.abort(grpc.StatusCode[told.end.code], told.end.text)

        codecs = {
            "request_deserializer": request_kind.FromString,
            "response_serializer": lambda message: message.SerializeToString(),
        }
        if method.client_streaming:
            return grpc.stream_unary_rpc_method_handler(upload, **codecs)
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, **codecs)
        return grpc.unary_unary_rpc_method_handler(unary, **codecs)

    def _next(self, name: str, request: Any, context: grpc.ServicerContext) -> Any:
        self.seen[name].append(request)
        self.metadata = {key: str(value) for key, value in context.invocation_metadata()}
        answers = self._script[name]
        return answers.pop(0) if len(answers) > 1 else answers[0]


@contextmanager
def scripted(tls: grpc.ServerCredentials | None = None, **script: list[Any]) -> Iterator[Server]:
    """Serve a script: method → answers in turn, the last one again and again."""
    server = Server(script, tls)
    try:
        yield server
    finally:
        server.stop()
