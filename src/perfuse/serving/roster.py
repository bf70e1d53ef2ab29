"""The services on a server: each method guarded, each request read without a word about bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import grpc

from perfuse.errors import FailedPrecondition
from perfuse.serving.guard import guard_of
from perfuse.serving.policy import Policy
from perfuse.serving.validation import Malformed

Adder = Callable[[Any, Any], None]
"""The generated `add_<Service>Servicer_to_server`."""


class Roster:
    """Stands in for the server when a generated function adds a servicer to it.

    It refuses a method without a guard or without a row in the policy, and has malformed bytes
    arrive as `Malformed`: gRPC itself answers them before any credential is asked for, with UNKNOWN
    and the parser's words.

    Args:
        policy: Says who may call what.

    Attributes:
        methods: Handlers of each service, by name.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.methods: dict[str, dict[str, Any]] = {}

    @property
    def services(self) -> list[str]:
        """Full names of what was added."""
        return list(self.methods)

    @property
    def handlers(self) -> list[Any]:
        """For the server's `add_generic_rpc_handlers`."""
        return [
            grpc.method_handlers_generic_handler(service, methods)
            for service, methods in self.methods.items()
        ]

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Take up a service.

        Raises:
            FailedPrecondition: a method stands open, has another shape than the proto says, or
                nothing says who may call it.
        """
        guarded = {}
        for name, handler in handlers.items():
            method = (
                handler.unary_unary
                or handler.unary_stream
                or handler.stream_unary
                or handler.stream_stream
            )
            guard = guard_of(method)
            if guard is None or guard.gives_stream != handler.response_streaming:
                shape = "with" if handler.response_streaming else "without"
                raise FailedPrecondition(
                    f"{service}/{name} stands open: write it as an async def {shape} yield, and "
                    "decorate it with perfuse.serving.rpc"
                )
            self._policy.row(f"{service}/{name}")
            read = _reader(handler.request_deserializer, f"request of {service}/{name}")
            guarded[name] = handler._replace(request_deserializer=read)
        self.methods[service] = guarded

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Nothing: generated code gives the same handlers twice.

        gRPC's aio server waits on every registered method at each call, so that a service with
        thirty methods pays for thirty; a generic handler is found by one look-up.
        """


def _reader(parse: Callable[[bytes], Any], kind: str) -> Callable[[bytes], Any]:
    def read(raw: bytes) -> Any:
        try:
            return parse(raw)
        except Exception:
            return Malformed(kind)

    return read
