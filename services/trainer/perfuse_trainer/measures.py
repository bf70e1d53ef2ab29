"""What the Trainer counts beside calls: every name that it tells Prometheus.

None has a tenant's or a concept's label: they are many, and they are private. What the tables know
is asked when Prometheus asks, so that it is the same whichever server tells it; the counters are of
one server's own doings since it began.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Connection, func, select

from perfuse.errors import PerfuseError
from perfuse.serving.metrics import DONE, FAILED, StorageMetrics
from perfuse.storage.database import Database
from perfuse.storage.moments import now
from perfuse_trainer.resources import EventKind, RunState
from perfuse_trainer.sweeping import Swept
from perfuse_trainer.tables import EVENTS, RUNS

RUNS_BY_STATE = "perfuse_trainer_runs"
QUEUE = "perfuse_trainer_queue_runs"
QUEUE_STEPS = "perfuse_trainer_queue_steps"
QUEUE_AGE = "perfuse_trainer_queue_age_seconds"
RATE = "perfuse_trainer_steps_per_second"
WORKERS = "perfuse_trainer_workers"
PLACES = "perfuse_trainer_places"
WORKER_SECONDS = "perfuse_trainer_worker_seconds_total"
LEASE_LOSSES = "perfuse_trainer_lease_losses_total"
PUBLICATIONS = "perfuse_trainer_publications_total"
SWEEPS = "perfuse_trainer_sweeps_total"
SWEPT = "perfuse_trainer_swept_bytes_total"

PUBLISHED, POSTPONED, REFUSED = "published", "postponed", "refused"


class Measures:
    """Counters of one Trainer.

    Args:
        registry: where they are kept, such as the edge's; a new one by default.
        clock: seconds.

    Attributes:
        storage: told by database and store.
        places: runs that this server's workers can train at a time.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = registry or CollectorRegistry()
        self.storage = StorageMetrics(self.registry)
        self._clock = clock
        self._staff = 0
        self._staffed = clock()
        self._workers = self._gauge(WORKERS, "Workers of this server, those that start included.")
        self.places = self._gauge(PLACES, "Runs that its workers can train at a time.")
        self._worker_seconds = self._counter(WORKER_SECONDS, "Time of all its workers.")
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

    def staffed(self, workers: int) -> None:
        """Count workers from now on, and their time until now."""
        moment = self._clock()
        self._worker_seconds.inc(self._staff * (moment - self._staffed))
        self._staff, self._staffed = workers, moment
        self._workers.set(workers)

    def tell_tables(self, database: Database) -> None:
        """Tell from now on what the tables know; nothing of it while they cannot be asked."""
        self.registry.register(_Tables(database))

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(name, meaning, registry=self.registry)


@dataclass(frozen=True, slots=True)
class _Counted:
    """What the tables know at one moment."""

    states: dict[str, int]
    queue: list[_Waiting]
    rate: float


@dataclass(frozen=True, slots=True)
class _Waiting:
    """The queue of one base model."""

    base_model: str
    runs: int
    steps: int | None
    oldest: datetime | None


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
            steps = GaugeMetricFamily(
                QUEUE_STEPS, "Steps that those are still to make.", labels=["base_model"]
            )
            age = GaugeMetricFamily(
                QUEUE_AGE, "Time since the oldest of them was asked for.", labels=["base_model"]
            )
            moment = now()
            for each in counted.queue:
                queue.add_metric([each.base_model], each.runs)
                steps.add_metric([each.base_model], each.steps or 0)
                waited = 0.0 if each.oldest is None else (moment - each.oldest).total_seconds()
                age.add_metric([each.base_model], max(0.0, waited))
            rate = GaugeMetricFamily(RATE, "Steps of all runs under way, as last told.")
            rate.add_metric([], counted.rate)
            yield from (runs, queue, steps, age, rate)


def _count(connection: Connection) -> _Counted:
    states = select(RUNS.c.state, func.count()).group_by(RUNS.c.state)
    queued = RUNS.c.state == RunState.QUEUED.value
    # A base model whose runs wait no longer is told as zero while any run of it exists.
    left = RUNS.c.settings["training"]["steps"].as_integer() - RUNS.c.checkpoint_step
    queue = select(
        RUNS.c.base_model_id,
        func.count().filter(queued),
        func.sum(left).filter(queued),
        func.min(RUNS.c.create_time).filter(queued),
    ).group_by(RUNS.c.base_model_id)
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
        [_Waiting(*row) for row in connection.execute(queue).tuples()],
        sum(body["steps_per_second"] for (body,) in connection.execute(rates).tuples()),
    )
