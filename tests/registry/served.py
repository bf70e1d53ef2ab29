"""The Registry as its callers meet it: real servers in this process, real stubs, fresh tenants.

    with installed("postgresql+s3", tmp_path) as installation:
        acme = installation.tenant()
        acme.concept("tom")
        assert acme.version(seed=1).name == f"{acme.name}/concepts/tom/versions/1"
        with refused("NOT_FOUND"):
            acme.call.GetConcept(wire.GetConceptRequest(name=f"{acme.name}/concepts/tim"))

Every call goes through `Client`, which reads each refusal into a `Refusal` and holds it to what all
refusals promise: one ErrorInfo, known words, and never a fault of the service's own.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from sqlalchemy import Table, select
from storage.databases import fresh_database
from storage.stores import GIVEN, Ground, fresh_store

from perfuse.serving.edge import Edge
from perfuse.serving.testing import IssuedTokens, serve
from perfuse.serving.validation import ProtovalidateValidator
from perfuse.storage.database import AnyRow, Database
from perfuse.v1 import errors_pb2
from perfuse.v1 import registry_pb2 as wire
from perfuse.v1.registry_pb2_grpc import (
    RegistryServiceStub,
    add_RegistryServiceServicer_to_server,
)
from perfuse_registry.registry import Registry
from perfuse_registry.schema import SCHEMA
from perfuse_registry.servicer import RegistryServicer
from registry import samples

OWN_BACKENDS = ("sqlite+directory", "postgresql+s3")
"""The embedded default, and what production uses; nobody else keeps anything there."""

BACKENDS = (*OWN_BACKENDS, *(("postgresql+endpoint",) if GIVEN else ()))
"""What `installed` takes; an endpoint's bucket may hold other things too."""

METHODS = {
    method.name: method for method in wire.DESCRIPTOR.services_by_name["RegistryService"].methods
}
"""Every rpc, by name."""

BASE_MODEL = "baseModels/small"
"""That `samples.adapter` stands on, in every installation."""

_SECONDS = 30.0
_REASONS = {
    name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.DESCRIPTOR.values_by_name
}
_DETAILS = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (
        error_details_pb2.ErrorInfo,
        error_details_pb2.BadRequest,
        error_details_pb2.ResourceInfo,
        error_details_pb2.PreconditionFailure,
        error_details_pb2.QuotaFailure,
        error_details_pb2.RetryInfo,
    )
}
T = TypeVar("T")


class Refusal(Exception):
    """What a call was refused with.

    Attributes:
        code: Name of the gRPC status code.
        reason: Of the ErrorInfo.
        message: For people.
        info: ErrorInfo's metadata, without the request's id.
        details: All but the ErrorInfo, by the name of their kind.
    """

    def __init__(self, error: grpc.RpcError) -> None:
        call: Any = error
        status = rpc_status.from_call(call)
        assert status is not None, f"a refusal without details: {call.code()} {call.details()}"
        self.code: str = call.code().name
        self.message: str = status.message
        super().__init__(f"{self.code}: {self.message}")
        assert self.code not in {"INTERNAL", "UNKNOWN"}, self
        assert 10 < len(self.message) < 2000
        found = _unpacked(status)
        info = found.pop("ErrorInfo")
        assert info.domain == "perfuse.dev"
        self.reason: str = info.reason
        self.info = dict(info.metadata)
        assert self.info.pop("request_id") == dict(call.trailing_metadata())["x-request-id"]
        assert {self.reason, self.info.get("category")} & (_REASONS - {"UNSPECIFIED"}), self.reason
        self.details = found

    @property
    def fields(self) -> set[str]:
        """Paths of the fields that were found wrong."""
        bad = self.details.get("BadRequest")
        return {violation.field for violation in bad.field_violations} if bad else set()

    @property
    def resource(self) -> str:
        """Name of the resource that it is about, empty where it is about none."""
        found = self.details.get("ResourceInfo")
        return found.resource_name if found else ""


