"""The Trainer as its callers meet it: real servers in this process, real stubs, fresh tenants.

with trainer_installation("postgresql+s3", tmp_path) as installation:
    acme = installation.tenant()
    made = acme.image_set()
    acme.upload(made.name, ("tom.png", data))
    with refused("NOT_FOUND"):
        acme.call.GetImageSet(wire.GetImageSetRequest(name=f"{acme.name}/imageSets/tim"))
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import uuid4

import grpc
from registry.served import Refusal, refused
from sqlalchemy import Table, insert, select
from storage.databases import fresh_database
from storage.stores import fresh_bucket

from perfuse.adapter import digest
from perfuse.client.registry import RegistryClient
from perfuse.serving.edge import Edge
from perfuse.serving.testing import IssuedTokens, serve
from perfuse.serving.validation import ProtovalidateValidator
from perfuse.storage.blobs import BlobStore
from perfuse.storage.blobs_directory import DirectoryBlobs
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.moments import now
from perfuse.v1 import trainer_pb2 as wire
from perfuse.v1.trainer_pb2_grpc import (
    TrainerServiceStub,
    add_TrainerServiceServicer_to_server,
)
from perfuse_trainer.resources import RunState
from perfuse_trainer.schema import SCHEMA
from perfuse_trainer.tables import IMAGE_SETS, IMAGES, RUNS
from perfuse_trainer.trainer import Trainer
from perfuse_trainer.vault import MAX_BLOB_BYTES
from perfuse_trainer.wire.servicer import TrainerServicer

__all__ = ["BACKENDS", "Installation", "Refusal", "Tenant", "refused", "trainer_installation"]

BACKENDS = ("sqlite+directory", "postgresql+s3")
"""The embedded default, and what production uses."""

Picture = tuple[str, bytes] | tuple[str, bytes, bytes]
"""A file's name, its bytes, and those of its mask."""

_SECONDS = 60.0
T = TypeVar("T")


class Client:
    """A stub whose calls carry a token, none where it is empty, and raise `Refusal`."""

    def __init__(self, channel: grpc.Channel, token: str) -> None:
        self.stub = TrainerServiceStub(channel)
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def __getattr__(self, name: str) -> Callable[[Any], Any]:
        method = getattr(self.stub, name)

        def call(request: Any) -> Any:
            try:
                return method(request, metadata=self.metadata, timeout=_SECONDS)
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
    """

    def __init__(self, installation: Installation, tenant: str) -> None:
        self.installation = installation
        self.id = tenant
        self.name = f"tenants/{tenant}"
        self.call = installation.client(tenant, "publisher", subject="paula")

    def image_set(self, image_set_id: str = "", **fields: Any) -> wire.ImageSet:
        """A new image set, without images."""
        return self.call.CreateImageSet(
            wire.CreateImageSetRequest(
                parent=self.name, image_set_id=image_set_id, image_set=wire.ImageSet(**fields)
            )
        )

    def upload(self, image_set: str, *pictures: Picture, chunk: int = 1 << 20) -> wire.ImageSet:
        """Upload these pictures into a set."""
        return self.call.UploadImages(parts(image_set, *pictures, chunk=chunk))

    def get(self, image_set: str) -> wire.ImageSet:
        """A set as it is."""
        return self.call.GetImageSet(wire.GetImageSetRequest(name=image_set))

    def stored(self) -> list[str]:
        """Digests of the tenant's files in the store."""
        return [blob.digest for blob in self.installation.vault.blobs.listing(self.id)]

    def named(self) -> list[str]:
        """Digests of the files that rows of images name."""
        rows = self.installation.rows(IMAGES, tenant=self.id)
        return sorted(blob for row in rows for blob in (row.blob, row.mask_blob) if blob)

    def run(self, image_set: str, state: RunState = RunState.QUEUED) -> int:
        """A run with a set, in this state; the key of its row."""
        (row,) = self.installation.rows(
            IMAGE_SETS, tenant=self.id, image_set_id=image_set.rpartition("/")[2]
        )
        moment = now()
        made = insert(RUNS).values(
            tenant=self.id, run_id=f"run-{uuid4().hex[:12]}", uid=str(uuid4()), concept_id="tom",
            image_set_id=row.image_set_id, image_set=row.id, base_model_id="toy",
            super_category="cat", key_lock="LOCAL", settings={}, description="", labels={},
            exclusive=False, state=state.value, step=0, attempt=0, faults=0, fence=0,
            checkpoint_step=0, error_reason="", error_message="", next_sequence=1, revision=1,
            create_time=moment, update_time=moment,
        )  # fmt: skip
        return self.installation.database.transact(
            lambda connection: connection.execute(made.returning(RUNS.c.id)).scalar_one()
        )


def parts(
    image_set: str, *pictures: Picture, chunk: int = 1 << 20
) -> Iterator[wire.UploadImagesRequest]:
    """The messages of an upload."""
    yield wire.UploadImagesRequest(image_set=image_set)
    for file_name, *files in pictures:
        for is_mask, data in enumerate(files):
            yield header(file_name, data, is_mask=bool(is_mask))
            yield from chunks(data, chunk)


