"""The plots of docs/capacity.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Plot

_OURS, _THEIRS, _WARN, _PLAIN = "#2b6cb0", "#c0562f", "#b7791f", "#9aa0a6"
_MANY = (_OURS, _THEIRS, _WARN, _PLAIN, "#2f855a")


def draw(record: dict[str, Any], folder: Path) -> None:
    """Every plot.

    Args:
        record: capacity.json.
        folder: that they are put in.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plots = {"reality": _reality, "fleets": _fleets, "day": _day}
    for name, plot in plots.items():
        plot(record).savefig(folder / f"{name}.png", dpi=100)


def _reality(record: dict[str, Any]) -> Plot:
    """Measured beside simulated."""
    plot = Plot(figsize=(8, 3.2), layout="constrained")
    left, right = plot.subplots(1, 2, width_ratios=(1.7, 1))
    shares = record["validation"]["shares"]
    cases = [(share, which) for share in shares for which in ("p50_ms", "p99_ms")]
    _compare(left, [shares[share][which] for share, which in cases])
    left.set_xticks(
        range(len(cases)), [f"{float(share):.0%}\n{which[:3]}" for share, which in cases]
    )
    left.set_ylabel("ms")
    left.set_title("one Renderer, share of its capacity", fontsize=9)
    light = record["validation"]["light"]
    _compare(right, [light["p50_ms"], light["p99_ms"]])
    right.set_xticks(range(2), ["p50", "p99"])
    right.set_title("a light tenant beside a flood", fontsize=9)
    left.legend(frameon=False, fontsize=8)
    return plot


def _compare(axes: Any, values: list[dict[str, float]]) -> None:
    for place, value in enumerate(values):
        spread = [[value["simulated"] - value["from"]], [value["to"] - value["simulated"]]]
        label = "simulated, middle 90 %" if place == 0 else None
        axes.errorbar(
            place + 0.1, value["simulated"], spread, fmt="o", color=_OURS, capsize=4, label=label
        )
        label = "measured" if place == 0 else None
        axes.plot(place - 0.1, value["measured"], "D", color=_THEIRS, label=label)
    axes.set_ylim(0)
    axes.set_xlim(-0.5, len(values) - 0.5)


def _fleets(record: dict[str, Any]) -> Plot:
    """Latency by size and load."""
    plot = Plot(figsize=(8, 3.2), layout="constrained")
    left, right = plot.subplots(1, 2)
    shares: dict[str, list[dict[str, Any]]] = {}
    for case, found in record["fleets"].items():
        shares.setdefault(case.partition(" at ")[2], []).append(found)
    for colour, (share, cases) in zip(_MANY, shares.items(), strict=False):
        sizes = [each["devices"] for each in cases]
        label = f"{float(share):.0%} offered"
        left.plot(
            *(sizes, [each["p99_s"] / each["alone_s"] for each in cases]),
            marker="o",
            color=colour,
            label=label,
        )
        right.plot(
            *(sizes, [each["cost_per_1000"] for each in cases]),
            marker="o",
            color=colour,
            label=label,
        )
    for axes, title in ((left, "p99 ÷ a picture alone"), (right, "price of 1000 pictures")):
        axes.set_xscale("log")
        axes.set_ylim(0)
        axes.set_xlabel("devices")
        axes.set_title(title, fontsize=9)
    left.legend(frameon=False, fontsize=8)
    return plot


def _day(record: dict[str, Any]) -> Plot:
    """A day with an autoscaler: load, replicas, latency."""
    plot = Plot(figsize=(8, 5.4), layout="constrained")
    top, middle, bottom = plot.subplots(3, 1, sharex=True)
    first = next(iter(record["day"].values()))
    minutes = [point[0] / 60 for point in first["curve"]]
    top.fill_between(minutes, [point[1] for point in first["curve"]], color=_PLAIN, alpha=0.4)
    top.set_ylabel("requests/s")
    for colour, (case, found) in zip(_MANY, record["day"].items(), strict=False):
        sizes = found["sizes"] or [[0, found["devices"]], [minutes[-1] * 60, found["devices"]]]
        middle.step(
            *([size[0] / 60 for size in sizes], [size[1] for size in sizes]),
            where="post",
            color=colour,
            label=case,
            linewidth=1.2,
        )
        curve = found["curve"]
        moments = [point[0] / 60 for point in curve]
        bottom.plot(moments, [100 * point[3] for point in curve], color=colour, linewidth=1)
    middle.set_ylabel("replicas ready")
    middle.legend(frameon=False, fontsize=7, ncols=2, loc="upper left")
    middle.set_ylim(0, 1.7 * middle.get_ylim()[1])
    bottom.set_ylabel("% not finished")
    bottom.set_xlabel("minutes")
    bottom.set_xlim(0, minutes[-1])
    return plot
