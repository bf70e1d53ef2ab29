"""The server: binds, tells its health, and drains when it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from perfuse.errors import FailedPrecondition
from perfuse.serving.edge import Edge
from perfuse.serving.health import Health
from perfuse.serving.readiness import Readiness, Ready
from perfuse.serving.roster import Adder, Roster
from perfuse.serving.settings import ServingSettings, host_port, is_loopback
from perfuse.serving.threaded import ThreadedServer
from perfuse.serving.workers import Worker, this_worker

Hook = Callable[[], Awaitable[None] | None]

DEFAULT_MESSAGE_BYTES = 8 << 20
_QUIET = 0.02
"""Seconds without a call after which all that had arrived are taken to have begun."""
_TAKING_IN = 1.0
"""Seconds after which the end no longer waits for quiet."""


class Server:
    """A gRPC server with health, reflection on loopback, and an orderly end.

    Args:
        edge: Of the servicers; closed when the server ends.
        bind: Address, `host:port`; port 0 takes a free one.
        credentials: Of TLS; None for plain text.
        max_message_bytes: Of a request or a response.
        grace_seconds: That calls in flight may take when the server ends.
        ready: Raises while the services cannot be asked, as when the database is away. Health
            tells NOT_SERVING until it first passes and whenever it raises.
        probe_seconds: Between two askings of `ready`.
        metrics_address: Where Prometheus may ask for the edge's measures; None for nowhere.
        health_address: Where health, and nothing else, is told in plain text too, until the very
            end; workers share it. None for nowhere.
        worker: What this process shares its address as; None for a process of its own.
    """

    def __init__(
        self,
        edge: Edge,
        *,
        bind: str = "127.0.0.1:0",
        credentials: grpc.ServerCredentials | None = None,
        max_message_bytes: int = DEFAULT_MESSAGE_BYTES,
        grace_seconds: float = 20.0,
        ready: Ready | None = None,
        probe_seconds: float = 5.0,
        metrics_address: str | None = None,
        health_address: str | None = None,
        worker: Worker | None = None,
    ) -> None:
        self.edge = edge
        edge.max_message_bytes = max_message_bytes
        self.health = Health()
        self.port = self.metrics_port = self.health_port = 0
        self._metrics_address, self._health_address = metrics_address, health_address
        self._bind, self._credentials = worker.bind if worker else bind, credentials
        self._worker = worker
        self._options = _options(max_message_bytes, shared=worker is not None)
        self._grace, self._readiness = grace_seconds, Readiness(ready, probe_seconds)
        self._parts: list[tuple[Adder, Any]] = []
        self._hooks: list[Hook] = []
        self._server: Any = None
        self._probing: asyncio.Task[None] | None = None
        self._log = structlog.get_logger("perfuse.serving")

    @classmethod
    def from_settings(
        cls, settings: ServingSettings, edge: Edge, *, ready: Ready | None = None
    ) -> Server:
        """A server as the environment describes it."""
        return cls(
            edge,
            bind=settings.bind,
            credentials=settings.credentials(),
            max_message_bytes=settings.max_message_bytes,
            grace_seconds=settings.grace_seconds,
            ready=ready,
            metrics_address=settings.metrics_address,
            health_address=settings.health_address,
            worker=this_worker(),
        )

    def add(self, adder: Adder, servicer: Any) -> None:
        """Serve a service.

        Args:
            adder: The generated `add_<Service>Servicer_to_server`.
            servicer: Each of its methods decorated with `rpc`; `start` refuses it otherwise.
        """
        self._parts.append((adder, servicer))

    def on_close(self, hook: Hook) -> None:
        """Call this after the last call has ended; the last hook added is called first.

        A hook that is not async runs on a thread.
        """
        self._hooks.append(hook)

    async def start(self) -> int:
        """Bind and answer calls.

        Returns:
            The port.

        Raises:
            FailedPrecondition: the address cannot be bound, or a method has no guard or no row
                in the policy.
        """
        roster = Roster(self.edge.policy)
        for adder, servicer in self._parts:
            adder(servicer, roster)
        for service in roster.services:
            self.health.add(service)
        self._server = self._bound(roster)
        if self._metrics_address is not None:
            host, port = host_port(self._metrics_address)
            # Workers tell each of their own calls, on ports that follow one another.
            port += self._worker.index if self._worker and port else 0
            self.metrics_port, close = self.edge.metrics.expose(host, port)
            self.on_close(close)
        if self._health_address is not None:
            await self._tell_health(self._health_address)
        await self._server.start()
        self._probing = asyncio.create_task(self._readiness.tell(self.health))
        self._log.info("serving", bind=self._bind, port=self.port, services=roster.services)
        return self.port

    def _bound(self, roster: Roster) -> Any:
        server: Any
        if self.edge.threaded:
            server = ThreadedServer(
                roster,
                self.health,
                # As many again for callers who take their time to send a request.
                threads=2 * self.edge.thread_count,
                backlog=self.edge.backlog,
                options=self._options,
            )
        else:
            server = grpc.aio.server(options=self._options)
            server.add_generic_rpc_handlers(tuple(roster.handlers))
            health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        if is_loopback(self._bind):
            # Elsewhere off: reflection would tell strangers what the server can do.
            names = (*roster.services, "grpc.health.v1.Health", reflection.SERVICE_NAME)
            reflection.enable_server_reflection(
                names, server.inner if self.edge.threaded else server
            )
        try:
            if self._credentials is None:
                self.port = server.add_insecure_port(self._bind)
            else:
                self.port = server.add_secure_port(self._bind, self._credentials)
        except RuntimeError:
            # gRPC's server ends itself when it is let go, which must be while the loop runs, and
            # so before the traceback of what is raised here.
            del server
            raise _taken(self._bind) from None
        return server

    async def _tell_health(self, address: str) -> None:
        host_port(address)
        server = grpc.aio.server(options=self._options)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        try:
            self.health_port = server.add_insecure_port(address)
        except RuntimeError:
            del server
            raise _taken(address) from None
        await server.start()

        async def close() -> None:
            await server.stop(None)

        # The first hook is called last: probes are answered while the others close.
        self._hooks.insert(0, close)

    async def stop(self, grace: float | None = None) -> None:
        """Tell NOT_SERVING, let calls in flight end, then call the hooks."""
        self.health.drain()
        self.edge.draining = True
        if self._probing is not None:
            self._probing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._probing
        self._log.info("draining")
        await self._take_in()
        await self._server.stop(self._grace if grace is None else grace)
        await self.edge.close()
        for hook in reversed(self._hooks):
            await self._call(hook)
        self._log.info("stopped")

    async def _take_in(self) -> None:
        """Begin the calls that have arrived.

        gRPC takes one at a time, each when the loop has time for it, and ends with CANCELLED what
        it has not taken when it is told to stop.
        """
        until = time.monotonic() + _TAKING_IN
        taken = -1
        while taken != self.edge.calls and time.monotonic() < until:
            taken = self.edge.calls
            await asyncio.sleep(_QUIET)

    async def _call(self, hook: Hook) -> None:
        try:
            result = hook() if inspect.iscoroutinefunction(hook) else await asyncio.to_thread(hook)
            if result is not None:
                await result
        except Exception as error:
            # The other hooks have something to close as well.
            self._log.error("close_fault", exc_info=error)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; a second one ends the grace."""
        loop = asyncio.get_running_loop()
        signals: asyncio.Queue[int] = asyncio.Queue()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for each in numbers:
            loop.add_signal_handler(each, signals.put_nowait, each)
        if self._worker is not None:
            loop.add_reader(0, self._hear_parent, loop, signals)
        try:
            await self.start()
            told = asyncio.create_task(signals.get())
            # gRPC ends by itself only when it has crashed; the process must not outlive it.
            ended = asyncio.create_task(self._server.wait_for_termination())
            await asyncio.wait({told, ended}, return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                self._log.info("signalled", signal=signal.Signals(told.result()).name)
                told = asyncio.create_task(signals.get())
            stopping = asyncio.create_task(self.stop())
            await asyncio.wait({told, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                self._log.warning("grace_ended")
                await self._server.stop(None)
            told.cancel()
            await stopping
            await ended
        finally:
            for each in numbers:
                loop.remove_signal_handler(each)

    def _hear_parent(self, loop: asyncio.AbstractEventLoop, signals: asyncio.Queue[int]) -> None:
        """The parent says nothing, so that what can be read is its end."""
        loop.remove_reader(0)
        signals.put_nowait(signal.SIGTERM)


def _taken(address: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{address} cannot be bound: another process has the port, or the host has no such "
        "address; choose another"
    )


def _options(max_message_bytes: int, *, shared: bool) -> list[tuple[str, int]]:
    return [
        # Two servers on one port would each get some of the calls, and neither would notice.
        ("grpc.so_reuseport", int(shared)),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # Clients may ping every 30 seconds, with or without calls, give or take their clocks.
        ("grpc.http2.min_ping_interval_without_data_ms", 25_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # A client that vanished without a word is noticed within a minute and a half.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.max_concurrent_streams", 1000),
    ]
