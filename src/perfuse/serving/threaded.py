"""gRPC's server of threads, for services whose methods wait for nothing but synchronous code.

`grpc.aio` leads a call through its event loop several times, and hands synchronous work to a thread
and back; that costs more than most of the Registry's work does. Here a call has its thread from the
start. The methods are the same `async def`s behind the same edge, but they may await nothing except
`Call.in_thread`, which runs its function where it stands, so that each runs to its end at once.

By itself gRPC's server of threads gives a thread to whoever begins a call, and has it wait for the
request's bytes. So each method is announced as one that takes a stream, which looks the same on the
wire: the edge asks who calls before it reads, and a request that does not come in time ends its
call. Health has threads of its own, since a probe must not queue behind work.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from perfuse.errors import FailedPrecondition, InvalidArgument
from perfuse.serving.health import MAX_WATCHERS, Health
from perfuse.serving.roster import Roster
from perfuse.serving.threads import too_much_work
from perfuse.serving.validation import Malformed

# How long a caller may take to send a request that it has begun.
ARRIVAL_SECONDS = 60.0
HEALTH_ARRIVAL_SECONDS = 5.0
# Beside those of the watchers. Threads are made when they are first needed.
_HEALTH_THREADS = 64
# gRPC tells of no deadline by one beyond all years.
_NO_DEADLINE = 1e9


class CallerGone(Exception):
    """gRPC could no longer read from the caller or write to it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Turn(threading.local):
    """What a thread's present call brought along: when it came, and whether it is one too many."""

    arrived = 0.0
    too_many = 0


_turn = _Turn()


