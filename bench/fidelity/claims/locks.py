"""(2) LOCAL and GLOBAL are ahead of TRAINED_K on text; GLOBAL has the most varied scenes."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from bench.fidelity.bootstrap import ahead, compare, interval, verdict
from bench.fidelity.contact import rows_of
from bench.fidelity.fronts import Front, alone, nearest, sweep
from bench.fidelity.lab import Lab
from bench.fidelity.plots import draw_fronts, page
from bench.fidelity.rendering import Rendering
from perfuse_toybox.sheet import Sheet

NUMBER = 2
NAME = "locks"
TITLE = "Locked keys are ahead of trained ones"
STATEMENT = (
    "At equal likeness, LOCAL and GLOBAL have a higher text similarity than TRAINED_K, and GLOBAL "
    "the most varied scenes."
)
RULE = (
    "Holds, for each comparison, if the difference of the fronts at equal likeness (text "
    "similarity; for variety, 1 minus the cosine of pictures of one prompt) has an interval above "
    "0."
)
LOCKS = ("LOCAL", "GLOBAL", "TRAINED_K")


def measure(lab: Lab) -> dict[str, Any]:
    """Three sweeps over bias; LOCAL and GLOBAL from the same adapters."""
    fronts = {lock: _front(lab, lock) for lock in LOCKS}
    verdicts: dict[str, Any] = {}
    for ours, theirs in (("LOCAL", "TRAINED_K"), ("GLOBAL", "TRAINED_K"), ("GLOBAL", "LOCAL")):
        verdicts |= compare((ours, fronts[ours].pair), (theirs, fronts[theirs].pair))
    for theirs in ("LOCAL", "TRAINED_K"):
        found = interval(ahead(_variety(fronts["GLOBAL"]), _variety(fronts[theirs])))
        verdicts[f"variety, GLOBAL − {theirs}"] = {"verdict": verdict(found), **found}
    return {
        "fronts": [*(front.record() for front in fronts.values()), alone(lab).record()],
        "verdicts": verdicts,
    }


def draw(record: dict[str, Any]) -> Figure:
    """Likeness over text similarity, over scenes obeyed and over variety."""
    figure, axes = page(3, width=5.2)
    for one, across in zip(axes, ("text", "scene", "variety"), strict=True):
        draw_fronts(one, record["fronts"], knob="bias", across=across)
    return figure


def sheet(lab: Lab) -> Sheet:
    """The same prompts and seeds under the three locks."""
    page_ = Sheet("Key locks", "The same prompts and seeds, at the middle of the sweep.")
    bias = nearest(lab.form.biases, 0.5)
    for concept in lab.concepts[:3]:
        rows = []
        for lock in LOCKS:
            setting = (_lesson(lab, lock), Rendering(key_lock=lock, bias=bias))
            rows += rows_of(lab, concept, [setting], [lock], across=True)
        page_.section(f"<{concept.name}>, bias {bias:g}", *rows)
    return page_


def _lesson(lab: Lab, lock: str) -> Any:
    return lab.lesson(key_lock="TRAINED_K" if lock == "TRAINED_K" else "LOCAL")


def _front(lab: Lab, lock: str) -> Front:
    rendering = Rendering(key_lock=lock)
    return sweep(lab, lock, _lesson(lab, lock), rendering, "bias", lab.form.biases)


def _variety(front: Front) -> tuple[Any, Any]:
    return front.means["likeness"], front.means["variety"]
