"""Adapters that were read of late, kept in memory: many Renderers ask for one within seconds.

Bytes never change under their digest, so what is kept is never stale. Who may have them is decided
before, by the version's row: bytes of a version that is gone are in nobody's answer, kept or not.
What this process removes it forgets at once. What another removes it does not hear of; so nothing
is kept longer than `MAX_SECONDS`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime

from perfuse.adapter.header import digest as digest_of
from perfuse.errors import DataLoss
from perfuse.storage.blobs import BlobStore, Entry, StoredBlob

MAX_SECONDS = 60.0
"""After which bytes are read from the store again, whoever asked for them meanwhile."""

_Key = tuple[str, str]
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Reading:
    """One reading of the store, for all who ask meanwhile; forgotten, it is for them alone."""

    bytes_: Future[bytes] = field(default_factory=Future)
    is_forgotten: bool = False


class CachedBlobs:
    """A `BlobStore` that keeps what it read; everything but reading goes to the store.

    Bytes are compared with their digest whenever they are given, from memory too. Of several that
    ask for the same at once, one reads. For any thread.

    Args:
        blobs: the store.
        max_bytes: of all adapters that are kept; the longest unread go first. 0 keeps none.
        clock: seconds, of which only differences count.

    Attributes:
        hits: readings answered from memory so far.
        misses: those that asked the store, or waited for one that did.
    """

    def __init__(
        self, blobs: BlobStore, max_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._blobs, self._max_bytes, self._clock = blobs, max_bytes, clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, tuple[bytes, float]] = OrderedDict()
        self._readings: dict[_Key, _Reading] = {}
        self._bytes = 0
        self.hits = self.misses = 0

    @property
    def count(self) -> int:
        """Adapters that are kept."""
        return len(self._kept)

    @property
    def size_bytes(self) -> int:
        """Their size."""
        return self._bytes

    def get(self, tenant: str, digest: str) -> bytes:
        """See `BlobStore.get`."""
        if not self._max_bytes:
            return self._blobs.get(tenant, digest)
        key = tenant, digest
        if (kept := self._recall(key)) is not None:
            return kept
        with self._lock:
            self.misses += 1
            reading = self._readings.get(key)
            if reading is None:
                own = self._readings[key] = _Reading()
        if reading is None:
            return self._read(key, own)
        try:
            return reading.bytes_.result()
        except DataLoss:
            # It began earlier than this call, perhaps before the bytes were there.
            return self._blobs.get(tenant, digest)

    def get_unkept(self, tenant: str, digest: str) -> bytes:
        """As the store's `get`, past memory: for what is large, or asked for once."""
        return self._blobs.get(tenant, digest)

    def forget(self, tenant: str, digest: str) -> None:
        """Keep these bytes no longer; nor those of a reading that is under way."""
        key = tenant, digest
        with self._lock:
            self._drop(key)
            if (reading := self._readings.get(key)) is not None:
                reading.is_forgotten = True

    def expire(self) -> None:
        """Drop what has been kept for its time; to be called every few seconds."""
        with self._lock:
            for key in [key for key, (_, since) in self._kept.items() if self._is_old(since)]:
                self._drop(key)

    def delete(self, tenant: str, digest: str) -> None:
        """See `BlobStore.delete`."""
        try:
            self._blobs.delete(tenant, digest)
        finally:
            self.forget(tenant, digest)

    def put(self, tenant: str, digest: str, data: bytes) -> None:
        """See `BlobStore.put`. What is put is not kept: most of it nobody asks for soon."""
        self._blobs.put(tenant, digest, data)

    def stat(self, tenant: str, digest: str) -> int | None:
        """As the store's, like all that follow."""
        return self._blobs.stat(tenant, digest)

    def listing(self, tenant: str | None = None, after: str | None = None) -> Iterator[StoredBlob]:
        return self._blobs.listing(tenant, after)

    def strays(self) -> Iterator[Entry]:
        return self._blobs.strays()

    def sweep_strays(self, older_than: datetime) -> int:
        return self._blobs.sweep_strays(older_than)

    def check(self) -> None:
        self._blobs.check()

    def self_test(self) -> None:
        self._blobs.self_test()

    def _recall(self, key: _Key) -> bytes | None:
        with self._lock:
            data, since = self._kept.get(key, (None, 0.0))
            if data is None or self._is_old(since):
                return None
            self._kept.move_to_end(key)
            self.hits += 1
        if digest_of(data) == key[1]:
            return data
        _log.error("bytes kept in memory are no longer those of their digest; see to the memory")
        self.forget(*key)
        return None

    def _read(self, key: _Key, reading: _Reading) -> bytes:
        try:
            data = self._blobs.get(*key)
        except BaseException as error:
            with self._lock:
                del self._readings[key]
            reading.bytes_.set_exception(error)
            raise
        with self._lock:
            del self._readings[key]
            if not reading.is_forgotten:
                self._keep(key, data)
        reading.bytes_.set_result(data)
        return data

    def _keep(self, key: _Key, data: bytes) -> None:
        self._drop(key)
        if len(data) > self._max_bytes:
            return
        self._kept[key] = data, self._clock()
        self._bytes += len(data)
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: _Key) -> None:
        if (dropped := self._kept.pop(key, None)) is not None:
            self._bytes -= len(dropped[0])

    def _is_old(self, since: float) -> bool:
        return self._clock() - since >= MAX_SECONDS