class OnThread:
    """The context of a call on a thread, with the face that the edge knows from `grpc.aio`.

    Attributes:
        arrived: When the call came, by `time.perf_counter()`; it may have waited for its thread.
    """

    __slots__ = ("_context", "arrived")

    def __init__(self, context: Any) -> None:
        self._context = context
        self.arrived = _turn.arrived

    def invocation_metadata(self) -> Any:
        """As gRPC's, like all that follow."""
        return self._context.invocation_metadata()

    def peer(self) -> str:
        return str(self._context.peer())

    def auth_context(self) -> Any:
        return self._context.auth_context()

    def set_trailing_metadata(self, metadata: Any) -> None:
        self._context.set_trailing_metadata(metadata)

    def time_remaining(self) -> float | None:
        remaining: float = self._context.time_remaining()
        return remaining if remaining < _NO_DEADLINE else None

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self._context.abort(code, details)

    async def abort_with_status(self, status: grpc.Status) -> None:
        self._context.abort_with_status(status)

    def is_over(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return not self._context.is_active()


class Arriving:
    """A request that is yet to be read.

    Args:
        messages: Of which it is the only one.
        context: gRPC's, of the call.
        since: Contexts of calls whose requests are being read, and since when.
    """

    __slots__ = ("_context", "_messages", "_since")

    def __init__(self, messages: Iterator[Any], context: Any, since: dict[Any, float]) -> None:
        self._messages, self._context, self._since = messages, context, since

    def read(self) -> Message | Malformed:
        """The request.

        Raises:
            ResourceExhausted: too many calls wait for a thread already.
            InvalidArgument: the caller ended the call without one.
            CallerGone: the caller went away, or took too long.
        """
        if _turn.too_many:
            raise too_much_work(_turn.too_many)
        self._since[self._context] = time.monotonic()
        try:
            request: Message | Malformed = next(self._messages)
        except StopIteration:
            raise InvalidArgument("the call ended without a request; send one message") from None
        except grpc.RpcError as error:
            raise CallerGone(error) from None
        finally:
            del self._since[self._context]
        return request


class ThreadedServer:
    """As much of `grpc.aio.Server` as `Server` asks for, over `grpc.server`.

    Args:
        roster: The services.
        health: Of the server.
        threads: For calls.
        backlog: Calls that may wait for a thread; one more is refused.
        options: Of gRPC.

    Attributes:
        inner: gRPC's own.

    Raises:
        FailedPrecondition: a method takes or gives a stream.
    """

    def __init__(
        self,
        roster: Roster,
        health: Health,
        *,
        threads: int,
        backlog: int,
        options: list[tuple[str, int]],
    ) -> None:
        self._spare = ThreadPoolExecutor(MAX_WATCHERS + _HEALTH_THREADS, "perfuse-spare")
        self._pool = _Pool(threads, backlog, self._spare)
        self._since: dict[Any, float] = {}
        self._health_since: dict[Any, float] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self.inner: Any = grpc.server(self._pool, options=options)
        services = {
            service: {name: self._threaded(each) for name, each in methods.items()}
            for service, methods in roster.methods.items()
        }
        services["grpc.health.v1.Health"] = self._health(health)
        for service, handlers in services.items():
            handler = grpc.method_handlers_generic_handler(service, handlers)
            self.inner.add_generic_rpc_handlers((handler,))
        self.add_insecure_port = self.inner.add_insecure_port
        self.add_secure_port = self.inner.add_secure_port

    async def start(self) -> None:
        """Answer calls."""
        self.inner.start()
        self._sweeping = asyncio.create_task(self._sweep())

    async def stop(self, grace: float | None) -> None:
        """Take no more calls, and cancel those that outlast the grace; what has begun ends."""
        await asyncio.to_thread(lambda: self.inner.stop(grace).wait())
        if self._sweeping is not None:
            self._sweeping.cancel()
        for pool in (self._pool, self._spare):
            await asyncio.to_thread(pool.shutdown, wait=True, cancel_futures=True)

    async def wait_for_termination(self) -> None:
        """Until `stop`."""
        await asyncio.to_thread(self.inner.wait_for_termination)

    def _threaded(self, handler: Any) -> Any:
        if handler.unary_unary is None:
            raise FailedPrecondition(
                "a method of a stream waits for its caller, which a server of threads cannot "
                "afford; make the service's Edge without threaded=True"
            )
        method = handler.unary_unary

        def run(messages: Iterator[Any], context: Any) -> Any:
            arriving = Arriving(messages, context, self._since)
            return _to_end(method(arriving, OnThread(context)))

        return grpc.stream_unary_rpc_method_handler(
            run, handler.request_deserializer, handler.response_serializer
        )

    def _health(self, health: Health) -> dict[str, Any]:
        def read(messages: Iterator[Any], context: Any) -> Any:
            try:
                return Arriving(messages, context, self._health_since).read()
            except CallerGone as gone:
                raise gone.error from None
            except InvalidArgument as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

        def check(messages: Iterator[Any], context: Any) -> Any:
            return _to_end(health.Check(read(messages, context), OnThread(context)))

        def names(messages: Iterator[Any], context: Any) -> Any:
            return _to_end(health.List(read(messages, context), OnThread(context)))

        def watch(messages: Iterator[Any], context: Any) -> Iterator[Any]:
            yield from health.watch_on_thread(read(messages, context), context)

        for each in (check, names, watch):
            # Where gRPC looks for it.
            vars(each)["experimental_thread_pool"] = self._spare
        asked, told = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        unary = grpc.stream_unary_rpc_method_handler
        return {
            "Check": unary(check, asked.FromString, told.SerializeToString),
            "List": unary(
                names,
                health_pb2.HealthListRequest.FromString,
                health_pb2.HealthListResponse.SerializeToString,
            ),
            "Watch": grpc.stream_stream_rpc_method_handler(
                watch, asked.FromString, told.SerializeToString
            ),
        }

    async def _sweep(self) -> None:
        """End calls whose requests do not come."""
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            for each, seconds in (
                (self._since, ARRIVAL_SECONDS),
                (self._health_since, HEALTH_ARRIVAL_SECONDS),
            ):
                for context, since in list(each.items()):
                    if now - since > seconds:
                        context.cancel()


class _Pool(ThreadPoolExecutor):
    """Threads that know when their call came. Calls over the limit are refused on spare ones."""

    def __init__(self, count: int, backlog: int, spare: ThreadPoolExecutor) -> None:
        super().__init__(count, "perfuse")
        self._most = count + backlog
        self._spare = spare
        self._begun = 0
        self._counting = threading.Lock()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        with self._counting:
            self._begun += 1
            too_many = self._begun - 1 if self._begun > self._most else 0
        submit = self._spare.submit if too_many else super().submit
        return submit(self._perform, time.perf_counter(), too_many, function, *args, **kwargs)

    def _perform(
        self, arrived: float, too_many: int, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        _turn.arrived, _turn.too_many = arrived, too_many
        try:
            return function(*args, **kwargs)
        finally:
            _turn.too_many = 0
            with self._counting:
                self._begun -= 1


def _to_end(coroutine: Any) -> Any:
    """What a coroutine returns that never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise RuntimeError("a method on a server of threads awaited something else than in_thread")
