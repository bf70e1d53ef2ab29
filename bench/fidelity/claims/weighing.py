"""(6) Masks and a higher training bias help text similarity."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from bench.fidelity.bootstrap import ahead, interval, verdict
from bench.fidelity.fronts import alone, sweep
from bench.fidelity.lab import Lab
from bench.fidelity.plots import draw_fronts, page
from bench.fidelity.rendering import Rendering
from perfuse_toybox.sheet import Sheet

NUMBER = 6
NAME = "weighing"
TITLE = "Masks and a higher training bias help"
STATEMENT = (
    "A soft mask over the subject in the loss, and a higher bias of the gate in training, raise "
    "text similarity."
)
RULE = (
    "Holds, for each, if the difference of the LOCAL fronts at equal likeness has an interval "
    "above 0. The mask is the base's own attention to the super-category (CROSS_ATTENTION); the "
    "lower training bias is 0.5, the usual one 0.75."
)
LOWER = 0.5


def measure(lab: Lab) -> dict[str, Any]:
    """Three ways to learn under LOCAL, each over bias."""
    lessons = {
        "no mask, bias 0.75": lab.lesson(),
        "mask, bias 0.75": lab.lesson(mask="CROSS_ATTENTION"),
        f"no mask, bias {LOWER:g}": lab.lesson(bias=LOWER),
    }
    fronts = {
        name: sweep(lab, name, lesson, Rendering(), "bias", lab.form.biases)
        for name, lesson in lessons.items()
    }
    usual, masked, lower = fronts.values()
    mask, bias = interval(ahead(masked.pair, usual.pair)), interval(ahead(usual.pair, lower.pair))
    return {
        "fronts": [*(front.record() for front in fronts.values()), alone(lab).record()],
        "verdicts": {
            "text, mask − no mask": {"verdict": verdict(mask), **mask},
            f"text, training bias 0.75 − {LOWER:g}": {"verdict": verdict(bias), **bias},
        },
    }


def draw(record: dict[str, Any]) -> Figure:
    """The three fronts."""
    figure, (axes,) = page()
    draw_fronts(axes, record["fronts"], knob="bias")
    return figure


def sheet(lab: Lab) -> Sheet | None:
    """Nothing that the eye would tell apart."""
    del lab
    return None
