"""The table and the plot of the Registry's benchmark."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Patch
from rich.table import Table

_COLOURS = {
    "PostgreSQL + S3": "#2b6cb0",
    "PostgreSQL + directory": "#63a4d8",
    "SQLite + directory": "#2f855a",
    "MLflow": "#c0562f",
}
_GOAL = 5.0


def table(record: dict[str, Any]) -> Table:
    """Every operation with each server's requests a second, latencies and ratio to MLflow."""
    shown = Table(
        title=f"requests a second, their ratio to MLflow's, p50 / p99 in ms ({record['machine']})",
        caption="; ".join(
            f"{page} page, largest to smallest: "
            + ", ".join(f"{name} {ratio:.2f}" for name, ratio in by_server.items())
            for page, by_server in record["largest_to_smallest_list"].items()
        ),
    )
    shown.add_column("operation", no_wrap=True)
    for name in _COLOURS:
        shown.add_column(name, justify="right")
    for operation, servers in record["measured"].items():
        row = [operation]
        for name in _COLOURS:
            if name not in servers:
                row.append("-")
                continue
            summary = servers[name]
            ratio = record["ratio_to_mlflow"].get(operation, {}).get(name)
            row.append(
                f"{summary['per_second']:,.0f}"
                + (f" [b]{ratio:.1f}x[/b]" if ratio is not None else "")
                + f"\n{summary['p50_ms']:.1f} / {summary['p99_ms']:.1f}"
            )
        shown.add_row(*row)
    return shown


def draw(record: dict[str, Any]) -> Figure:
    """Ratios, latencies and the cost of a page against the number of versions."""
    figure = Figure(figsize=(14, 4.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.1, 1.1, 1))
    servers = [Patch(color=colour, label=name) for name, colour in _COLOURS.items()]
    figure.legend(handles=servers, loc="outside upper center", ncols=4, fontsize=9)
    _ratios(left, record)
    _latencies(middle, record)
    _pages(right, record)
    return figure


def _ratios(axes: Any, record: dict[str, Any]) -> None:
    compared = {
        operation: ratio
        for operation, ratio in record["ratio_to_mlflow"].items()
        if not operation.startswith("middle")
    }
    ours = [name for name in _COLOURS if name != "MLflow"]
    for index, name in enumerate(ours):
        places = [place + 0.27 * (index - 1) for place in range(len(compared))]
        values = [ratio[name] for ratio in compared.values()]
        axes.barh(places, values, 0.25, color=_COLOURS[name])
    axes.set_yticks(range(len(compared)), list(compared), fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1.0, color="#444444", linewidth=0.8)
    axes.axvline(_GOAL, color="#444444", linewidth=0.8, linestyle=":")
    axes.set_xlabel("requests a second, MLflow = 1 (dotted: 5)")


def _latencies(axes: Any, record: dict[str, Any]) -> None:
    """From the median to the 99th percentile."""
    measured = {
        operation: servers
        for operation, servers in record["measured"].items()
        if not operation.startswith(("list", "middle"))
    }
    for index, (name, colour) in enumerate(_COLOURS.items()):
        for place, servers in enumerate(measured.values()):
            if name in servers:
                at, summary = place + 0.2 * (index - 1.5), servers[name]
                axes.plot(
                    [summary["p50_ms"], summary["p99_ms"]], [at, at], color=colour, linewidth=4
                )
                axes.plot([summary["p50_ms"]], [at], "o", color=colour, markersize=5)
    axes.set_yticks(range(len(measured)), list(measured), fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("ms, from median (dot) to 99th percentile")


def _pages(axes: Any, record: dict[str, Any]) -> None:
    sizes = record["plan"]["sizes"]
    for page, style in (("list", "o-"), ("middle", "s--")):
        for name, colour in _COLOURS.items():
            cells = [record["measured"][f"{page} {size}, 1 client"] for size in sizes]
            if name in cells[0]:
                times = [cell[name]["p50_ms"] for cell in cells]
                axes.plot(sizes, times, style, color=colour, markersize=4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("versions of the concept")
    axes.set_ylabel(f"median ms of a page of {record['plan']['page']}")
    axes.set_title("the first page (line) and the middle one (dashes)", fontsize=9)
