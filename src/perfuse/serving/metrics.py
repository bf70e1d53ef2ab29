"""What every server counts, and the port on which it tells Prometheus.

Here is every name that is not one service's own. A name ends in its unit, or in what is counted; no
label has a tenant, a concept or anything else that callers choose: those are many, and private.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    start_http_server,
)

from perfuse.errors import FailedPrecondition

RPC_SECONDS = "perfuse_rpc_seconds"
IN_FLIGHT = "perfuse_rpc_in_flight_calls"
QUOTA_REFUSALS = "perfuse_quota_refusals_total"
DATABASE_SECONDS = "perfuse_database_seconds"
DATABASE_RETRIES = "perfuse_database_retries_total"
STORE_SECONDS = "perfuse_store_seconds"

DONE, FAILED = "done", "failed"

_BUCKETS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
# Coarser: these are told for each kind of work, and a call has several.
_STORAGE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0)


class Metrics:
    """The measures of an edge.

    Args:
        registry: Where the measures are kept; a new one by default, so that two servers in one
            process do not count together.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        # The moment each series began, told beside each of them: twice as many, and nobody asks.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry or CollectorRegistry()
        self.seconds = Histogram(
            RPC_SECONDS,
            "Time from a call's arrival to its status.",
            ["method", "code"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            IN_FLIGHT,
            "Calls begun and not ended.",
            ["method"],
            registry=self.registry,
        )
        self.quota_refusals = Counter(
            QUOTA_REFUSALS,
            "Calls refused since a tenant's quota was used up.",
            ["quota"],
            registry=self.registry,
        )

    def expose(self, host: str, port: int) -> tuple[int, Callable[[], None]]:
        """Tell the measures over HTTP.

        Returns:
            The port, which is a free one for port 0, and a function that ends the telling.

        Raises:
            FailedPrecondition: the address cannot be bound.
        """
        try:
            server, thread = start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise FailedPrecondition(
                f"metrics cannot be told at {host}:{port} ({error.strerror}); choose another "
                "address"
            ) from None

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return server.server_port, close


class StorageMetrics:
    """The measures of a database and a store, told by `perfuse.storage`.

    Args:
        registry: Where they are kept, such as the edge's.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._database = Histogram(
            DATABASE_SECONDS,
            "Time of work in the database, with the wait for a connection.",
            ["work", "outcome"],
            buckets=_STORAGE_BUCKETS,
            registry=registry,
        )
        self._retries = Counter(
            DATABASE_RETRIES,
            "Changes begun anew, since others were in their way or a connection broke.",
            ["work"],
            registry=registry,
        )
        self._store = Histogram(
            STORE_SECONDS,
            "Time of calls to the store.",
            ["operation", "outcome"],
            buckets=_STORAGE_BUCKETS,
            registry=registry,
        )
        # What has not happened yet is told as zero, so that its first time is a rise.
        for work in ("read", "transact", "hasten"):
            self._retries.labels(work)
        # Looked up once: a call of the Registry's asks the database several times.
        self._known: dict[tuple[str, str, bool], Histogram] = {}

    def database(self, work: str, seconds: float, failed: bool) -> None:
        """A piece of work ended: `read`, `transact` or `hasten`."""
        self._of(self._database, "database", work, failed).observe(seconds)

    def again(self, work: str) -> None:
        """One began anew."""
        self._retries.labels(work).inc()

    def store(self, operation: str, seconds: float, failed: bool) -> None:
        """A call to the store ended, such as `put` or `get`."""
        self._of(self._store, "store", operation, failed).observe(seconds)

    def _of(self, whole: Histogram, name: str, work: str, failed: bool) -> Histogram:
        key = (name, work, failed)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = whole.labels(work, FAILED if failed else DONE)
        return found