def _unpacked(status: status_pb2.Status) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for packed in status.details:
        detail = _DETAILS[packed.TypeName()]()
        assert packed.Unpack(detail)
        name = detail.DESCRIPTOR.name
        assert name not in found, f"two details of the kind {name}"
        found[name] = detail
    return found


@contextmanager
def refused(
    code: str, reason: str = "", *, field: str = ""
) -> Iterator[pytest.ExceptionInfo[Refusal]]:
    """The calls within end in this refusal.

    Args:
        code: Of the status.
        reason: Of the ErrorInfo, where it is another word than the code.
        field: That the request breaks a rule in, where one is named.
    """
    with pytest.raises(Refusal) as caught:
        yield caught
    refusal = caught.value
    assert (refusal.code, refusal.reason) == (code, reason or code), refusal
    if field:
        assert field in refusal.fields, refusal


class Client:
    """A stub whose calls carry a token, none where it is empty, and raise `Refusal`.

    Args:
        channel: To the server.
        token: The caller's.
        service: Token of the service that asks on the caller's behalf, if one does.
    """

    def __init__(self, channel: grpc.Channel, token: str, service: str = "") -> None:
        self._stub = RegistryServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        if service:
            self._metadata = (*self._metadata, ("perfuse-service", f"Bearer {service}"))

    def __getattr__(self, name: str) -> Callable[[Message], Any]:
        method = getattr(self._stub, name)

        def call(request: Message) -> Any:
            try:
                return method(request, metadata=self._metadata, timeout=_SECONDS)
            except grpc.RpcError as error:
                refusal = Refusal(error)
            raise refusal

        return call


class Tenant:
    """A tenant that nobody else uses, and short ways to make what a test needs.

    Attributes:
        id: Of the tenant.
        name: `tenants/{id}`.
        call: A publisher's client.
        admin: An admin's.
    """

    def __init__(self, installation: Installation, tenant: str) -> None:
        self.installation = installation
        self.id = tenant
        self.name = f"tenants/{tenant}"
        self.call = installation.client(tenant, "publisher", subject="paula")
        self.admin = installation.client(tenant, "admin", subject="ada")

    def concept(self, concept_id: str = "tom", **fields: Any) -> wire.Concept:
        """A new concept, of cats unless told otherwise."""
        return self.call.CreateConcept(
            wire.CreateConceptRequest(
                parent=self.name,
                concept_id=concept_id,
                concept=wire.Concept(**{"super_category": "cat"} | fields),
            )
        )

    def version(
        self,
        seed: int = 0,
        concept_id: str = "tom",
        *,
        pictures: Sequence[bytes] = (),
        **options: Any,
    ) -> wire.Version:
        """A new version with the bytes of `samples.adapter`, and these previews."""
        data, previews = samples.adapter(seed, **options), samples.previews(*pictures)
        concept = f"{self.name}/concepts/{concept_id}"
        return self.call.CreateVersion(samples.upload(concept, data, previews=previews))

    def alias(self, alias_id: str, version: wire.Version) -> wire.Alias:
        """A new alias of the version's concept."""
        return self.call.CreateAlias(
            wire.CreateAliasRequest(
                parent=version.name.partition("/versions/")[0],
                alias_id=alias_id,
                alias=wire.Alias(version=version.name),
            )
        )

    def grant(
        self, grantee: Tenant | str, access: str = "RENDER", concept_id: str = "tom"
    ) -> wire.Grant:
        """Let another tenant use a concept."""
        return self.admin.CreateGrant(
            wire.CreateGrantRequest(
                parent=f"{self.name}/concepts/{concept_id}",
                grant_id=grantee if isinstance(grantee, str) else grantee.id,
                grant=wire.Grant(access=f"GRANT_ACCESS_{access}"),
            )
        )

    def revoke(self, grantee: Tenant, concept_id: str = "tom") -> None:
        """Take it back."""
        name = f"{self.name}/concepts/{concept_id}/grants/{grantee.id}"
        self.admin.DeleteGrant(wire.DeleteGrantRequest(name=name))

    def bytes_of(self, name: str) -> bytes:
        """A version's bytes."""
        answer = self.call.DownloadAdapter(wire.DownloadAdapterRequest(name=name))
        return bytes(answer.adapter)


