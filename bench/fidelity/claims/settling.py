"""(12) Ours: a target input that has caught up, and an edit of the concept's own words alone."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from bench.fidelity.bootstrap import Array, ahead, compare, interval, verdict
from bench.fidelity.contact import rows_of
from bench.fidelity.fronts import Front, alone, beside
from bench.fidelity.lab import Lab
from bench.fidelity.plots import draw_fronts, page
from bench.fidelity.rendering import Rendering
from perfuse_toybox.sheet import Sheet

NUMBER = 12
NAME = "settling"
TITLE = "A settled target input, and an edit from the concept's word on"
STATEMENT = (
    "Ours, not the paper's (decisions 30 and 32): the same training serves better when the target "
    "input ends at the concept's encoding and not at its running mean, and when the edit acts from "
    "the concept's word to the end of the text and not at every position."
)
RULE = (
    "Holds, for each way left out and for all that is ours (the paper's form: running mean, every "
    "position, nothing where a gate is not open), if ours minus it has an interval above 0, under "
    "LOCAL."
)
OURS = "ours"
WAYS = {
    OURS: {},
    "running mean": {"kept": "unsettled"},
    "every position": {"reach": "EVERYWHERE"},
    "the paper's form": {"kept": "unsettled", "reach": "EVERYWHERE", "remainder": "NOTHING"},
}


def measure(lab: Lab) -> dict[str, Any]:
    """Every way over the sweep; the adapters come from the same runs."""
    fronts = {name: _front(lab, name) for name in WAYS}
    ours = fronts.pop(OURS)
    verdicts: dict[str, dict[str, Any]] = {}
    for name, other in fronts.items():
        verdicts |= compare((OURS, ours.pair), (name, other.pair))
        differences = {
            "kind read right": ours.means["own/kind"].mean(0) - other.means["own/kind"].mean(0),
            "companions alike at equal likeness": ahead(_kept(ours), _kept(other)),
        }
        for what, samples in differences.items():
            found = interval(samples)
            verdicts[f"{what}, {OURS} − {name}"] = {"verdict": verdict(found), **found}
    everything = [ours, *fronts.values(), alone(lab)]
    return {"fronts": [one.record() for one in everything], "verdicts": verdicts}


def draw(record: dict[str, Any]) -> Figure:
    """Text and companions over likeness."""
    figure, (left, right) = page(2, width=5.5)
    draw_fronts(left, record["fronts"], knob="bias")
    draw_fronts(right, record["fronts"][:-1], knob="bias", across="alike")
    right.set_xlabel("companions alike")
    return figure


def sheet(lab: Lab) -> Sheet:
    """A subject, a worn thing and a seat over the sweep, every way."""
    page_ = Sheet("What settling changes", "One run, prompt and noise; four ways to render it.")
    for concept in lab.concepts[:3]:
        rows = []
        for name in WAYS:
            settings = [(lab.lesson(), _rendering(name, bias)) for bias in lab.form.biases]
            notes = [f"{name}, {bias:g}" for bias in lab.form.biases]
            rows += rows_of(lab, concept, settings, notes)
        page_.section(f"<{concept.name}>, a kind of {concept.super_category}", *rows)
    return page_


def _front(lab: Lab, name: str) -> Front:
    biases = lab.form.biases
    return beside(lab, name, biases, [(lab.lesson(), _rendering(name, bias)) for bias in biases])


def _rendering(name: str, bias: float) -> Rendering:
    return Rendering(bias=bias, **WAYS[name])


def _kept(one: Front) -> tuple[Array, Array]:
    return one.means["likeness"], one.means["alike"]