def header(file_name: str, data: bytes, **fields: Any) -> wire.UploadImagesRequest:
    """The header of a file, with other values for these fields."""
    values = {"file_name": file_name, "digest": digest(data), "size_bytes": len(data)} | fields
    return wire.UploadImagesRequest(header=wire.ImageHeader(**values))


def chunks(data: bytes, size: int = 1 << 20) -> Iterator[wire.UploadImagesRequest]:
    """A file's bytes in pieces."""
    for place in range(0, len(data), size):
        yield wire.UploadImagesRequest(chunk=data[place : place + size])


class Storage:
    """Where an installation keeps everything.

    Attributes:
        backend: One of `BACKENDS`.
        url: Of the database.
        blobs: Where files are.
    """

    def __init__(self, backend: str, url: str, blobs: BlobStore) -> None:
        self.backend, self.url, self.blobs = backend, url, blobs


class Installation:
    """A Trainer that is served, with what lies behind it.

    Attributes:
        backend: One of `BACKENDS`.
        database, vault: Where it keeps everything.
        image_sets, uploads: The rules over both.
        target: `127.0.0.1:port`.
        channel: To it, without credentials.
    """

    def __init__(self, storage: Storage, trainer: Trainer) -> None:
        self.backend = storage.backend
        self.storage, self.trainer = storage, trainer
        self.database, self.vault = trainer.database, trainer.vault
        self.image_sets, self.uploads = trainer.image_sets, trainer.uploads
        self.target = ""
        self.channel: Any = None
        self.tokens = IssuedTokens()

    def client(self, tenant: str, *roles: str, subject: str = "tester") -> Client:
        """A client with a new token; without one where no role is given."""
        token = self.tokens.issue(tenant, *roles, subject=subject) if roles else ""
        return Client(self.channel, token)

    def tenant(self) -> Tenant:
        """A fresh one."""
        return Tenant(self, f"tenant-{next(_numbers)}")

    def rows(self, table: Table, **values: object) -> list[AnyRow]:
        """The rows of a table whose columns have these values."""
        chosen = select(table).where(*(table.c[key] == value for key, value in values.items()))
        return self.database.read(lambda connection: list(connection.execute(chosen).all()))

    def change(self, table: Table, row: int, **values: object) -> None:
        """Give a row's columns these values, behind every rule's back."""
        changed = table.update().where(table.c.id == row).values(**values)
        self.database.transact(lambda connection: connection.execute(changed))

    def expire(self, image_set: wire.ImageSet, moment: datetime | None = None) -> None:
        """Have a set's time be over."""
        (row,) = self.rows(IMAGE_SETS, uid=image_set.uid)
        self.change(IMAGE_SETS, row.id, expire_time=moment or now())


_numbers = itertools.count(1)


@contextmanager
def trainer_storage(backend: str, folder: Path) -> Iterator[Storage]:
    """A database of its own, migrated, and an empty store.

    Args:
        backend: One of `BACKENDS`.
        folder: Empty; for a store that is a directory.
    """
    dialect, kind = backend.split("+")
    with fresh_database(dialect, prepare=migrate) as url:
        if kind == "directory":
            yield Storage(backend, url, DirectoryBlobs(folder / "blobs", max_bytes=MAX_BLOB_BYTES))
        else:
            yield Storage(backend, url, fresh_bucket().open(max_bytes=MAX_BLOB_BYTES))


@contextmanager
def installed(storage: Storage) -> Iterator[Installation]:
    """A served Trainer over this storage; may be begun anew over the same."""
    trainer = Trainer(Database(storage.url), storage.blobs)
    try:
        installation = Installation(storage, trainer)
        with _served(installation):
            yield installation
    finally:
        trainer.close()


@contextmanager
def trainer_installation(backend: str, folder: Path) -> Iterator[Installation]:
    """A served Trainer over fresh storage.

    Args:
        backend: One of `BACKENDS`.
        folder: Empty; for a store that is a directory.
    """
    with trainer_storage(backend, folder) as storage, installed(storage) as found:
        yield found


def migrate(url: str) -> None:
    """Bring an empty database to the newest revision."""
    database = Database(url)
    SCHEMA.migrate(database)
    database.close()


def eventually(what: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait until something is true, as it must become soon."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.02)


def at_once(*works: Callable[[], object]) -> list[object]:
    """Do all at once, each on its own thread; what each returned or raised."""
    results: list[object] = [None] * len(works)
    barrier = threading.Barrier(len(works))

    def work(index: int) -> None:
        barrier.wait()
        try:
            results[index] = works[index]()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_SECONDS)
    return results


@contextmanager
def _served(installation: Installation) -> Iterator[None]:
    edge = Edge(installation.tokens, _validator())
    # Nothing here queues a run through it, so that no Registry is asked.
    servicer = TrainerServicer(installation.trainer, cast(RegistryClient, None), (), edge)
    stack = AsyncExitStack()
    server = serve(
        (add_TrainerServiceServicer_to_server, servicer), edge=edge, tokens=installation.tokens
    )
    installation.target = _on_loop(stack.enter_async_context(server)).target
    # Another server may have had the port before.
    options = [("grpc.use_local_subchannel_pool", 1)]
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
    thread = threading.Thread(target=loop.run_forever, name="trainers", daemon=True)
    thread.start()

    def end() -> None:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    atexit.register(end)
    return loop


def _on_loop(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, _loop()).result(_SECONDS)
