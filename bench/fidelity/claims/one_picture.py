"""(5) One picture suffices, with some over-fitting."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from bench.fidelity.bootstrap import interval, verdict
from bench.fidelity.contact import rows_of
from bench.fidelity.fronts import alone, nearest, sweep
from bench.fidelity.lab import Lab
from bench.fidelity.plots import draw_fronts, page
from bench.fidelity.rendering import Rendering
from perfuse_toybox.sheet import Sheet

NUMBER = 5
NAME = "one_picture"
TITLE = "One picture suffices"
STATEMENT = "A concept is learned from a single picture, with some over-fitting."
ENOUGH = 0.8
RULE = (
    "Likeness gained over the base alone, as a share of what all pictures gain, at the middle of "
    f"the sweep under LOCAL. Holds if that share minus {ENOUGH:g} has an interval above 0. "
    "Over-fitting is text similarity lost against all pictures."
)


def measure(lab: Lab) -> dict[str, Any]:
    """One picture beside all of them, over bias."""
    biases = lab.form.biases
    several = sweep(lab, f"{lab.form.pictures} pictures", lab.lesson(), Rendering(), "bias", biases)
    one = sweep(lab, "1 picture", lab.lesson(pictures=1), Rendering(), "bias", biases)
    base = alone(lab)
    at = biases.index(nearest(biases, 0.5))
    floor = base.means["likeness"][0]
    gained = one.means["likeness"][at] - floor
    share = gained / (several.means["likeness"][at] - floor)
    lost = interval(several.means["text"][at] - one.means["text"][at])
    enough = interval(share - ENOUGH)
    return {
        "fronts": [several.record(), one.record(), base.record()],
        "share": interval(share),
        "bias": biases[at],
        "verdicts": {
            f"share of the likeness gained, − {ENOUGH:g}": {"verdict": verdict(enough), **enough},
            "text similarity lost": {"verdict": verdict(lost), **lost},
        },
    }


def draw(record: dict[str, Any]) -> Figure:
    """Both fronts."""
    figure, (axes,) = page()
    draw_fronts(axes, record["fronts"], knob="bias")
    return figure


def sheet(lab: Lab) -> Sheet:
    """The same prompts from one and from several pictures."""
    bias = nearest(lab.form.biases, 0.5)
    page_ = Sheet("From one picture", f"LOCAL, bias {bias:g}.")
    for concept in lab.concepts[:3]:
        rows = []
        for count in (lab.form.pictures, 1):
            setting = (lab.lesson(pictures=count), Rendering(bias=bias))
            rows += rows_of(lab, concept, [setting], [f"from {count}"], across=True)
        page_.section(f"<{concept.name}>", *rows)
    return page_
