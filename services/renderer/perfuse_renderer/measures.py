"""What the Renderer counts beside calls: every name of its own that it tells Prometheus.

None has a tenant's or a concept's label: they are many, and they are private. Base models and
caches are few, and the operator's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from perfuse_renderer.pool import AdapterPool
from perfuse_renderer.studio import Studio

PICTURES = "perfuse_renderer_pictures_total"
STEPS = "perfuse_renderer_steps_total"
LANE_STEPS = "perfuse_renderer_lane_steps_total"
DEVICE_SECONDS = "perfuse_renderer_device_seconds_total"
WAIT_SECONDS = "perfuse_renderer_wait_seconds"
PLAN_SECONDS = "perfuse_renderer_plan_seconds"
BATCH_LANES = "perfuse_renderer_batch_lanes"
QUEUE = "perfuse_renderer_queue_pictures"
QUEUE_SECONDS = "perfuse_renderer_queue_step_seconds"
QUEUE_AGE = "perfuse_renderer_queue_age_seconds"
RUNNING = "perfuse_renderer_running_pictures"
REPLICA_LOSSES = "perfuse_renderer_replica_losses_total"
CACHE_LOOKUPS = "perfuse_renderer_cache_lookups_total"
CACHE_BYTES = "perfuse_renderer_cache_bytes"
CACHE_ENTRIES = "perfuse_renderer_cache_entries"
STALE_NAMES = "perfuse_renderer_stale_names_total"

_OUTCOMES = ("finished", "failed", "given_up", "refused")
_WAIT_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_PLAN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Cache(Protocol):
    """What is told of a cache."""

    hits: int
    misses: int

    @property
    def count(self) -> int:
        """Entries."""
        ...

    @property
    def size_bytes(self) -> int:
        """Their size."""
        ...


class Measures:
    """Counters of one Renderer.

    Args:
        registry: where they are kept, such as the edge's; a new one by default.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.pictures = self._counter(PICTURES, "Pictures asked for, by their end.", "outcome")
        self.steps = self._counter(STEPS, "Steps of the denoiser, a whole batch each.")
        self.lane_steps = self._counter(LANE_STEPS, "Lanes of all those steps that did something.")
        self.device_seconds = self._counter(DEVICE_SECONDS, "Time of the denoiser's steps.")
        self.wait = self._histogram(
            WAIT_SECONDS,
            "Time from a render's arrival at the queue to its first step.",
            _WAIT_BUCKETS,
        )
        self.plan = self._histogram(
            PLAN_SECONDS, "Time to make a plan that was not kept.", _PLAN_BUCKETS
        )

    def book(self, base_model: str) -> BookOfBase:
        """Where one base model's work is counted."""
        return BookOfBase(self, base_model)

    def tell(self, studios: Mapping[str, Studio], pool: AdapterPool, batch_lanes: int) -> None:
        """Tell from now on how queues and caches are."""
        self.registry.register(_Present(studios, pool, batch_lanes))

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, ["base_model", *labels], registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, meaning, ["base_model"], buckets=buckets, registry=self.registry)


class BookOfBase:
    """One base model's counters, their labels looked up once; see `ledger.Book`."""

    def __init__(self, measures: Measures, base_model: str) -> None:
        # Looked up now, what has not happened yet is told as zero.
        self._ends = {each: measures.pictures.labels(base_model, each) for each in _OUTCOMES}
        self._steps = measures.steps.labels(base_model)
        self._lane_steps = measures.lane_steps.labels(base_model)
        self._device_seconds = measures.device_seconds.labels(base_model)
        self._wait = measures.wait.labels(base_model)
        self._plan = measures.plan.labels(base_model)

    def stepped(self, share: float, lanes: int, seconds: float) -> None:
        self._steps.inc(share)
        self._lane_steps.inc(lanes)
        self._device_seconds.inc(seconds)

    def waited(self, seconds: float) -> None:
        self._wait.observe(seconds)

    def ended(self, outcome: str, pictures: int) -> None:
        self._ends[outcome].inc(pictures)

    def planned(self, seconds: float) -> None:
        """A plan was made."""
        self._plan.observe(seconds)


class _Present(Collector):
    """Looks at queues and caches whenever Prometheus asks."""

    def __init__(self, studios: Mapping[str, Studio], pool: AdapterPool, batch_lanes: int) -> None:
        self._studios, self._pool, self._batch_lanes = studios, pool, batch_lanes

    def describe(self) -> list[Any]:
        """Nothing: no studio may be open yet when this is registered."""
        return []

    def collect(self) -> Iterator[Any]:
        """The gauges, and what caches counted."""
        label = ["base_model"]
        lanes = GaugeMetricFamily(BATCH_LANES, "Lanes of a full batch.", labels=label)
        waiting = GaugeMetricFamily(QUEUE, "Pictures that have not begun.", labels=label)
        running = GaugeMetricFamily(RUNNING, "Pictures that have begun.", labels=label)
        seconds = GaugeMetricFamily(
            QUEUE_SECONDS, "Steps still to be made, in time of the denoiser.", labels=label
        )
        age = GaugeMetricFamily(QUEUE_AGE, "The longest wait for a first step.", labels=label)
        losses = CounterMetricFamily(
            REPLICA_LOSSES, "Renders begun anew since their replica was lost.", labels=label
        )
        for name, studio in self._studios.items():
            base_model = [name.rpartition("/")[2]]
            lanes.add_metric(base_model, self._batch_lanes)
            waiting.add_metric(base_model, studio.backend.waiting)
            running.add_metric(base_model, studio.backend.running)
            seconds.add_metric(base_model, studio.ledger.step_seconds)
            age.add_metric(base_model, studio.ledger.age)
            losses.add_metric(base_model, studio.backend.replica_losses)
        yield from (lanes, waiting, running, seconds, age, losses)
        yield from self._caches()

    def _caches(self) -> Iterator[Any]:
        lookups = CounterMetricFamily(
            CACHE_LOOKUPS, "What was looked for in a cache.", labels=["cache", "outcome"]
        )
        sizes = GaugeMetricFamily(CACHE_BYTES, "What a cache holds.", labels=["cache"])
        entries = GaugeMetricFamily(CACHE_ENTRIES, "How much a cache holds.", labels=["cache"])
        for name, caches in self._by_name().items():
            lookups.add_metric([name, "hit"], sum(cache.hits for cache in caches))
            lookups.add_metric([name, "miss"], sum(cache.misses for cache in caches))
            sizes.add_metric([name], sum(cache.size_bytes for cache in caches))
            entries.add_metric([name], sum(cache.count for cache in caches))
        yield from (lookups, sizes, entries)
        yield CounterMetricFamily(
            STALE_NAMES,
            "Names used as last known, since the Registry did not answer.",
            value=self._pool.stale,
        )

    def _by_name(self) -> dict[str, list[Cache]]:
        found: dict[str, list[Cache]] = {"adapters": [self._pool]}
        if self._pool.disk is not None:
            found["adapter_files"] = [self._pool.disk]
        for studio in self._studios.values():
            for name, cache in studio.planner.caches.items():
                found.setdefault(name, []).append(cache)
        return found
