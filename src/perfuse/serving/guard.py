"""The decorator of a servicer's methods: the way to the edge."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, overload

from google.protobuf.descriptor import ServiceDescriptor

from perfuse.errors import InvalidArgument

if TYPE_CHECKING:
    from perfuse.serving.edge import Call

S = TypeVar("S")
Q = TypeVar("Q")
R = TypeVar("R")

Unary = Callable[[S, Q, "Call"], Awaitable[R]]
Streaming = Callable[[S, Q, "Call"], AsyncIterator[R]]


@dataclass(frozen=True, slots=True)
class Guard:
    """What stands before one method.

    Attributes:
        method: As the servicer has it, called with the servicer, the request and a `Call`.
        name: The method's.
        gives_stream: Whether the method yields responses rather than returning one.
    """

    method: Callable[..., Any]
    name: str
    gives_stream: bool


@overload
def rpc(method: Streaming[S, Q, R]) -> Callable[[S, Q, Any], Awaitable[None]]: ...
@overload
def rpc(method: Unary[S, Q, R]) -> Callable[[S, Q, Any], Awaitable[R]]: ...
def rpc(method: Callable[..., Any]) -> Any:
    """Put a servicer's method behind the servicer's `edge`.

    The method is called with the request (or an async iterator of the client's stream) and a
    `Call`; it returns a response or yields responses. gRPC sees the signature that it wants. Who
    may call it stands in `perfuse.serving.policy`.

    Args:
        method: `async def`, with or without `yield`.

    Raises:
        InvalidArgument: the method is not async.
    """
    gives_stream = inspect.isasyncgenfunction(method)
    if not gives_stream and not inspect.iscoroutinefunction(method):
        raise InvalidArgument(
            f"{method.__qualname__} is not async; an rpc must be declared with async def"
        )
    guard = Guard(method, method.__name__, gives_stream)

    @wraps(method)
    async def guarded(self: Any, request: Any, context: Any) -> Any:
        return await self.edge.answer(guard, self, request, context)

    # What wraps() left would have tools, and gRPC, see through to the method.
    del guarded.__wrapped__
    guarded.guard = guard  # type: ignore[attr-defined]
    return guarded


def guard_of(method: object) -> Guard | None:
    """The guard before a method, None where it stands open."""
    guard = getattr(method, "guard", None)
    return guard if isinstance(guard, Guard) else None


def unguarded(service: ServiceDescriptor, servicer: type) -> list[str]:
    """The methods of a service that a servicer lacks, leaves open, or gives in the wrong shape."""
    names = []
    for method in service.methods:
        guard = guard_of(getattr(servicer, method.name, None))
        if guard is None or guard.gives_stream != method.server_streaming:
            names.append(method.name)
    return names


def full_name(servicer: type, name: str) -> str:
    """`package.Service/Method`, found through the generated class that the servicer extends."""
    for base in servicer.__mro__:
        stubs = sys.modules.get(base.__module__.removesuffix("_grpc"))
        services = getattr(getattr(stubs, "DESCRIPTOR", None), "services_by_name", {})
        service = services.get(base.__name__.removesuffix("Servicer"))
        if service is not None:
            return f"{service.full_name}/{name}"
    return f"{servicer.__name__}/{name}"
