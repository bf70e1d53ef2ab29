"""How the Renderer's benchmark sums its measurements up."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

Step = Callable[[], None]
"""Told of progress: one more of the turns that were announced is done."""


def median(values: Sequence[float]) -> float:
    """Of what was measured."""
    return statistics.median(values)


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over rounds of one round's ratio: what slows a whole round falls out."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def quantile(values: Sequence[float], share: float) -> float:
    """The least value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def milliseconds(values: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile of seconds, in ms, with their number."""
    return {
        "p50_ms": round(1000 * median(values), 2),
        "p99_ms": round(1000 * quantile(values, 0.99), 2),
        "count": len(values),
    }


def surroundings() -> dict[str, Any]:
    """Machine, Python and libraries; and what else ran, as the load before it began."""
    libraries = ("torch", "diffusers", "transformers", "peft", "accelerate", "grpcio")
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, no GPU used",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {name: version(name) for name in libraries},
    }
