"""Every rpc of the three services, called in every way that must not work, and by every role.

The servers are real, and so are edge, policy, token file and issuer. Which role an rpc asks for is
said here once more, by the kind of its name, so that a slip in the policy's table is seen.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
import structlog
from cryptography.hazmat.primitives import serialization
from google.protobuf.message_factory import GetMessageClass
from registry import samples
from registry.served import migrate as migrate_registry
from serving.issuing import AUDIENCE, SigningKey, TestIssuer, issuing
from storage.databases import fresh_database
from storage.stores import fresh_store
from trainer.served import header
from trainer.served import migrate as migrate_trainer
from trainer.test_image_sets import PICTURE

from perfuse.client.registry import RegistryClient
from perfuse.serving import Edge, Server, ServingSettings, mint
from perfuse.serving.policy import POLICY
from perfuse.serving.roles import GRANTED_BY
from perfuse.serving.validation import ProtovalidateValidator
from perfuse.storage.database import Database
from perfuse.v1 import erasure_pb2, registry_pb2, trainer_pb2
from perfuse.v1.registry_pb2_grpc import (
    RegistryServiceStub,
    add_RegistryServiceServicer_to_server,
)
from perfuse.v1.renderer_pb2_grpc import add_RendererServiceServicer_to_server
from perfuse.v1.trainer_pb2_grpc import add_TrainerServiceServicer_to_server
from perfuse_registry.registry import Registry
from perfuse_registry.servicer import RegistryServicer
from perfuse_renderer.pool import AdapterPool
from perfuse_renderer.servicer import RendererServicer
from perfuse_trainer.trainer import Trainer
from perfuse_trainer.wire.servicer import TrainerServicer
from security.requests import METHODS, PREVIEW, about, empty

OWNER, OTHER = "acme", "globex"
REGISTRY, TRAINER, RENDERER = (
    f"perfuse.v1.{name}Service" for name in ("Registry", "Trainer", "Renderer")
)
_AT_ONCE = 24

# Who may what, said independently of the table: by the kind of an rpc's name, and these.
READS = re.compile("(Get|List|BatchGet|Check|Watch|Download)[A-Z]")
CHANGES = {REGISTRY: "publisher", TRAINER: "trainer", RENDERER: "renderer"}
EXCEPTIONS = {
    **dict.fromkeys(
        ("CreateBaseModel", "DeleteBaseModel", "VerifyIntegrity", "CollectGarbage"), "operator"
    ),
    **dict.fromkeys(("CreateGrant", "DeleteGrant", "ListAuditEvents"), "admin"),
    **dict.fromkeys(("EraseConcept", "GetErasure", "ListErasures"), "admin"),
    # The Trainer says what it removed.
    "ConfirmErasure": "delegate",
    # Who consented is no reader's to know.
    **dict.fromkeys(("GetConsent", "ListConsents"), "publisher"),
    # Nor whose picture was learned from.
    "CheckTrainingImage": "trainer",
}
BESIDES = {
    # The Trainer publishes, and looks whether a likeness may still be trained.
    "delegate": {"GetConcept", "CreateVersion", "ListVersions", "ListErasures"},
    "operator": {"ListAuditEvents", "ListErasures"},
    # A Renderer asks what it may no longer keep.
    "custodian": {"ListErasures"},
}
HAS = {
    "reader": {"reader"},
    "renderer": {"reader", "renderer"},
    "trainer": {"reader", "trainer"},
    "publisher": {"reader", "renderer", "trainer", "publisher"},
    "admin": {"reader", "renderer", "trainer", "publisher", "admin"},
    "operator": {"operator"},
    "delegate": {"delegate"},
}


def may(role: str, rpc: str) -> bool:
    service, name = rpc.split("/")
    asked = EXCEPTIONS.get(name) or ("reader" if READS.match(name) else CHANGES[service])
    return asked in HAS.get(role, ()) or name in BESIDES.get(role, ())


Metadata = tuple[tuple[str, str], ...]


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


@dataclass
class Place:
    """The three services, and what vouches for their callers."""

    issuer: TestIssuer
    tokens: Path
    channels: dict[str, Any]

    async def code(self, rpc: str, request: Any, metadata: Metadata) -> str:
        """How a call ends; a stream of answers with its first."""
        method, channel = METHODS[rpc], self.channels[rpc.split("/")[0]]
        kinds = {
            (False, False): channel.unary_unary,
            (False, True): channel.unary_stream,
            (True, False): channel.stream_unary,
        }
        send = kinds[method.client_streaming, method.server_streaming](
            f"/{rpc}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        call = send(
            iter([request]) if method.client_streaming else request, metadata=metadata, timeout=30
        )
        try:
            if method.server_streaming:
                async for _ in call:
                    break
                call.cancel()
            else:
                await call
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return "OK"


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    async with AsyncExitStack() as stack:
        issuer = stack.enter_context(issuing())
        tokens = folder / "tokens"
        own = bearer(mint(tokens, OWNER, "anna", ["admin", "operator"]))
        settings = ServingSettings(
            token_file=tokens,
            oidc_issuer=issuer.url,
            oidc_audience=AUDIENCE,
            oidc_grants=",".join(GRANTED_BY),
        )
        validator = ProtovalidateValidator()
        channels: dict[str, Any] = {}

        async def served(name: str, adder: Any, make: Callable[[Edge], Any], **how: Any) -> str:
            edge = Edge(settings.authenticator(), validator, **how)
            server = Server(edge)
            server.add(adder, make(edge))
            target = f"127.0.0.1:{await server.start()}"
            stack.push_async_callback(server.stop, 1.0)
            options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
            channel = grpc.aio.insecure_channel(target, options=options)
            channels[name] = await stack.enter_async_context(channel)
            return target

        registry, trainer = await asyncio.to_thread(stack.enter_context(_Kept(folder)).open)
        target = await served(
            REGISTRY,
            add_RegistryServiceServicer_to_server,
            lambda edge: RegistryServicer(registry, edge),
            threaded=True,
        )
        client = await stack.enter_async_context(RegistryClient(target))
        await served(
            TRAINER,
            add_TrainerServiceServicer_to_server,
            lambda edge: TrainerServicer(trainer, client, ("small",), edge),
        )
        await served(
            RENDERER,
            add_RendererServiceServicer_to_server,
            lambda edge: RendererServicer({}, AdapterPool(client), edge),
        )
        found = Place(issuer, tokens, channels)
        await _furnish(found, own)
        yield found


class _Kept(ExitStack):
    """Databases and stores of Registry and Trainer."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def open(self) -> tuple[Registry, Trainer]:
        made = []
        for name, migrate in (("registry", migrate_registry), ("trainer", migrate_trainer)):
            folder = self._folder / name
            folder.mkdir()
            url = self.enter_context(fresh_database("sqlite", prepare=migrate))
            database = Database(url)
            self.callback(database.close)
            made.append((database, self.enter_context(fresh_store("directory", folder)).store))
        return Registry(*made[0]), Trainer(*made[1])


