"""Who calls: ours over gRPC, MLflow over HTTP, each caller on one connection that it keeps.

Both kinds are asyncio; requests are made ready before their clock starts, and answers are taken as
bytes that neither kind parses.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import random
import socket
import uuid
from collections.abc import Iterator
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from bench.registry_sample import altered

Job = dict[str, Any]

API = "/api/2.0/mlflow/"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"


def artifact_path(model: str, version: int) -> str:
    """Where the bytes of an uploaded version lie in MLflow's store."""
    return f"{model}/{version}/adapter"


def artifact_uri(path: str) -> str:
    """What a version's row says of its place; one of MLflow's own would need a run looked up."""
    return f"s3://adapters/{path}"


class Callers(Protocol):
    """As many callers as there are connections."""

    def requests(self, job: Job, client: int) -> Iterator[Any]:
        """What a caller sends, without end."""
        ...

    async def call(self, client: int, request: Any) -> bytes:
        """The answer's body.

        Raises:
            Refused: the server said anything but yes.
        """
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


class Refused(Exception):
    """A request that was not answered with what it asked for."""


class GrpcCallers:
    """Callers of `perfuse.v1.RegistryService`."""

    def __init__(self, target: str, token: str, clients: int) -> None:
        import grpc

        self._grpc = grpc
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", 8 << 20),
        ]
        self._channels = [
            grpc.aio.insecure_channel(target, options=options) for _ in range(clients)
        ]
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._methods: dict[tuple[int, str], Any] = {}

    def requests(self, job: Job, client: int) -> Iterator[tuple[str, bytes]]:
        from perfuse.adapter import digest
        from perfuse.v1 import registry_pb2 as wire

        draw, concept, operation = random.Random(client), job["concept"], job["operation"]
        if operation in ("create", "publish"):
            adapter = base64.b64decode(job["adapter"])
            own = f"{concept}-{client}"
            run = random.SystemRandom().randrange(2048)
            for count in itertools.count():
                data = altered(adapter, run, client, count)
                made = wire.CreateVersionRequest(
                    parent=own, adapter=data, digest=digest(data), request_id=str(uuid.uuid4())
                )
                yield "CreateVersion", made.SerializeToString()
        while True:
            if operation == "list":
                page = wire.ListVersionsRequest(
                    parent=concept, page_size=job["page_size"], page_token=job["page_token"]
                )
                yield "ListVersions", page.SerializeToString()
                continue
            version = job.get("alias") or draw.randint(1, job["versions"])
            name = f"{concept}/versions/{version}"
            if operation == "download":
                download = wire.DownloadAdapterRequest(name=name)
                yield "DownloadAdapter", download.SerializeToString()
            else:
                yield "GetVersion", wire.GetVersionRequest(name=name).SerializeToString()

    async def call(self, client: int, request: tuple[str, bytes]) -> bytes:
        name, data = request
        method = self._methods.get((client, name))
        if method is None:
            path = f"/perfuse.v1.RegistryService/{name}"
            method = self._methods[client, name] = self._channels[client].unary_unary(path)
        try:
            answer: bytes = await method(data, metadata=self._metadata)
        except self._grpc.aio.AioRpcError as error:
            raise Refused(f"{error.code().name}: {error.details()}") from None
        return answer

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()


class HttpCallers:
    """Callers of MLflow's REST API, over HTTP/1.1 connections that are kept."""

    def __init__(self, host: str, port: int, clients: int) -> None:
        self._host, self._port = host, port
        self._connections: list[_Connection | None] = [None] * clients

    def requests(self, job: Job, client: int) -> Iterator[tuple[bytes, ...]]:
        draw, model, operation = random.Random(client), job["model"], job["operation"]
        adapter = base64.b64decode(job.get("adapter", ""))
        run = random.SystemRandom().randrange(2048)
        for count in itertools.count():
            version = draw.randint(1, job.get("versions", 1))
            if operation in ("create", "publish"):
                own, path = f"{model}-{client}", f"{model}-{client}/{uuid.uuid4()}/adapter"
                row = self._post("model-versions/create", name=own, source=artifact_uri(path))
                if operation == "publish":
                    yield self._put(path, altered(adapter, run, client, count)), row
                else:
                    yield (row,)
            elif operation == "download":
                place = self._get("model-versions/get-download-uri", name=model, version=version)
                yield place, self._request("GET", ARTIFACTS + artifact_path(model, version))
            elif operation == "list":
                page = {"filter": f"name='{model}'", "max_results": job["page_size"]}
                if job["page_token"]:
                    page["page_token"] = job["page_token"]
                # The same order as ours; MLflow's own default sorts all versions by update time.
                yield (self._get("model-versions/search", **page, order_by="version_number DESC"),)
            elif job.get("alias"):
                yield (self._get("registered-models/alias", name=model, alias=job["alias"]),)
            else:
                yield (self._get("model-versions/get", name=model, version=version),)

    async def call(self, client: int, request: tuple[bytes, ...]) -> bytes:
        connection = self._connections[client]
        if connection is None or connection.is_closed:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(_Connection, self._host, self._port)
            self._connections[client] = connection
        body = b""
        for each in request:
            status, body = await connection.exchange(each)
            if status != 200:
                raise Refused(f"{status}: {body[:300].decode(errors='replace')}")
        return body

    async def close(self) -> None:
        for connection in self._connections:
            if connection is not None:
                await connection.close()

    def _get(self, path: str, **query: object) -> bytes:
        asked = urlencode(query, quote_via=quote)
        return self._request("GET", f"{API}{path}?{asked}")

    def _post(self, path: str, **body: object) -> bytes:
        return self._request("POST", API + path, json.dumps(body).encode(), "application/json")

    def _put(self, path: str, data: bytes) -> bytes:
        return self._request("PUT", ARTIFACTS + path, data, "application/octet-stream")

    def _request(self, method: str, path: str, body: bytes = b"", kind: str = "") -> bytes:
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._at}\r\n"
        if kind:
            head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        return head.encode() + b"\r\n" + body

    @property
    def _at(self) -> str:
        return f"{self._host}:{self._port}"


class _Connection(asyncio.Protocol):
    """One request at a time; answers have a length, as all of MLflow's do."""

    def __init__(self) -> None:
        self.is_closed = False
        self._ended = asyncio.Event()
        self._transport: Any = None
        self._received = b""
        self._whole = -1
        self._waiter: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._acknowledge()

    def _acknowledge(self) -> None:
        # MLflow's server sends head and body apart and, where it has several workers, waits in
        # between until the head is acknowledged, which Linux puts off for 40 ms. We spare it this.
        if hasattr(socket, "TCP_QUICKACK"):
            own: socket.socket = self._transport.get_extra_info("socket")
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def exchange(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        """Status and body of the answer."""
        self._received, self._whole = b"", -1
        self._acknowledge()
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiter

    def data_received(self, data: bytes) -> None:
        self._acknowledge()
        self._received += data
        if self._whole < 0:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._received[:end].lower()
            at = head.find(b"\r\ncontent-length:")
            if at < 0:
                self._fail("the answer has no Content-Length")
                return
            length = int(head[at + 17 :].split(b"\r\n", 1)[0])
            self._head, self._whole = end + 4, end + 4 + length
        if len(self._received) >= self._whole and self._waiter and not self._waiter.done():
            status = int(self._received[9:12])
            self._waiter.set_result((status, self._received[self._head : self._whole]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        self._ended.set()
        self._fail(f"the connection was closed ({exc})")

    async def close(self) -> None:
        self._transport.close()
        await self._ended.wait()

    def _fail(self, problem: str) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(Refused(problem))
