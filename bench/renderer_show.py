"""The table and the plot of the Renderer's benchmark."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure as Plot
from rich.table import Table

from bench.renderer_targets import BASES, Figure, figures

_OURS, _THEIRS, _MISSED, _PLAIN = "#2b6cb0", "#c0562f", "#b7791f", "#9aa0a6"


def table(record: dict[str, Any]) -> Table:
    """Every figure beside its target."""
    shown = Table(
        title=f"the Renderer ({record['machine']}, load {record['load_before']} before)",
        caption="ratios: medians over rounds in which all had a turn; figures for a GPU left out",
    )
    for name in ("", "figure", "base", "measured", "target", ""):
        shown.add_column(name, justify="right" if name in ("measured", "target") else "left")
    for each in figures(record):
        verdict = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[each.met]
        shown.add_row(each.part, each.what, each.base, written(each), target(each), verdict)
    return shown


def written(figure: Figure) -> str:
    """The value with the digits that matter."""
    value = f"{figure.value:.4f}" if figure.value < 0.1 else f"{figure.value:.3f}"
    if figure.unit or isinstance(figure.value, int):
        value = f"{figure.value:.0f}"
    return f"{value} {figure.unit}".strip()


def target(figure: Figure) -> str:
    """What it is held to."""
    if figure.target is None:
        return ""
    sign = "≥" if figure.at_least else "≤"
    return f"{sign} {figure.target:g} {figure.unit}".strip()


def draw(record: dict[str, Any]) -> Plot:
    """Ratios near one, the swap on both bases, and the curve of the load."""
    plot = Plot(figsize=(15, 5.2), layout="constrained")
    left, middle, right = plot.subplots(1, 3, width_ratios=(1.2, 1, 1))
    _ratios(left, record)
    _swaps(middle, record)
    _load(right, record)
    return plot


def _ratios(axes: Any, record: dict[str, Any]) -> None:
    """Of (a) and (c): what concepts cost."""
    near = [each for each in figures(record) if each.part in "ac" and each.target is not None]
    for place, each in enumerate(near):
        axes.barh(place, each.value, 0.7, color=_OURS if each.met else _MISSED)
        axes.plot([each.target] * 2, [place - 0.42, place + 0.42], color="#222222", linewidth=1.5)
    labels = [f"({each.part}) {each.what} [{each.base.split(',')[0]}]" for each in near]
    axes.set_yticks(range(len(near)), labels, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0.8, 1.15)
    axes.set_xlabel("without concepts = 1 (mark: target)")


def _swaps(axes: Any, record: dict[str, Any]) -> None:
    """Of (b): milliseconds to be ready for another choice of concepts."""
    names = {"kept": "ours, plan kept", "new": "ours, planned anew"}
    names |= {"set": "set_adapters, 8 resident", "hotswap": "hotswap", "load": "load + set"}
    for index, base in enumerate(BASES):
        if base not in record:
            continue
        title = BASES[base].split(",")[0]
        times = record[base]["swap"]["median_ms"]
        for place, name in enumerate(names):
            # The peer's text encoding, which our planning contains.
            encode = times["encode"] if name in ("set", "hotswap", "load") else 0.0
            at = place + 0.4 * index
            colour = _OURS if name in ("kept", "new") else _THEIRS
            alpha = 1.0 if index == 0 else 0.55
            axes.barh(at, times[name] + encode, 0.36, color=colour, alpha=alpha)
            label = f" {times[name] + encode:,.{1 if times[name] < 10 else 0}f} ms, {title}"
            axes.text(times[name] + encode, at, label, va="center", fontsize=7)
    axes.set_yticks([place + 0.2 for place in range(len(names))], list(names.values()), fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(0.1, axes.get_xlim()[1] * 30)
    axes.set_xlabel("(b) ms to other concepts, text encoded", fontsize=9)


def _load(axes: Any, record: dict[str, Any]) -> None:
    """Of (f): goodput and latencies against what was offered."""
    if "load" not in record.get("toybox", {}):
        axes.set_axis_off()
        return
    load = record["toybox"]["load"]
    shares = list(load["shares"].values())
    capacity = load["capacity_per_second"]
    offered = [found["offered_per_second"] / capacity for found in shares]
    goodput = [found["goodput_per_second"] / capacity for found in shares]
    axes.plot(offered, goodput, "o-", color=_OURS, label="goodput ÷ capacity")
    axes.plot([0, 1, 1.4], [0, 1, 1], ":", color=_PLAIN, label="ideal")
    axes.set_xlabel("(f) offered ÷ capacity, toybox, 16 tenants", fontsize=9)
    axes.set_ylim(0, 1.5)
    axes.legend(loc="upper left", fontsize=8)
    other = axes.twinx()
    for name, style in (("p50_ms", "s--"), ("p99_ms", "s-")):
        times = [found["latency"][name] / 1000 for found in shares]
        other.plot(offered, times, style, color=_THEIRS, markersize=4, label=name.split("_")[0])
    other.axhline(load["deadline_seconds"], color=_THEIRS, linewidth=0.8, linestyle=":")
    other.set_ylim(bottom=0)
    other.set_ylabel("s of a finished picture (dotted: deadline)")
    other.legend(loc="lower right", fontsize=8)
    light = load["light"]
    axes.set_title(
        f"light tenant beside a flood: p99 {light['ratio_p99']:.2f} × alone",
        fontsize=9,
    )
