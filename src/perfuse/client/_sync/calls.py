"""How every call is made: its channel, credential and deadline, and what is tried again."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any

import grpc

from perfuse.client.channels import sync_channel, sync_pause
from perfuse.client.connection import Connection
from perfuse.client.faults import from_rpc_error, is_of_a_service
from perfuse.client.traces import trace_metadata
from perfuse.client.writing import Names
from perfuse.errors import FailedPrecondition, PerfuseError, Unavailable
from perfuse.v1.registry_pb2_grpc import RegistryServiceStub
from perfuse.v1.renderer_pb2_grpc import RendererServiceStub
from perfuse.v1.trainer_pb2_grpc import TrainerServiceStub

_STUBS: dict[str, Any] = {
    "registry": RegistryServiceStub,
    "trainer": TrainerServiceStub,
    "renderer": RendererServiceStub,
}
_ATTEMPTS = 3
_PAUSE = 0.2


class Calls:
    """Calls of one client.

    Args:
        connection: where to, and as whom.
        timeout: seconds for a call that says nothing else, repetitions included.

    Attributes:
        names: short ids to whole names.
    """

    def __init__(self, connection: Connection, timeout: float) -> None:
        self.names = Names(connection.tenant)
        self._connection = connection
        self._timeout = timeout
        self._channels: dict[str, Any] = {}
        self._stubs: dict[str, Any] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the channels; calls under way are cancelled."""
        channels, self._channels, self._stubs = self._channels, {}, {}
        for channel in channels.values():
            channel.close()

    def call(self, service: str, method: str, request: Any, timeout: float | None = None) -> Any:
        """One request, one answer.

        Args:
            service: `registry`, `trainer` or `renderer`.
            method: the rpc's name.
            request: repeating it must do no harm: a reading one, or one with a `request_id`.
            timeout: seconds, repetitions included.

        Raises:
            PerfuseError: as the service refused, or gRPC.
        """
        ends = time.monotonic() + (self._timeout if timeout is None else timeout)
        send = getattr(self._stub(service), method)
        for attempt in range(1, _ATTEMPTS + 1):
            left = max(ends - time.monotonic(), 0.001)
            try:
                return send(request, timeout=left, metadata=self._metadata())
            except grpc.RpcError as error:
                fault = self._fault(service, error)
                if not _is_repeated(error, attempt, ends):
                    raise fault from None
            sync_pause(_PAUSE * attempt)
        raise AssertionError("unreachable")

    def stream(
        self, service: str, method: str, request: Any, timeout: float | None = None
    ) -> Generator[Any]:
        """One request, many answers; closing the iteration ends the call.

        Args:
            service, method, request: as for `call`; asked again if the server ended before it
                answered anything.
            timeout: seconds, repetitions included; None for no end.

        Raises:
            PerfuseError: as the service refused, or gRPC.
        """
        ends = None if timeout is None else time.monotonic() + timeout
        send = getattr(self._stub(service), method)
        for attempt in range(1, _ATTEMPTS + 1):
            left = None if ends is None else max(ends - time.monotonic(), 0.001)
            answers = send(request, timeout=left, metadata=self._metadata())
            answered = False
            try:
                for answer in answers:
                    answered = True
                    yield answer
            except grpc.RpcError as error:
                fault = self._fault(service, error)
                if answered or not _is_repeated(error, attempt, ends):
                    raise fault from None
            else:
                return
            finally:
                answers.cancel()
            sync_pause(_PAUSE * attempt)

    def upload(self, service: str, method: str, parts: Any, timeout: float) -> Any:
        """Many requests, one answer. Never repeated here.

        Raises:
            PerfuseError: as the service refused, or gRPC.
        """
        send = getattr(self._stub(service), method)
        try:
            return send(parts, timeout=timeout, metadata=self._metadata())
        except grpc.RpcError as error:
            raise self._fault(service, error) from None

    def pages(self, service: str, method: str, request: Any, items: str) -> Iterator[Any]:
        """Every item of every page; a page is fetched when the one before is used up.

        Args:
            service, method: as for `call`.
            request: of the first page.
            items: the answer's field that holds them.
        """
        while True:
            page = self.call(service, method, request)
            for item in getattr(page, items):
                yield item
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _stub(self, service: str) -> Any:
        with self._lock:
            if service not in self._stubs:
                target = getattr(self._connection, service)
                channel = sync_channel(target, self._connection.credentials(service))
                self._channels[service] = channel
                self._stubs[service] = _STUBS[service](channel)
            return self._stubs[service]

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        if not self._connection.identified:
            raise FailedPrecondition(
                "there is no token to call with: set PERFUSE_TOKEN or `token` in the "
                "configuration; `perfuse up` leaves one, an operator makes one with "
                "`perfuse-registry token`"
            )
        token = self._connection.bearer()
        # Whoever has a certificate alone is known by it.
        credential = (("authorization", f"Bearer {token}"),) if token else ()
        return (*credential, *trace_metadata())

    def _fault(self, service: str, error: grpc.RpcError) -> PerfuseError:
        if _was_cut_off(error):
            return Unavailable(
                "the service ended while the call was under way. Repeat it when the service is back"
            )
        fault = from_rpc_error(error)
        if isinstance(fault, Unavailable) and not is_of_a_service(error):
            address = getattr(self._connection, service)
            return Unavailable(
                f"the {service.capitalize()} at {address} does not answer ({fault}). Start it, as "
                f"`perfuse up` does, or say where it is with PERFUSE_{service.upper()}"
            )
        return fault


def _is_repeated(error: grpc.RpcError, attempt: int, ends: float | None) -> bool:
    """gRPC repeats what is UNAVAILABLE; what a server's end cut off, CANCELLED, is ours."""
    in_time = ends is None or time.monotonic() < ends
    return _was_cut_off(error) and attempt < _ATTEMPTS and in_time


def _was_cut_off(error: grpc.RpcError) -> bool:
    with suppress(AttributeError):
        return bool(error.code() is grpc.StatusCode.CANCELLED)
    return False
