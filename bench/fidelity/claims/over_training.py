"""(7) Over-training shows in the validation curve, and the kept checkpoint avoids it."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from bench.fidelity.bootstrap import ahead, interval, verdict
from bench.fidelity.contact import rows_of
from bench.fidelity.fronts import Front, front, nearest
from bench.fidelity.lab import Lab, Setting
from bench.fidelity.plots import draw_fronts, page
from bench.fidelity.rendering import Rendering
from perfuse_toybox.sheet import Sheet

NUMBER = 7
NAME = "over_training"
TITLE = "The kept checkpoint avoids over-training"
STATEMENT = (
    "A run that goes on for too long shows it in the validation curve, and the adapter of the best "
    "validation is better than that of the end."
)
RULE = (
    "The curve rises in a run if its end is above its best by more than 2 %. Holds if it rises in "
    "most runs and the kept adapter's text similarity minus the last one's at equal likeness has "
    "an interval above 0."
)


def measure(lab: Lab) -> dict[str, Any]:
    """Long runs: curves, and the best and the last adapter over bias."""
    lesson = lab.lesson(steps=lab.form.steps * lab.form.over)
    concepts = lab.concepts[: lab.form.over_concepts]
    fronts: dict[str, Front] = {}
    for kept in ("best", "last"):
        settings: list[Setting] = [
            (lesson, Rendering(kept=kept, bias=bias)) for bias in lab.form.biases
        ]
        arrays = lab.arrays(settings, concepts)
        fronts[kept] = front(kept, lab.form.biases, arrays, lab.bootstrap(len(concepts)))
    curves = {c.name: lab.learned(c, lesson)[1]["curve"] for c in concepts}
    rises = {
        name: curve[-1][1] / min(value for _, value in curve) - 1 for name, curve in curves.items()
    }
    found = interval(ahead(fronts["best"].pair, fronts["last"].pair))
    shows = sum(rise > 0.02 for rise in rises.values())
    answer = verdict(found)
    if answer == "holds" and shows * 2 <= len(rises):
        answer = "does not hold"
    return {
        "curves": curves,
        "rises": {name: round(rise, 4) for name, rise in rises.items()},
        "fronts": [one.record() for one in fronts.values()],
        "verdicts": {
            "text, best − last": {"verdict": answer, **found},
        },
    }


def draw(record: dict[str, Any]) -> Figure:
    """Validation curves; both fronts."""
    figure, (left, right) = page(2)
    for name, curve in record["curves"].items():
        first = curve[0][1]
        left.plot([s for s, _ in curve], [v / first for _, v in curve], linewidth=1, label=name)
    left.set_xlabel("step")
    left.set_ylabel("validation ÷ before the first step")
    left.legend(fontsize=7)
    draw_fronts(right, record["fronts"], knob="bias")
    return figure


def sheet(lab: Lab) -> Sheet:
    """The kept and the last adapter of the first concept."""
    bias = nearest(lab.form.biases, 0.5)
    lesson = lab.lesson(steps=lab.form.steps * lab.form.over)
    page_ = Sheet("After a long run", f"LOCAL, bias {bias:g}, {lesson.steps} steps.")
    for concept in lab.concepts[: min(3, lab.form.over_concepts)]:
        rows = []
        for kept in ("best", "last"):
            setting = (lesson, Rendering(kept=kept, bias=bias))
            rows += rows_of(lab, concept, [setting], [f"the {kept} adapter"], across=True)
        page_.section(f"<{concept.name}>", *rows)
    return page_