async def _furnish(place: Place, own: Metadata) -> None:
    """Give the owner what requests name; another tenant reads nothing of it."""
    parent = f"tenants/{OWNER}"
    concept = f"{parent}/concepts/tom"
    wire, trainer = registry_pb2, trainer_pb2
    picture = [
        trainer.UploadImagesRequest(image_set=f"{parent}/imageSets/tom"),
        header("a.png", PICTURE),
        trainer.UploadImagesRequest(chunk=PICTURE),
    ]
    requests: list[tuple[str, Any]] = [
        (
            f"{REGISTRY}/CreateBaseModel",
            wire.CreateBaseModelRequest(base_model_id="small", base_model=samples.base_model()),
        ),
        (
            f"{REGISTRY}/CreateConcept",
            wire.CreateConceptRequest(
                parent=parent, concept_id="tom", concept=wire.Concept(super_category="cat")
            ),
        ),
        (
            f"{REGISTRY}/CreateVersion",
            samples.upload(concept, samples.adapter(), previews=samples.previews(PREVIEW)),
        ),
        (
            f"{REGISTRY}/CreateAlias",
            wire.CreateAliasRequest(
                parent=concept, alias_id="prod", alias=wire.Alias(version=f"{concept}/versions/1")
            ),
        ),
        (
            f"{REGISTRY}/CreateGrant",
            wire.CreateGrantRequest(
                parent=concept, grant_id="initech", grant=wire.Grant(access="GRANT_ACCESS_READ")
            ),
        ),
        (
            f"{TRAINER}/CreateImageSet",
            trainer.CreateImageSetRequest(parent=parent, image_set_id="tom"),
        ),
        (f"{TRAINER}/UploadImages", picture),
        (
            f"{TRAINER}/CreateTrainingRun",
            trainer.CreateTrainingRunRequest(
                parent=parent,
                training_run_id="first",
                training_run=trainer.TrainingRun(
                    concept=concept, image_set=f"{parent}/imageSets/tom"
                ),
            ),
        ),
    ]
    for rpc, request in requests:
        if isinstance(request, list):
            send = place.channels[TRAINER].stream_unary(
                f"/{rpc}", request_serializer=lambda message: message.SerializeToString()
            )
            await send(iter(request), metadata=own)
        else:
            assert await place.code(rpc, request, own) == "OK", rpc
    await _erase(place, own)


