"""What the server counts, and the port on which it tells Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge, Histogram, start_http_server

from perfuse.errors import FailedPrecondition

_BUCKETS = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)


class Metrics:
    """The measures of an edge. None has a tenant's label: tenants are many, and they are private.

    Args:
        registry: Where the measures are kept; a new one by default, so that two servers in one
            process do not count together.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.seconds = Histogram(
            "perfuse_rpc_seconds",
            "Time from a call's arrival to its status.",
            ["method", "code"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "perfuse_rpc_in_flight",
            "Calls begun and not ended.",
            ["method"],
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
