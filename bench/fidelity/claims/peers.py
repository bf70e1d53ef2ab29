"""(3) Ahead of textual inversion and of a rank-4 LoRA on keys and values."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from bench.fidelity.bootstrap import compare
from bench.fidelity.contact import rows_of
from bench.fidelity.fronts import Front, alone, nearest, sweep
from bench.fidelity.lab import Lab, Setting
from bench.fidelity.lessons import INVERSION, LORA
from bench.fidelity.plots import draw_fronts, page
from bench.fidelity.rendering import Rendering
from perfuse_toybox.sheet import Sheet

NUMBER = 3
NAME = "peers"
TITLE = "Ahead of textual inversion and of LoRA"
STATEMENT = (
    "At equal likeness, text similarity is higher than textual inversion's and than a rank-4 "
    "LoRA's on keys and values, with the same pictures, steps, batch and draws."
)
RULE = (
    "Each peer has the learning rate at which the sum of its likeness and text similarity on these "
    "very prompts is highest, which favours it. Holds if our text similarity minus the peer's at "
    "equal likeness has an interval above 0. A peer may have more likeness than we reach at all; "
    "so likeness at equal text similarity is told as well."
)


def best_rate(lab: Lab, method: str) -> tuple[float, Front, list[dict[str, Any]]]:
    """A peer's best learning rate, its point there, and all rates tried."""
    rates = lab.form.inversion_rates if method == INVERSION else lab.form.lora_rates
    points = {
        rate: sweep(lab, method, lab.lesson(method=method, rate=rate), Rendering(), "scale", [1.0])
        for rate in rates
    }

    def score(rate: float) -> float:
        likeness, text = points[rate].pair
        return float(likeness[0, 0] + text[0, 0])

    best = max(rates, key=score)
    tried = [{"rate": rate, **points[rate].record(), "score": score(rate)} for rate in rates]
    return best, points[best], tried


def measure(lab: Lab) -> dict[str, Any]:
    """Our two fronts, the LoRA's over its scale, textual inversion's one point."""
    ours = {
        lock: sweep(lab, lock, lab.lesson(), Rendering(key_lock=lock), "bias", lab.form.biases)
        for lock in ("LOCAL", "GLOBAL")
    }
    inversion_rate, inversion, inversion_tried = best_rate(lab, INVERSION)
    lora_rate, _, lora_tried = best_rate(lab, LORA)
    lesson = lab.lesson(method=LORA, rate=lora_rate)
    lora = sweep(lab, LORA, lesson, Rendering(), "scale", lab.form.scales)
    verdicts: dict[str, Any] = {}
    for lock, front in ours.items():
        for peer in (inversion, lora):
            verdicts |= compare((lock, front.pair), (peer.name, peer.pair))
    everyone = [*ours.values(), inversion, lora, alone(lab)]
    return {
        "fronts": [front.record() for front in everyone],
        "rates": {INVERSION: inversion_rate, LORA: lora_rate},
        "tried": {INVERSION: inversion_tried, LORA: lora_tried},
        "verdicts": verdicts,
    }


def draw(record: dict[str, Any]) -> Figure:
    """Fronts, and what every learning rate gave."""
    figure, (left, right) = page(2)
    draw_fronts(left, record["fronts"], knob="knob")
    for name, tried in record["tried"].items():
        for measured, style in (("likeness", "o-"), ("text", "s--")):
            right.plot(
                [one["rate"] for one in tried],
                [one[measured][0]["value"] for one in tried],
                style,
                markersize=4,
                label=f"{name}, {measured}",
            )
    right.set_xscale("log")
    right.set_xlabel("learning rate")
    right.legend(fontsize=7)
    right.set_title("the peers' learning rates", fontsize=9)
    return figure


def sheet(lab: Lab) -> Sheet:
    """The same prompts and seeds by every method."""
    bias = nearest(lab.form.biases, 0.5)
    ways: dict[str, Setting] = {
        f"LOCAL, bias {bias:g}": (lab.lesson(), Rendering(bias=bias)),
        f"GLOBAL, bias {bias:g}": (lab.lesson(), Rendering(key_lock="GLOBAL", bias=bias)),
    }
    for method in (INVERSION, LORA):
        rate, _, _ = best_rate(lab, method)
        ways[f"{method}, rate {rate:g}"] = (lab.lesson(method=method, rate=rate), Rendering())
    page_ = Sheet("Beside peers", "The same pictures learned, prompts and seeds.")
    for concept in lab.concepts[:3]:
        rows = []
        for name, setting in ways.items():
            rows += rows_of(lab, concept, [setting], [name], across=True)
        page_.section(f"<{concept.name}>, a kind of {concept.super_category}", *rows)
    return page_