async def _erase(place: Place, own: Metadata) -> None:
    """Give the owner an erasure too."""
    parent, channel = f"tenants/{OWNER}", place.channels[REGISTRY]
    concept = registry_pb2.Concept(super_category="cat")
    create = registry_pb2.CreateConceptRequest(parent=parent, concept_id="gone", concept=concept)
    stub = RegistryServiceStub(channel)  # type: ignore[no-untyped-call]
    made = await stub.CreateConcept(create, metadata=own)
    erase = erasure_pb2.EraseConceptRequest(name=made.name, etag=made.etag)
    await stub.EraseConcept(erase, metadata=own)


def part(content: Any) -> str:
    raw = json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def strangers(issuer: TestIssuer, tokens: Path) -> dict[str, Metadata]:
    """Credentials that vouch for nobody, by what is wrong with them."""
    claims = issuer.token(OWNER, "admin", "operator").split(".")[1]
    first, now = issuer.keys[0], int(time.time())
    roles = ("admin", "operator")
    pem = first.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    shared = f"{part({'alg': 'HS256', 'kid': first.kid})}.{claims}"
    mac = jwt.get_algorithm_by_name("HS256").sign(shared.encode(), pem)
    told = base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
    good = issuer.token(OWNER, *roles)
    minted = mint(tokens, OWNER, "mia", ["admin"])
    return {
        "no token": (),
        "no scheme": (("authorization", good),),
        "another scheme": (("authorization", f"Basic {good}"),),
        "garbage": bearer("garbage"),
        "a minted token, cut": bearer(minted[:-1]),
        "alg none": bearer(f"{part({'alg': 'none'})}.{claims}."),
        "a public key as a secret": bearer(f"{shared}.{told}"),
        "wrong key": bearer(issuer.token(OWNER, *roles, key=SigningKey(first.kid))),
        "unknown key": bearer(issuer.token(OWNER, *roles, key=SigningKey("unknown"))),
        "other claims": bearer(".".join((*good.split(".")[:1], claims[:-4], good.split(".")[2]))),
        "expired": bearer(issuer.token(OWNER, *roles, exp=now - 120)),
        "without end": bearer(issuer.token(OWNER, *roles, exp=None)),
        "not yet": bearer(issuer.token(OWNER, *roles, nbf=now + 120)),
        "wrong audience": bearer(issuer.token(OWNER, *roles, aud="other")),
        "wrong issuer": bearer(issuer.token(OWNER, *roles, iss="https://other.example")),
        "no subject": bearer(issuer.token(OWNER, *roles, sub=None)),
        "no tenant": bearer(issuer.token("", *roles)),
        "two tokens": bearer(good) * 2,
        "a delegate for nobody": bearer(issuer.token("platform", "delegate")),
    }


