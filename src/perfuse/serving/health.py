"""The health service, `grpc.health.v1`: whether the server can be asked, told without credentials.

Three names: the empty one and each service's own tell readiness; `live` tells that the process
lives, whatever its database does. Our own servicer, because the one that ships with gRPC lets a
watcher that has gone away silence the others.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LIVE = "live"

_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
# Watching needs no credential, so it must not cost what a stranger could exhaust.
MAX_WATCHERS = 64


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Readiness of the services, NOT_SERVING until told otherwise, and liveness."""

    def __init__(self) -> None:
        self._statuses = {"": NOT_SERVING, LIVE: SERVING}
        self._watchers: set[asyncio.Event | threading.Event] = set()
        self._draining = False

    def add(self, service: str) -> None:
        """Tell of a service, by its full name, from now on."""
        self._statuses[service] = self._statuses[""]

    def set_ready(self, ready: bool) -> None:
        """Tell whether the services can be asked; without effect once the server drains."""
        if not self._draining:
            self._set(SERVING if ready else NOT_SERVING)

    def drain(self) -> None:
        """Tell for good that the services cannot be asked, and end every watch."""
        self._draining = True
        self._set(NOT_SERVING)

    def _set(self, status: int) -> None:
        for service in self._statuses:
            if service != LIVE:
                self._statuses[service] = status
        for watcher in list(self._watchers):
            watcher.set()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> Any:
        """The status of one service."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, request: health_pb2.HealthListRequest, context: Any) -> Any:
        """The status of every service."""
        statuses = {
            name: health_pb2.HealthCheckResponse(status=status)
            for name, status in self._statuses.items()
        }
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """The status of one service, now and whenever it changes, until the server drains."""
        if len(self._watchers) >= MAX_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watchers; use Check")
        changed = asyncio.Event()
        self._watchers.add(changed)
        try:
            told = None
            while True:
                status = self._statuses.get(request.service, _UNKNOWN)
                if status != told:
                    told = status
                    await context.write(health_pb2.HealthCheckResponse(status=status))
                if self._draining:
                    return
                await changed.wait()
                changed.clear()
        finally:
            self._watchers.discard(changed)

    def watch_on_thread(
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> Iterator[health_pb2.HealthCheckResponse]:
        """`Watch`, for a server of threads: it holds one."""
        if len(self._watchers) >= MAX_WATCHERS:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watchers; use Check")
        changed = threading.Event()
        self._watchers.add(changed)
        try:
            context.add_callback(changed.set)
            told = None
            while context.is_active():
                status = self._statuses.get(request.service, _UNKNOWN)
                if status != told:
                    told = status
                    yield health_pb2.HealthCheckResponse(status=status)
                if self._draining:
                    return
                changed.wait()
                changed.clear()
        finally:
            self._watchers.discard(changed)
