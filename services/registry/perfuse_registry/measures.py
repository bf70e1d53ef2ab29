"""What the Registry counts beside calls: every name of its own that it tells Prometheus.

None has a tenant's or a concept's label: they are many, and they are private. What the tables know
is asked when Prometheus asks, so that it is the same whichever server tells it; the counters are of
one server's own doings since it began.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Connection, func, select

from perfuse.errors import PerfuseError
from perfuse.serving.metrics import DONE, FAILED, StorageMetrics
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.moments import now
from perfuse_registry.cached_blobs import CachedBlobs
from perfuse_registry.garbage import Collected
from perfuse_registry.tables import BLOBS, REQUESTS

INTEGRITY_FAULTS = "perfuse_registry_integrity_faults_total"
GARBAGE_RUNS = "perfuse_registry_garbage_runs_total"
GARBAGE_REMOVED = "perfuse_registry_garbage_removed_bytes_total"
CONDEMNED = "perfuse_registry_condemned_adapters"
CONDEMNED_BYTES = "perfuse_registry_condemned_bytes"
OLDEST_REQUEST = "perfuse_registry_oldest_request_seconds"
CACHE_LOOKUPS = "perfuse_registry_cache_lookups_total"
CACHE_BYTES = "perfuse_registry_cache_bytes"
CACHE_ADAPTERS = "perfuse_registry_cache_adapters"


class Measures:
    """Counters of one Registry.

    Args:
        registry: where they are kept, such as the edge's; a new one by default.

    Attributes:
        storage: told by database and store.
        integrity_faults: counts what callers did not get, and what verifications find.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.storage = StorageMetrics(self.registry)
        self.integrity_faults = self._counter(
            INTEGRITY_FAULTS, "Reads of an adapter whose bytes were gone or altered."
        )
        self._runs = self._counter(GARBAGE_RUNS, "Collections that this server ran.", "outcome")
        self._removed = self._counter(GARBAGE_REMOVED, "Size of the adapters that it removed.")
        # What has not happened yet is told as zero, so that its first time is a rise.
        for outcome in (DONE, FAILED):
            self._runs.labels(outcome)

    def collection(self, done: Collected | None) -> None:
        """Count a collection of garbage; None for one that failed."""
        self._runs.labels(FAILED if done is None else DONE).inc()
        if done is not None:
            self._removed.inc(done.removed_bytes)

    def tell_tables(self, database: Database) -> None:
        """Tell from now on what the tables know; nothing of it while they cannot be asked."""
        self.registry.register(_Tables(database))

    def tell_cache(self, cached: CachedBlobs) -> None:
        """Tell from now on what is kept in memory."""
        self.registry.register(_Cache(cached))

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, registry=self.registry)


class _Cache(Collector):
    """Looks at what is kept whenever Prometheus asks."""

    def __init__(self, cached: CachedBlobs) -> None:
        self._cached = cached

    def collect(self) -> Iterator[Any]:
        """The lookups so far, and the gauges."""
        lookups = CounterMetricFamily(
            CACHE_LOOKUPS, "Adapters that were looked for in memory.", labels=["outcome"]
        )
        lookups.add_metric(["hit"], self._cached.hits)
        lookups.add_metric(["miss"], self._cached.misses)
        yield lookups
        yield _gauge(CACHE_BYTES, "Size of the adapters in memory.", self._cached.size_bytes)
        yield _gauge(CACHE_ADAPTERS, "Adapters in memory.", self._cached.count)


class _Tables(Collector):
    """Asks the tables whenever Prometheus asks; each question is answered from an index."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> list[Any]:
        """Nothing: the tables need not answer yet when this is registered."""
        return []

    def collect(self) -> Iterator[Any]:
        """The gauges."""
        with suppress(PerfuseError):
            condemned, oldest = self._database.read(_ask)
            yield _gauge(CONDEMNED, "Adapters that the next collections remove.", condemned.number)
            yield _gauge(CONDEMNED_BYTES, "Their size.", condemned.size or 0)
            age = 0.0 if oldest is None else max(0.0, (now() - oldest).total_seconds())
            yield _gauge(OLDEST_REQUEST, "Age of the oldest request id that is remembered.", age)


def _ask(connection: Connection) -> tuple[AnyRow, Any]:
    condemned = select(
        func.count().label("number"), func.sum(BLOBS.c.size_bytes).label("size")
    ).where(BLOBS.c.condemn_time.is_not(None))
    oldest = select(REQUESTS.c.done_time).order_by(REQUESTS.c.done_time).limit(1)
    return connection.execute(condemned).one(), connection.execute(oldest).scalar()


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, value=float(value))
