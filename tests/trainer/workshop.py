"""The Trainer's rules over a real database and a real store, and workers on a tiny base model."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from PIL import Image
from sqlalchemy import insert, select
from storage.databases import fresh_database
from storage.stores import Bucket, fresh_bucket

from perfuse.attach import BaseModel
from perfuse.names import ConceptName, TenantName
from perfuse.storage.blobs import BlobStore
from perfuse.storage.blobs_directory import DirectoryBlobs
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.requests import Mutation
from perfuse_trainer.learning.settings import TrainingSettings
from perfuse_trainer.resources import Event, ImageSet, Run, RunState
from perfuse_trainer.runs.claims import Claims
from perfuse_trainer.runs.run_queue import Queue
from perfuse_trainer.runs.run_settings import RunSettings
from perfuse_trainer.runs.runs import RunOrder
from perfuse_trainer.schema import SCHEMA
from perfuse_trainer.tables import IMAGE_SETS, IMAGES, RUNS
from perfuse_trainer.trainer import Trainer
from perfuse_trainer.vault import MAX_BLOB_BYTES
from perfuse_trainer.working.worker import Worker, WorkerSettings

BACKENDS = ("sqlite", "postgresql")
LEASE = timedelta(seconds=30)


def migrate(url: str) -> None:
    database = Database(url)
    SCHEMA.migrate(database)
    database.close()


@cache
def picture(seed: int, side: int = 32) -> bytes:
    lot = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (side, side, 3), generator=lot, dtype=torch.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "PNG")
    return file.getvalue()


@dataclass
class Workshop:
    """An installation without its servers.

    Attributes:
        url: of the database.
        home: where a directory store is.
    """

    trainer: Trainer
    database: Database
    blobs: BlobStore
    url: str
    home: Path
    bucket: Bucket | None = None
    lease: timedelta = LEASE
    max_faults: int = 5

    @property
    def queue(self) -> Queue:
        return Queue(self.database, self.lease, self.max_faults)

    @property
    def claims(self) -> Claims:
        return Claims(self.database, self.lease)

    def image_set(
        self, tenant: str = "acme", *, images: int = 3, masks: bool = False, keep: bool = False
    ) -> ImageSet:
        """A set with images, as an upload would leave it."""
        made = self.trainer.image_sets.create(
            Mutation(tenant, "tester"), TenantName(tenant), keep=keep
        )
        with self.database.engine.begin() as connection:
            key = connection.execute(
                select(IMAGE_SETS.c.id).where(IMAGE_SETS.c.uid == made.uid)
            ).scalar_one()
            for index in range(images):
                data = picture(index)
                mask = None
                if masks:
                    file = io.BytesIO()
                    Image.new("L", (32, 32), 255).save(file, "PNG")
                    mask = self.trainer.vault.put(tenant, file.getvalue())
                connection.execute(
                    insert(IMAGES).values(
                        image_set=key,
                        tenant=tenant,
                        file_name=f"{index}.png",
                        digest="sha256:" + "0" * 64,
                        width=32,
                        height=32,
                        blob=self.trainer.vault.put(tenant, data),
                        mask_blob=mask,
                    )
                )
        return made

    def order(
        self,
        base: BaseModel | None = None,
        *,
        tenant: str = "acme",
        concept: str = "tom",
        images: ImageSet | None = None,
        exclusive: bool = False,
        base_model_id: str = "tiny",
        settings: dict[str, Any] | None = None,
        **training: Any,
    ) -> RunOrder:
        """What a caller asks for; a small run unless told otherwise."""
        images = images or self.image_set(tenant)
        small = {"steps": 6, "batch": 2, "validate_every": 3, "validation_rows": 2}
        chosen = TrainingSettings(
            super_category="cat", placeholder=concept, **{**small, **training}
        )
        fingerprint = base.fingerprint if base is not None else "sha256:" + "0" * 64
        return RunOrder(
            tenant=tenant,
            run_id="",
            concept=ConceptName(tenant, concept),
            image_set=images.name,
            base_model_id=base_model_id,
            settings=replace(RunSettings(chosen, fingerprint), **(settings or {})),
            exclusive=exclusive,
        )

    def run(self, base: BaseModel | None = None, **order: Any) -> Run:
        """A queued run."""
        made = self.order(base, **order)
        return self.trainer.runs.create(Mutation(made.tenant, "tester"), made, str(uuid4()))

    def read(self, run: Run) -> Run:
        return self.trainer.runs.get(run.tenant, run.name)

    def read_state(self, uid: str) -> RunState:
        chosen = select(RUNS.c.state).where(RUNS.c.uid == uid)
        return RunState(self.database.read(lambda c: c.execute(chosen).scalar_one()))

    def events(self, run: Run) -> list[Event]:
        return self.trainer.runs.events(run.tenant, run.name, run.uid, 0)

    def row(self, run: Run) -> AnyRow:
        chosen = select(RUNS).where(RUNS.c.uid == run.uid)
        return self.database.read(lambda connection: connection.execute(chosen).one())

    def adapter(self, run: Run) -> bytes:
        """What the worker handed over for publication."""
        blob = self.row(run).adapter_blob
        assert blob is not None, self.read(run)
        return self.trainer.vault.get(run.tenant, blob)

    def store_environment(self) -> dict[str, str]:
        """The settings of a Trainer that name the store."""
        if self.bucket is None:
            return {"PERFUSE_TRAINER_BLOB_DIRECTORY": str(self.home / "blobs")}
        return {
            "PERFUSE_TRAINER_S3_ENDPOINT": self.bucket.endpoint,
            "PERFUSE_TRAINER_S3_BUCKET": self.bucket.bucket,
            "PERFUSE_TRAINER_S3_ACCESS_KEY": self.bucket.access_key,
            "PERFUSE_TRAINER_S3_SECRET_KEY": self.bucket.secret_key,
        }

    def files(self) -> int:
        """How many the store holds."""
        return sum(1 for _ in self.blobs.listing())

    def worker(self, base: BaseModel, **settings: Any) -> Worker:
        chosen = WorkerSettings(**{"idle_seconds": 0.0, **settings})
        name = f"worker-{uuid4().hex}"
        return Worker(name, "tiny", base, self.queue, self.claims, self.trainer.vault, chosen)

    def work(self, base: BaseModel, **settings: Any) -> None:
        """Have a worker train until nothing waits."""
        self.worker(base, **settings).run(threading.Event())

    @contextmanager
    def working(self, base: BaseModel) -> Iterator[Worker]:
        """A worker that trains, on a thread of its own, until it is told to stop at the end."""
        stop, worker = threading.Event(), self.worker(base, idle_seconds=60.0)
        thread = threading.Thread(target=worker.run, args=(stop,))
        thread.start()
        try:
            yield worker
        finally:
            stop.set()
            thread.join()


def until(holds: Callable[[], object]) -> None:
    """Wait until something is true, as it must become within a minute."""
    for _ in range(1200):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come true within a minute")


@contextmanager
def workshop(dialect: str, home: Path) -> Iterator[Workshop]:
    """SQLite with a directory, or PostgreSQL with a bucket."""
    with fresh_database(dialect, prepare=migrate) as url:
        bucket = None
        if dialect == "sqlite":
            blobs: BlobStore = DirectoryBlobs(home / "blobs", max_bytes=MAX_BLOB_BYTES)
        else:
            bucket = fresh_bucket()
            blobs = bucket.open(max_bytes=MAX_BLOB_BYTES)
        database = Database(url)
        try:
            yield Workshop(Trainer(database, blobs), database, blobs, url, home, bucket)
        finally:
            database.close()
