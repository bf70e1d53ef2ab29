"""What the Registry's benchmark makes of its measurements."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

THEIRS = "MLflow"


@dataclass
class Record:
    """What one operation cost on one server, over the rounds."""

    rates: list[float] = field(default_factory=list)
    microseconds: list[int] = field(default_factory=list)
    cpu: list[dict[str, float]] = field(default_factory=list)
    failures: int = 0

    def add(self, done: dict[str, Any]) -> None:
        """One round's measurement."""
        self.rates.append(done["rate"])
        self.microseconds += done["microseconds"]
        self.cpu.append(done["cpu"])
        self.failures += done["failures"]

    def summary(self) -> dict[str, Any]:
        """Rates and CPU as medians over rounds, latencies over all requests of all rounds.

        The clock of other processes' CPU has steps of 10 ms.
        """
        ordered = sorted(self.microseconds)
        return {
            "per_second": round(statistics.median(self.rates), 1),
            "p50_ms": round(ordered[len(ordered) // 2] / 1000, 3),
            "p99_ms": round(ordered[len(ordered) * 99 // 100] / 1000, 3),
            "requests": len(ordered),
            "failures": self.failures,
            "cpu_ms": {
                part: round(1000 * statistics.median(cpu[part] for cpu in self.cpu), 2)
                for part in self.cpu[0]
            },
        }


def ratios(measured: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Requests a second as multiples of MLflow's, by operation and server of ours."""
    return {
        operation: {
            name: round(summary["per_second"] / servers[THEIRS]["per_second"], 2)
            for name, summary in servers.items()
            if name != THEIRS
        }
        for operation, servers in measured.items()
        if THEIRS in servers
    }


def flatness(measured: dict[str, dict[str, Any]], sizes: Sequence[int]) -> dict[str, Any]:
    """Median time of a page of the largest concept as a multiple of the smallest one's."""
    found: dict[str, Any] = {}
    for page in ("list", "middle"):
        small = measured[f"{page} {sizes[0]}, 1 client"]
        large = measured[f"{page} {sizes[-1]}, 1 client"]
        found[page] = {
            name: round(large[name]["p50_ms"] / small[name]["p50_ms"], 2) for name in small
        }
    return found


def describe(plan: dict[str, Any], measured: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What is kept: figures, their ratios, and what they were measured with."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "plan": plan,
        "versions": {name: version(name) for name in ("grpcio", "sqlalchemy", "psycopg")},
        "measured": measured,
        "ratio_to_mlflow": ratios(measured),
        "largest_to_smallest_list": flatness(measured, plan["sizes"]),
    }
