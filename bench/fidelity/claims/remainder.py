"""(10) Ours: a closing gate gives the place back to the super-category."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bench.fidelity.bootstrap import Bootstrap, ahead, interval, verdict
from bench.fidelity.contact import blend_rows, rows_of
from bench.fidelity.fronts import alone, nearest, sweep
from bench.fidelity.lab import Lab, Setting, stacked
from bench.fidelity.plots import draw_bars, draw_fronts, page
from bench.fidelity.rendering import Rendering
from perfuse_toybox.sheet import Sheet

NUMBER = 10
NAME = "remainder"
TITLE = "A closing gate gives the place back to the super-category"
STATEMENT = (
    "Ours, not the paper's (decision 13): where the gate does not put back what the edit takes "
    "away, the super-category serves better than nothing (Eq. 3), the adapter being the same."
)
RULE = (
    "Holds, for each comparison under LOCAL, if the super-category's value minus Eq. 3's has an "
    "interval above 0: text similarity at equal likeness and the kind read right over the sweep, "
    "and in blends the likeness of the least alike and the share with all concepts present."
)
FORMS = {"super-category": "SUPER_CATEGORY", "Eq. 3": "NOTHING"}
MEASURES = ("likeness", "text", "present")


def measure(lab: Lab) -> dict[str, Any]:
    """Both forms over the sweep, and in every blend at two biases."""
    fronts = {
        name: sweep(lab, name, lab.lesson(), Rendering(remainder=form), "bias", lab.form.biases)
        for name, form in FORMS.items()
    }
    filled, bare = fronts.values()
    kinds = [front.means["own/kind"].mean(0) for front in (filled, bare)]
    differences = {
        "text at equal likeness": ahead(filled.pair, bare.pair),
        "kind read right": kinds[0] - kinds[1],
    }
    by_way = {
        name: [lab.blended(one, way) for one in lab.blends] for name, way in ways(lab).items()
    }
    arrays = stacked(list(by_way.values()))
    boot = Bootstrap(*arrays["likeness"].shape[1:])
    means = {name: boot.means(arrays[name]) for name in MEASURES}
    half = len(by_way) // 2
    for measured in ("likeness", "present"):
        gained = means[measured][:half] - means[measured][half:]
        differences[f"blends, {measured}"] = np.mean(gained, axis=0)
    verdicts = {}
    for name, samples in differences.items():
        found = interval(samples)
        verdicts[f"{name}, super-category − Eq. 3"] = {"verdict": verdict(found), **found}
    return {
        "fronts": [*(front.record() for front in fronts.values()), alone(lab).record()],
        "ways": {
            name: {measured: interval(means[measured][index]) for measured in MEASURES}
            for index, name in enumerate(by_way)
        },
        "verdicts": verdicts,
    }


def ways(lab: Lab) -> dict[str, Setting]:
    """How concepts are blended: first in the one form at every bias, then in the other."""
    biases = sorted({nearest(lab.form.biases, wanted) for wanted in (0.5, 0.8)})
    return {
        f"{name}, bias {bias:g}": (lab.lesson(), Rendering(bias=bias, remainder=form))
        for name, form in FORMS.items()
        for bias in biases
    }


def draw(record: dict[str, Any]) -> Figure:
    """The two fronts, and the blends."""
    figure, (left, middle, right) = page(3, width=4.2)
    draw_fronts(left, record["fronts"], knob="bias")
    names = list(record["ways"])
    shown = {"likeness": "likeness of the least alike", "present": "all concepts present"}
    for one, (measured, label) in zip((middle, right), shown.items(), strict=True):
        draw_bars(one, names, [record["ways"][name][measured] for name in names], label)
    right.set_yticklabels([])
    return figure


def sheet(lab: Lab) -> Sheet:
    """One concept over the sweep in both forms, and one blend."""
    page_ = Sheet("What remains", "The same adapter, prompt and noise in both forms.")
    for concept in lab.concepts[:2]:
        rows = []
        for name, form in FORMS.items():
            settings = [(lab.lesson(), Rendering(bias=b, remainder=form)) for b in lab.form.biases]
            notes = [f"{name}, {bias:g}" for bias in lab.form.biases]
            rows += rows_of(lab, concept, settings, notes)
        page_.section(f"<{concept.name}>, a kind of {concept.super_category}", *rows)
    for blend in lab.blends[-1:]:
        title = " + ".join(f"<{concept.name}>" for concept in blend)
        page_.section(title, *blend_rows(lab, blend, ways(lab)))
    return page_