def members(issuer: TestIssuer, tokens: Path) -> dict[str, Metadata]:
    """A caller of each role, by token file and by issuer; and one of none."""
    acting = (("perfuse-tenant", OWNER),)
    found = {"none": bearer(issuer.token(OWNER, roles=[]))}
    for role in GRANTED_BY:
        more = acting if role == "delegate" else ()
        found[f"{role}, signed"] = (*bearer(issuer.token(OWNER, role)), *more)
        found[f"{role}, minted"] = (*bearer(mint(tokens, OWNER, role, [role])), *more)
    return found


Cell = tuple[str, str, str, Awaitable[str]]


def cells(place: Place) -> Iterator[Cell]:
    """Rpc, column, the codes that are right, and the call."""
    nobody = strangers(place.issuer, place.tokens)
    known = members(place.issuer, place.tokens)
    rival = bearer(place.issuer.token(OTHER, "admin"))
    for rpc in METHODS:
        for column, metadata in nobody.items():
            call = place.code(rpc, about(rpc, OWNER), metadata)
            yield rpc, column, "UNAUTHENTICATED", call
        for column, metadata in known.items():
            # Past the gate, it is the empty request that is wrong, if anything.
            passes = may(column.split(",")[0], rpc)
            right = "OK INVALID_ARGUMENT" if passes else "PERMISSION_DENIED"
            yield rpc, column, right, place.code(rpc, empty(rpc), metadata)
        row = POLICY.row(rpc)
        right = "PERMISSION_DENIED"
        if may("admin", rpc):
            names = (*row.own, *row.within, *row.shared)
            right = "NOT_FOUND" if names else "OK INVALID_ARGUMENT NOT_FOUND"
        yield rpc, "another tenant's admin", right, place.code(rpc, about(rpc, OWNER), rival)


async def told(cells: list[Cell]) -> list[str]:
    """What each cell's call says, so many at a time."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(call: Awaitable[str]) -> str:
        async with gate:
            return await call

    return await asyncio.gather(*(one(call) for *_, call in cells))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Each call is logged, and there are thousands; what is the services' fault stays."""

    def drop(logger: object, level: str, event: dict[str, Any]) -> dict[str, Any]:
        if level != "error":
            raise structlog.DropEvent
        return event

    before = structlog.get_config()
    plain = [structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()]
    structlog.configure(processors=[drop, *plain])
    yield
    structlog.configure(**before)


def test_the_matrix(tmp_path: Path, record_property: Any) -> None:
    async def run() -> None:
        async with place(tmp_path) as found:
            every = list(cells(found))
            answers = await told(every)
            # What is there is there for its owner, so that NOT_FOUND above is the gate's doing.
            own = bearer(found.issuer.token(OWNER, "admin"))
            reads = [
                rpc
                for rpc in METHODS
                if READS.match(rpc.split("/")[1]) and "Consent" not in rpc and may("admin", rpc)
            ]
            owners = [(rpc, "", "", found.code(rpc, about(rpc, OWNER), own)) for rpc in reads]
            seen = dict(zip(reads, await told(owners), strict=True))
        assert {rpc: code for rpc, code in seen.items() if code != "OK"} == {}
        wrong = {
            (rpc, column): f"{code}, not {right}"
            for (rpc, column, right, _), code in zip(every, answers, strict=True)
            if code not in right.split()
        }
        assert wrong == {}
        columns = Counter(column for _, column, _, _ in every)
        assert set(columns.values()) == {len(METHODS)}
        assert len(every) == len(METHODS) * len(columns)
        record_property("cells", len(every))
        print(f"{len(METHODS)} rpcs x {len(columns)} callers = {len(every)} cells")

    asyncio.run(run())