class Installation:
    """A Registry that is served, with what lies behind it.

    Attributes:
        backend: One of `BACKENDS`.
        database, ground: Where it keeps everything.
        registry: Over both.
        target: `127.0.0.1:port`.
        channel: To it, without credentials.
    """

    def __init__(
        self, backend: str, database: Database, ground: Ground, registry: Registry
    ) -> None:
        self.backend = backend
        self.database = database
        self.ground = ground
        self.registry = registry
        self.target = ""
        self.channel: Any = None
        self.tokens = IssuedTokens()
        self._numbers = itertools.count(1)

    def client(self, tenant: str, *roles: str, subject: str = "tester") -> Client:
        """A client with a new token; without one where no role is given."""
        token = self.tokens.issue(tenant, *roles, subject=subject) if roles else ""
        return Client(self.channel, token)

    @property
    def operator(self) -> Client:
        """Of the installation; reads nothing of any tenant's."""
        return self.client("operations", "operator", subject="olga")

    def tenant(self) -> Tenant:
        """A fresh one."""
        return Tenant(self, f"{self.ground.tenant}-{next(self._numbers)}")

    def rows(self, table: Table, **values: object) -> list[AnyRow]:
        """The rows of a table whose columns have these values."""
        chosen = select(table).where(*(table.c[key] == value for key, value in values.items()))
        return self.database.read(lambda connection: list(connection.execute(chosen).all()))

    def stored(self, tenant: Tenant) -> list[str]:
        """Digests of the tenant's bytes in the store."""
        return [blob.digest for blob in self.ground.store.listing(tenant.id)]


@contextmanager
def installed(
    backend: str, folder: Path, *, probe_seconds: float = 5.0, **durations: Any
) -> Iterator[Installation]:
    """A served Registry with one base model, `BASE_MODEL`.

    Args:
        backend: One of `BACKENDS`.
        folder: Empty; for a store that is a directory.
        probe_seconds: Between two looks at database and store.
        durations: As of `Registry`.
    """
    dialect, kind = backend.split("+")
    with fresh_database(dialect, prepare=migrate) as url, fresh_store(kind, folder) as ground:
        database = Database(url)
        try:
            registry = Registry(database, ground.store, **durations)
            installation = Installation(backend, database, ground, registry)
            with _served(installation, probe_seconds):
                installation.operator.CreateBaseModel(
                    wire.CreateBaseModelRequest(
                        base_model_id=BASE_MODEL.partition("/")[2], base_model=samples.base_model()
                    )
                )
                yield installation
        finally:
            database.close()


def migrate(url: str) -> None:
    """Bring an empty database to the newest revision."""
    database = Database(url)
    SCHEMA.migrate(database)
    database.close()


@contextmanager
def _served(installation: Installation, probe_seconds: float) -> Iterator[None]:
    edge = Edge(installation.tokens, _validator(), threaded=True)
    servicer = RegistryServicer(installation.registry, edge)

    async def ready() -> None:
        await asyncio.to_thread(installation.registry.check)

    stack = AsyncExitStack()
    server = serve(
        (add_RegistryServiceServicer_to_server, servicer),
        edge=edge,
        tokens=installation.tokens,
        ready=ready,
        probe_seconds=probe_seconds,
    )
    installation.target = _on_loop(stack.enter_async_context(server)).target
    options = [
        ("grpc.max_receive_message_length", 16 << 20),
        # Another server may have had the port before.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    try:
        with grpc.insecure_channel(installation.target, options=options) as channel:
            installation.channel = channel
            yield
    finally:
        _on_loop(stack.aclose())


@cache
def _validator() -> ProtovalidateValidator:
    # Compiling its rules takes a second; all servers ask it on one thread.
    return ProtovalidateValidator()


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """The loop of every server in this process, on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="servers", daemon=True)
    thread.start()

    def end() -> None:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    atexit.register(end)
    return loop


def _on_loop(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, _loop()).result(_SECONDS)
