"""A catalogue of concepts: what is asked of Registry, database and object store for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.capacity.measured import MeasuredRegistry
from perfuse_renderer.pool import FRESH_SECONDS


@dataclass(frozen=True)
class Catalogue:
    """How many concepts there are, and how they are used.

    Attributes:
        concepts: in all.
        versions: of each.
        skew: Zipf's exponent of how often each is rendered.
        adapter_bytes: of a version.
        row_bytes: in the database, of a concept with its versions, alias, blobs and requests.
        memory_bytes, disk_bytes: of adapters kept beside each front door.
    """

    concepts: int
    versions: int
    skew: float
    adapter_bytes: int
    row_bytes: float
    memory_bytes: int = 256 << 20
    disk_bytes: int = 4 << 30

    def popularity(self) -> np.ndarray:
        """The part of all renders that each concept has."""
        weights = np.arange(1, self.concepts + 1, dtype=float) ** -self.skew
        return weights / weights.sum()

    def hit_rate(self, kept_bytes: int) -> float:
        """The part of renders whose adapter a cache has, which drops the longest unused."""
        return hit_rate(self.popularity(), kept_bytes // self.adapter_bytes)

    def asked(self, renders: float, front_doors: int) -> dict[str, float]:
        """Calls a second to the Registry.

        A name is asked for once and then used for `FRESH_SECONDS`, at each front door for itself:
        of renders that come at random at a rate r, 1 / (fresh + 1 / r) a second ask.

        Args:
            renders: a second, each with one concept.
            front_doors: among which they are spread.
        """
        each = self.popularity() * renders / front_doors
        resolved = front_doors * float(np.sum(each / (1.0 + FRESH_SECONDS * each)))
        missed = renders * (1.0 - self.hit_rate(self.disk_bytes))
        return {"alias": resolved, "download": missed}

    def record(
        self, renders: float, front_doors: int, registry: MeasuredRegistry
    ) -> dict[str, float]:
        """What a fleet asks for, and the processor cores that this takes as measured."""
        calls = self.asked(renders, front_doors)

        def cores(of: str) -> float:
            spent = registry.milliseconds
            return sum(rate * spent[name][of] for name, rate in calls.items()) / 1000

        return {
            "renders_per_second": round(renders, 1),
            "front_doors": front_doors,
            "resolved_per_second": round(calls["alias"], 1),
            "downloads_per_second": round(calls["download"], 1),
            "registry_cores": round(cores("server"), 2),
            "database_cores": round(cores("database"), 3),
            "store_cores": round(cores("store"), 3),
        }


def hit_rate(popularity: np.ndarray, kept: int) -> float:
    """Of a cache that keeps the `kept` last used, by Che's approximation (Che, Tung, Wang 2002).

    Args:
        popularity: the part of all uses that each thing has.
        kept: things.
    """
    if kept >= len(popularity):
        return 1.0
    if kept <= 0:
        return 0.0
    low, high = 0.0, 1.0
    while np.sum(-np.expm1(-popularity * high)) < kept:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        if np.sum(-np.expm1(-popularity * middle)) < kept:
            low = middle
        else:
            high = middle
    return float(np.sum(popularity * -np.expm1(-popularity * high)))


def stops(catalogue: Catalogue, registry: MeasuredRegistry, cores: int) -> dict[str, Any]:
    """Where one database and one object store end, from what calls cost as measured.

    Args:
        catalogue: of concepts.
        registry: as measured.
        cores: of the largest machine that a database is given.
    """
    spent, versions = registry.milliseconds, catalogue.concepts * catalogue.versions
    return {
        "cores": cores,
        "database_lookups_per_second": round(cores * 1000 / spent["alias"]["database"]),
        "database_publications_per_second": round(cores * 1000 / spent["create"]["database"]),
        "store_gigabytes": round(versions * catalogue.adapter_bytes / 1e9, 1),
        "store_objects": versions,
        "database_gigabytes": round(catalogue.concepts * catalogue.row_bytes / 1e9, 1),
        "verify_hours": round(versions / registry.calls["download"] / 3600, 1),
        "list_calls": -(-versions // 1000),
    }
