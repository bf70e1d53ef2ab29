"""(8) Files in float16 lose nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bench.fidelity.bootstrap import interval
from bench.fidelity.fronts import nearest
from bench.fidelity.lab import Lab, Setting
from bench.fidelity.plots import draw_bars, page
from bench.fidelity.rendering import Rendering
from perfuse_toybox.sheet import Sheet

NUMBER = 8
NAME = "halves"
TITLE = "Adapters in float16 lose nothing"
STATEMENT = "An adapter written in float16 gives the pictures of the one written in float32."
LIMIT = 0.005
RULE = (
    "Holds if likeness and text similarity differ by less than "
    f"{LIMIT:g}, the whole interval of the difference included."
)


def measure(lab: Lab) -> dict[str, Any]:
    """The same adapters read back from both files, at the middle of the sweep under LOCAL."""
    bias = nearest(lab.form.biases, 0.5)
    half: Setting = (lab.lesson(), Rendering(bias=bias))
    full: Setting = (lab.lesson(), Rendering(bias=bias, dtype="float32"))
    arrays, boot = lab.arrays([half, full]), lab.bootstrap()
    verdicts = {}
    for name in ("likeness", "text"):
        means = boot.means(arrays[name])
        found = interval(means[0] - means[1])
        inside = found["value"] is not None and max(abs(found["low"]), abs(found["high"])) < LIMIT
        answer = "holds" if inside else "does not hold"
        verdicts[f"{name}, float16 − float32"] = {"verdict": answer, **found}
    gaps = [
        np.abs(
            lab.pictures((c,), half).numpy().astype(int)
            - lab.pictures((c,), full).numpy().astype(int)
        )
        for c in lab.concepts
    ]
    return {
        "bias": bias,
        "levels_mean": round(float(np.mean([gap.mean() for gap in gaps])), 4),
        "levels_most": int(max(gap.max() for gap in gaps)),
        "pictures_alike": round(
            float(np.mean([(gap.reshape(len(gap), -1).max(-1) <= 2).mean() for gap in gaps])), 4
        ),
        "verdicts": verdicts,
    }


def draw(record: dict[str, Any]) -> Figure:
    """Both differences beside the limit."""
    figure, (axes,) = page(height=2.2)
    names = list(record["verdicts"])
    draw_bars(axes, names, list(record["verdicts"].values()), "float16 − float32")
    for edge in (-LIMIT, LIMIT):
        axes.axvline(edge, color="#c0562f", linestyle="--", linewidth=0.8)
    return figure


def sheet(lab: Lab) -> Sheet | None:
    """Nothing that the eye would tell apart."""
    del lab
    return None
