"""Plots of fronts and of figures with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

LAYOUT: Literal["constrained"] | None = "constrained"
COLOURS = ("#2b6cb0", "#c0562f", "#3f8f5b", "#8a4fa3", "#b58a1b", "#5f6368")
_BASE = "#222222"


def page(columns: int = 1, width: float = 6.4, height: float = 4.4) -> tuple[Figure, list[Axes]]:
    """A figure with axes side by side."""
    figure = Figure(figsize=(width * columns, height), layout=LAYOUT)
    found = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(found)


def draw_fronts(
    axes: Axes, fronts: Sequence[Mapping[str, Any]], knob: str = "", across: str = "text"
) -> None:
    """Likeness over text similarity, a cross of intervals at every point."""
    for index, front in enumerate(fronts):
        colour = _BASE if front["name"] == "base alone" else COLOURS[index % len(COLOURS)]
        x, y = front[across], front["likeness"]
        places = [p for p in range(len(x)) if x[p]["value"] is not None]
        axes.errorbar(
            [x[p]["value"] for p in places],
            [y[p]["value"] for p in places],
            xerr=_errors([x[p] for p in places]),
            yerr=_errors([y[p] for p in places]),
            fmt="o-" if len(places) > 1 else "s",
            color=colour,
            markersize=4,
            linewidth=1.2,
            elinewidth=0.5,
            label=front["name"],
        )
        if knob and len(places) > 1:
            for p in places:
                axes.annotate(
                    f"{front['knobs'][p]:g}",
                    (x[p]["value"], y[p]["value"]),
                    textcoords="offset points",
                    xytext=(5, 4),
                    fontsize=7,
                    color=colour,
                )
    axes.set_xlabel("text similarity" if across == "text" else across)
    axes.set_ylabel("likeness of the concept's figure")
    axes.grid(color="#eeeeee")
    axes.legend(fontsize=7)


def draw_bars(
    axes: Axes, names: Sequence[str], found: Sequence[Mapping[str, Any]], label: str
) -> None:
    """A bar with its interval for each name."""
    there = [(n, f) for n, f in zip(names, found, strict=True) if f["value"] is not None]
    places = range(len(there))
    axes.barh(
        places,
        [one["value"] for _, one in there],
        xerr=_errors([one for _, one in there]),
        color=[COLOURS[place % len(COLOURS)] for place in places],
        error_kw={"elinewidth": 0.8},
        height=0.6,
    )
    axes.set_yticks(list(places), [name for name, _ in there], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="#444444", linewidth=0.8)
    axes.set_xlabel(label, fontsize=8)


def _errors(found: Sequence[Mapping[str, Any]]) -> list[list[float]]:
    """Distances to both ends; percentile intervals may leave the value out by rounding."""
    return [
        [max(0.0, one["value"] - one["low"]) for one in found],
        [max(0.0, one["high"] - one["value"]) for one in found],
    ]
