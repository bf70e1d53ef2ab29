"""Real stores for the Registry's tests: a directory, a bucket on a local S3 server, and a bucket
on whatever S3 endpoint the environment names.

The endpoint is used when PERFUSE_TEST_S3_ENDPOINT (with its scheme), _ACCESS_KEY, _SECRET_KEY and
_BUCKET are set. Its bucket may hold other things, so a test looks only at tenants that it made,
which is what `Ground.tenant` is for; they are emptied afterwards.
"""

from __future__ import annotations

import atexit
import functools
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from minio import Minio
from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from perfuse.storage.blobs import BlobStore
from perfuse.storage.blobs_directory import DirectoryBlobs
from perfuse.storage.blobs_s3 import S3Blobs


@dataclass(frozen=True)
class Bucket:
    """Where an S3 store is, in the words of `S3Blobs`."""

    endpoint: str
    bucket: str
    access_key: str = "access-canary"
    secret_key: str = "secret-canary"

    def open(self, **settings: Any) -> S3Blobs:
        return S3Blobs(
            self.endpoint,
            self.bucket,
            access_key=self.access_key,
            secret_key=self.secret_key,
            **settings,
        )

    def client(self) -> Minio:
        parts = urlsplit(self.endpoint)
        return Minio(
            parts.netloc,
            access_key=self.access_key,
            secret_key=self.secret_key,
            secure=parts.scheme == "https",
            region="us-east-1",
        )


def _given() -> Bucket | None:
    words = ("ENDPOINT", "BUCKET", "ACCESS_KEY", "SECRET_KEY")
    names = [f"PERFUSE_TEST_S3_{word}" for word in words]
    values = [os.environ[name] for name in names if os.environ.get(name)]
    if not values:
        return None
    if len(values) != len(names):
        raise RuntimeError(f"{len(values)} of {names} are set; set all or none")
    return Bucket(*values)


GIVEN = _given()

# What `fresh_store` takes; parametrize with it.
KINDS = ("directory", "s3", *(("endpoint",) if GIVEN else ()))


@dataclass(frozen=True)
class Ground:
    """An open store and what a test needs around it.

    Attributes:
        store: the store.
        tenant: an id that nobody else uses; ids that start with it are this test's too.
        overwrite: puts bytes under any key behind the store's back.
        root: the directory, where it is one.
        bucket: the bucket, where it is one.
    """

    store: BlobStore
    tenant: str
    overwrite: Callable[[str, bytes], None]
    root: Path | None = None
    bucket: Bucket | None = None


@functools.cache
def moto_server() -> str:
    """Endpoint of a local S3 server over HTTP, started once per process."""
    # Of moto's services S3 alone: its own server looks through the folder of all of them twice
    # for each request, which takes as long as the request does.
    application = create_backend_app("s3")
    server = make_server(
        "127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler
    )
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def stop() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    atexit.register(stop)
    return f"http://127.0.0.1:{server.server_port}"


def fresh_bucket() -> Bucket:
    """An empty bucket on the local S3 server."""
    bucket = Bucket(moto_server(), f"blobs-{secrets.token_hex(6)}")
    bucket.client().make_bucket(bucket.bucket)
    return bucket


@contextmanager
def fresh_store(kind: str, folder: Path) -> Iterator[Ground]:
    """A store of one of `KINDS` in which the ground's tenant has nothing.

    Args:
        kind: which.
        folder: an empty directory for a store of kind "directory" to make its own in.
    """
    tenant = f"t{secrets.token_hex(6)}"
    if kind == "directory":
        root = folder / "blobs"

        def write(key: str, data: bytes) -> None:
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            (root / key).write_bytes(data)

        yield Ground(DirectoryBlobs(root), tenant, write, root=root)
        return

    bucket = GIVEN if kind == "endpoint" else fresh_bucket()
    assert bucket is not None, "this kind is among KINDS only where an endpoint is given"
    client = bucket.client()

    def put(key: str, data: bytes) -> None:
        client.put_object(bucket.bucket, key, BytesIO(data), len(data))

    try:
        yield Ground(bucket.open(), tenant, put, bucket=bucket)
    finally:
        for prefix in (tenant, tenant.upper()):
            for item in client.list_objects(bucket.bucket, prefix=prefix, recursive=True):
                client.remove_object(bucket.bucket, item.object_name)
