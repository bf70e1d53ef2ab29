"""What the Trainer counts beside calls: every name that it tells Prometheus.

None has a tenant's or a concept's label: they are many, and they are private. What the tables know
is asked when Prometheus asks, so that it is the same whichever server tells it; the counters are of
one server's own doings since it began.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Connection, func, select

from perfuse.errors import PerfuseError
from perfuse.storage.database import Database
from perfuse_trainer.resources import EventKind, RunState
from perfuse_trainer.sweeping import Swept
from perfuse_trainer.tables import EVENTS, RUNS

RUNS_BY_STATE = "perfuse_trainer_runs"
QUEUE = "perfuse_trainer_queue_runs"
RATE = "perfuse_trainer_steps_per_second"
LEASE_LOSSES = "perfuse_trainer_lease_losses_total"
PUBLICATIONS = "perfuse_trainer_publications_total"
SWEEPS = "perfuse_trainer_sweeps_total"
SWEPT = "perfuse_trainer_swept_bytes_total"

PUBLISHED, POSTPONED, REFUSED = "published", "postponed", "refused"
DONE, FAILED = "done", "failed"


class Measures:
    """Counters of one Trainer.

    Args:
        registry: where they are kept, such as the edge's; a new one by default.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.lease_losses = self._counter(LEASE_LOSSES, "Runs taken from workers that fell silent.")
        self._publications = self._counter(
            PUBLICATIONS, "Tries to publish a finished run.", "outcome"
        )
        self._sweeps = self._counter(SWEEPS, "Sweeps begun.", "outcome")
        self._swept = self._counter(SWEPT, "Size of the files that nothing named.")
        # What has not happened yet is told as zero, so that its first time is a rise.
        for outcome in (PUBLISHED, POSTPONED, REFUSED):
            self._publications.labels(outcome)
        for outcome in (DONE, FAILED):
            self._sweeps.labels(outcome)

    def publication(self, outcome: str) -> None:
        """Count a try: `PUBLISHED`, `POSTPONED` to be tried again, or `REFUSED` for good."""
        self._publications.labels(outcome).inc()

    def sweep(self, found: Swept | None) -> None:
        """Count a sweep and what it found; None for one that failed."""
        self._sweeps.labels(FAILED if found is None else DONE).inc()
        if found is not None:
            self._swept.inc(found.orphan_bytes)

    def tell_tables(self, database: Database) -> None:
        """Tell from now on what the tables know; nothing of it while they cannot be asked."""
        self.registry.register(_Tables(database))

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, registry=self.registry)


@dataclass(frozen=True, slots=True)
class _Counted:
    """What the tables know at one moment."""

    states: dict[str, int]
    queue: dict[str, int]
    rate: float


class _Tables(Collector):
    """Asks the tables whenever Prometheus asks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> list[Any]:
        """Nothing: the tables need not answer yet when this is registered."""
        return []

    def collect(self) -> Iterator[Any]:
        """The gauges."""
        with suppress(PerfuseError):
            counted = self._database.read(_count)
            runs = GaugeMetricFamily(RUNS_BY_STATE, "Runs that exist.", labels=["state"])
            for state in RunState:
                runs.add_metric([state.value], counted.states.get(state.value, 0))
            queue = GaugeMetricFamily(QUEUE, "Runs that wait for a worker.", labels=["base_model"])
            for base_model, length in counted.queue.items():
                queue.add_metric([base_model], length)
            rate = GaugeMetricFamily(RATE, "Steps of all runs under way, as last told.")
            rate.add_metric([], counted.rate)
            yield from (runs, queue, rate)


def _count(connection: Connection) -> _Counted:
    states = select(RUNS.c.state, func.count()).group_by(RUNS.c.state)
    queued = RUNS.c.state == RunState.QUEUED.value
    # A base model whose runs wait no longer is told as zero while any run of it exists.
    queue = select(RUNS.c.base_model_id, func.count().filter(queued)).group_by(RUNS.c.base_model_id)
    last = (
        select(func.max(EVENTS.c.sequence))
        .where(EVENTS.c.run == RUNS.c.id, EVENTS.c.kind == EventKind.PROGRESS.value)
        .correlate(RUNS)
        .scalar_subquery()
    )
    rates = select(EVENTS.c.body).where(
        RUNS.c.state == RunState.RUNNING.value,
        # A run that waits for publication makes no more steps.
        RUNS.c.lease_time.is_not(None),
        EVENTS.c.run == RUNS.c.id,
        EVENTS.c.sequence == last,
    )
    return _Counted(
        dict(connection.execute(states).tuples().all()),
        dict(connection.execute(queue).tuples().all()),
        sum(body["steps_per_second"] for (body,) in connection.execute(rates).tuples()),
    )
