"""The table and the plot of the Trainer's benchmark."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from bench.trainer_steps import CHOSEN, LEAN, OURS, PACKAGE, SCRIPT

_NAMES = {"toybox": "toybox base", "sd15": "SD1.5's configuration"}
_COLOURS = {LEAN: "#9aa0a6", SCRIPT: "#5f6368", PACKAGE: "#c0562f"}
_OURS, _PALE = "#2b6cb0", "#90b8dc"
TARGET = 1.0


def tables(record: dict[str, Any]) -> list[Table]:
    """Steps beside the peers', and packs."""
    steps = Table(
        title=f"(a) one training step, float32 ({record['machine']})",
        caption=None if record["package"] else f"{PACKAGE} is not installed: left out",
    )
    for name in ("contender", "ms", "ours ÷ it", "channels last ÷ it", "target"):
        steps.add_column(name, justify="left" if name == "contender" else "right")
    for base, found in record["step"].items():
        steps.add_section()
        steps.add_row(f"[b]{_NAMES[base]}[/b]")
        steps.add_row(f"{found['side']} px, batch {found['batch']}")
        for name, milliseconds in found["step_ms"].items():
            bound = name in (LEAN, SCRIPT)
            steps.add_row(
                name,
                f"{milliseconds:,.0f}",
                f"{found['ours_to'][name]:.3f}" if name != OURS else "",
                f"{found['chosen_to'][name]:.3f}" if name != CHOSEN else "",
                f"≤ {TARGET:g}" if bound else "",
            )
    packs = Table(
        title="(b) runs an hour, packed and one after another",
        caption="at 400 steps with 17 validations; (c) needs a GPU"
        + (": left out" if record["gpu"] is None else ""),
    )
    for name in ("batch", "K", "step ms", "runs an hour", "÷ one by one"):
        packs.add_column(name, justify="right")
    for found in record["packs"]:
        for size, ratio in found["to_one_by_one"].items():
            packs.add_row(
                str(found["batch"]),
                str(size),
                f"{found['step_ms'][size]:,.0f}",
                f"{found['runs_an_hour'][size]:.1f}",
                f"{ratio:.2f}",
            )
    return [steps, packs]


def draw(record: dict[str, Any]) -> Figure:
    """Our step's share of each peer's, and what packing gains."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.4, 1))
    place, labels = 0, []
    for base, found in record["step"].items():
        for name in _COLOURS:
            if name not in found["ours_to"]:
                continue
            left.barh(place - 0.18, found["ours_to"][name], 0.34, color=_OURS)
            left.barh(place + 0.18, found["chosen_to"][name], 0.34, color=_PALE)
            labels.append(f"{name}\n{_NAMES[base]}")
            place += 1
    left.set_yticks(range(place), labels, fontsize=8)
    left.invert_yaxis()
    left.axvline(TARGET, color="#444444", linewidth=0.8)
    left.set_xlabel("our step ÷ theirs (pale: with channels last)")
    for found in record["packs"]:
        ratios = found["to_one_by_one"]
        right.plot(
            [int(size) for size in ratios],
            list(ratios.values()),
            "o-",
            markersize=4,
            label=f"batch {found['batch']}",
        )
    right.axhline(1.0, color="#444444", linewidth=0.8)
    right.set_xscale("log", base=2)
    right.set_xlabel("runs in a pack, K")
    right.set_ylabel("runs an hour ÷ one after another")
    right.legend(fontsize=8)
    return figure
