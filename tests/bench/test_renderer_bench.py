"""The Renderer's benchmark still runs: every part, figures, table and plot; SD1.5 left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from bench.renderer import QUICK, measure
from bench.renderer_figures import median_ratio, quantile, surroundings
from bench.renderer_load import Load
from bench.renderer_show import draw, table
from bench.renderer_targets import Figure, figures

LOAD = Load(
    steps=(1, 2), callers=4, capacity_seconds=1.0, seconds=2.0, light=2, light_steps=2, cancels=1
)
PLAN = replace(
    QUICK, toybox=replace(QUICK.toybox, rounds=1, swaps=1, cancels=2, versions=3, load=LOAD)
)


def test_every_part_is_measured_and_drawn(tmp_path: Path) -> None:
    measured = measure(PLAN, Console(quiet=True))
    record = json.loads(json.dumps({**surroundings(), **measured}))
    found = figures(record)
    assert {figure.part for figure in found} == set("abcdef")
    # What a concept adds is a difference of two times, which so few turns may turn round.
    times = [each for each in found if each.part in "abc" and "adds" not in each.what]
    assert all(figure.value > 0 for figure in times)
    assert sum("adds" in figure.what for figure in found) == 2
    assert record["toybox"]["cancel"]["steps_most"] <= 1
    assert record["toybox"]["cold"]["added"]["count"] == 2
    Console(quiet=True).print(table(record))
    draw(record).savefig(tmp_path / "plot.png")


def test_a_target_may_be_a_ceiling_or_a_floor() -> None:
    assert Figure("a", "", "", 1.01, 1.02).met
    assert not Figure("a", "", "", 1.03, 1.02).met
    assert Figure("c", "", "", 0.98, 0.97, at_least=True).met
    assert not Figure("c", "", "", 0.96, 0.97, at_least=True).met
    assert Figure("b", "", "", 0.5).met is None


def test_figures_of_rounds() -> None:
    # A round in which all were slow counts like another.
    assert median_ratio([1.0, 10.0, 2.1], [1.0, 10.0, 2.0]) == 1.0
    assert quantile(range(1, 101), 0.99) == 100
    assert quantile([3.0], 0.99) == 3.0
