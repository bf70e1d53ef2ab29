"""What the other benchmarks measured, as the simulation takes it: from bench/results alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.capacity.step_times import Tabled

RESULTS = Path(__file__).parents[1] / "results"


def read(name: str, results: Path = RESULTS) -> dict[str, Any]:
    """One benchmark's record."""
    found: dict[str, Any] = json.loads((results / f"{name}.json").read_text())
    return found


@dataclass(frozen=True)
class MeasuredRenderer:
    """One Renderer on two cores, on the toybox base, as `bench.renderer` measured it.

    Attributes:
        alone: lanes → seconds of a step, of the engine with nothing beside it.
        picture: seconds of a picture that a caller asks for while nobody else does.
        load: (f), as it stands in the results.
    """

    alone: dict[int, float]
    picture: float
    load: dict[str, Any]

    @classmethod
    def of(cls, record: dict[str, Any]) -> MeasuredRenderer:
        """From `renderer.json`. Two lanes were not measured alone: they are on the others' line."""
        toybox = record["toybox"]
        table = {
            toybox["cancel"]["lanes"]: toybox["cancel"]["step_ms"] / 1000,
            toybox["step"]["lanes"]: toybox["step"]["median_ms"]["1"] / 1000,
            toybox["whole_step"]["lanes"]: toybox["whole_step"]["median_ms"]["1"] / 1000,
        }
        slope, start = np.polyfit(list(table), list(table.values()), 1)
        table = {2: float(start + 2 * slope), **table}
        return cls(table, toybox["load"]["light"]["alone"]["p50_ms"] / 1000, toybox["load"])

    def times(self, beside: float = 1.0) -> Tabled:
        """Step times.

        Args:
            beside: how many times as long a step takes that shares the cores with callers, decoding
                and planning.
        """
        return Tabled({lanes: seconds * beside for lanes, seconds in self.alone.items()})

    def around(self, times: Tabled) -> float:
        """Seconds of a request that are no step: planning, decoding, sending."""
        return max(0.0, self.picture - self.load["load"]["light_steps"] * times.seconds(2))


@dataclass(frozen=True)
class MeasuredRegistry:
    """One installation on two cores, as `bench.registry` measured it: PostgreSQL and S3.

    Attributes:
        calls: calls a second of one Registry process with 32 callers, by operation.
        milliseconds: of processor time a call, by operation and by who spent it: `server`,
            `database`, `store`.
    """

    calls: dict[str, float]
    milliseconds: dict[str, dict[str, float]]

    @classmethod
    def of(cls, record: dict[str, Any], server: str = "PostgreSQL + S3") -> MeasuredRegistry:
        """From `registry.json`."""
        operations = {"get": "get", "alias": "alias", "create": "publish", "download": "download"}
        found = {
            ours: record["measured"][f"{theirs}, 32 clients"][server]
            for ours, theirs in operations.items()
        }
        return cls(
            {name: each["per_second"] for name, each in found.items()},
            {name: each["cpu_ms"] for name, each in found.items()},
        )
