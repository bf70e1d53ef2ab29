"""Whoever wants to know how long database and store take is told here, and may count it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Protocol

from perfuse.errors import DataLoss, Unavailable
from perfuse.storage.blobs import BlobStore, Entry, StoredBlob


class Watch(Protocol):
    """Is told; it must be quick, may be called from any thread, and raises nothing."""

    def database(self, work: str, seconds: float, failed: bool) -> None:
        """Work in the database ended: `read`, `transact` or `hasten`."""
        ...

    def again(self, work: str) -> None:
        """It began anew, since another transaction was in its way or a connection broke."""
        ...

    def store(self, operation: str, seconds: float, failed: bool) -> None:
        """A call to the store ended: `put`, `get`, `stat`, `delete` or `check`."""
        ...


class WatchedBlobs:
    """A store whose calls are timed; a listing, which lasts as long as its reader takes, is not.

    Args:
        blobs: the store.
        watch: is told. Only an answer that did not come is a failure of the store's: damaged bytes
            came in time.
        on_damage: called for every read of bytes that are gone or altered.
    """

    def __init__(
        self, blobs: BlobStore, watch: Watch, on_damage: Callable[[], object] = lambda: None
    ) -> None:
        self._on_damage = on_damage
        self._blobs = blobs
        self._watch = watch

    def put(self, tenant: str, digest: str, data: bytes) -> None:
        with self._timed("put"):
            self._blobs.put(tenant, digest, data)

    def get(self, tenant: str, digest: str) -> bytes:
        with self._timed("get"):
            try:
                return self._blobs.get(tenant, digest)
            except DataLoss:
                self._on_damage()
                raise

    def stat(self, tenant: str, digest: str) -> int | None:
        with self._timed("stat"):
            return self._blobs.stat(tenant, digest)

    def delete(self, tenant: str, digest: str) -> None:
        with self._timed("delete"):
            self._blobs.delete(tenant, digest)

    def listing(self, tenant: str | None = None, after: str | None = None) -> Iterator[StoredBlob]:
        return self._blobs.listing(tenant, after)

    def strays(self) -> Iterator[Entry]:
        return self._blobs.strays()

    def sweep_strays(self, older_than: datetime) -> int:
        return self._blobs.sweep_strays(older_than)

    def check(self) -> None:
        with self._timed("check"):
            self._blobs.check()

    def self_test(self) -> None:
        self._blobs.self_test()

    @contextmanager
    def _timed(self, operation: str) -> Iterator[None]:
        began, failed = time.perf_counter(), False
        try:
            yield
        except Unavailable:
            failed = True
            raise
        finally:
            self._watch.store(operation, time.perf_counter() - began, failed)


@contextmanager
def timed(watch: Watch, work: str) -> Iterator[None]:
    """Tell how long work in the database takes."""
    began, failed = time.perf_counter(), False
    try:
        yield
    except Unavailable:
        failed = True
        raise
    finally:
        watch.database(work, time.perf_counter() - began, failed)
