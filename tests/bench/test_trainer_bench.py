"""The Trainer's benchmark still runs: peers, packs, a whole run, table, plot."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from bench.renderer_bases import toybox
from bench.trainer import Plan, measure
from bench.trainer_gpu import whole_run
from bench.trainer_show import draw, tables
from bench.trainer_steps import CHOSEN, LEAN, OURS, PACKAGE, SCRIPT

PLAN = Plan(rounds=1, sd15_rounds=0, packs=(1, 2), pack_rounds=((2, 1),), gpu=False)


def test_every_contender_is_measured_and_drawn(tmp_path: Path) -> None:
    record = {**measure(PLAN, Console(quiet=True)), "machine": "a test"}
    found = record["step"]["toybox"]
    assert set(found["step_ms"]) - {PACKAGE} == {OURS, CHOSEN, LEAN, SCRIPT}
    assert set(found["ours_to"]) - {PACKAGE} == {CHOSEN, LEAN, SCRIPT}
    assert set(found["chosen_to"]) - {PACKAGE} == {OURS, LEAN, SCRIPT}
    (packs,) = record["packs"]
    assert packs["to_one_by_one"][1] == 1.0
    assert record["gpu"] is None
    console = Console(record=True, file=io.StringIO(), width=120)
    for table in tables(record):
        console.print(table)
    shown = console.export_text()
    assert LEAN in shown
    assert "needs a GPU: left out" in " ".join(shown.split())
    draw(record).savefig(tmp_path / "plot.png")


def test_a_whole_run_goes_from_pictures_to_bytes() -> None:
    assert whole_run(toybox(), 16, 2, 2) > 0
