"""(1) One adapter spans the front from likeness to editability by bias alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bench.fidelity.bootstrap import interval, verdict
from bench.fidelity.contact import rows_of
from bench.fidelity.fronts import alone, sweep
from bench.fidelity.lab import Lab
from bench.fidelity.lessons import Lesson
from bench.fidelity.plots import draw_fronts, page
from bench.fidelity.rendering import Rendering, adapter_of
from perfuse.attach import PlannedConcept, plan
from perfuse_toybox.concepts import Concept
from perfuse_toybox.sheet import Sheet

NUMBER = 1
NAME = "spanning"
TITLE = "One adapter spans likeness and editability by bias alone"
STATEMENT = "A trained concept moves along the front by the gate's bias, without retraining."
RULE = (
    "Holds if, from the bias of the highest text similarity to the lowest bias, likeness rises and "
    "text similarity falls, both with intervals that leave out 0."
)
PROMPT = "a photo of a <{}> in the forest"


def measure(lab: Lab) -> dict[str, Any]:
    """The sweep of LOCAL over bias; where the concept is on, word by word."""
    lesson = lab.lesson()
    found = sweep(lab, "LOCAL", lesson, Rendering(), "bias", lab.form.biases)
    likeness, text = found.pair
    # A front has two ends; with the lowest bias the best at both, there is none.
    best = max(int(text[:, 0].argmax()), 1)
    gained, lost = interval(likeness[0] - likeness[best]), interval(text[best] - text[0])
    return {
        "fronts": [found.record(), alone(lab).record()],
        "best": lab.form.biases[best],
        "similarity": {c.name: _similarity(lab, c, lesson) for c in lab.concepts},
        "verdicts": {
            "likeness rises": {"verdict": verdict(gained), **gained},
            "text similarity falls": {"verdict": verdict(lost), **lost},
        },
    }


def draw(record: dict[str, Any]) -> Figure:
    """The front; similarity by word."""
    figure, (left, right) = page(2)
    draw_fronts(left, record["fronts"], knob="bias")
    left.set_title("LOCAL, bias beside each point", fontsize=9)
    for name, row in record["similarity"].items():
        right.plot(row["s"], "o-", markersize=3, linewidth=0.8, label=name)
    first = next(iter(record["similarity"].values()))
    right.set_xticks(range(len(first["words"])), first["words"], rotation=60, fontsize=7)
    right.axhline(0, color="#444444", linewidth=0.6)
    right.set_ylabel("similarity s")
    right.set_title("where a concept is on", fontsize=9)
    right.legend(fontsize=6, ncols=2)
    return figure


def sheet(lab: Lab) -> Sheet:
    """Two prompts of the first concepts over the sweep."""
    settings = [(lab.lesson(), Rendering(bias=bias)) for bias in lab.form.biases]
    page_ = Sheet("One number moves a finished concept", "LOCAL; bias under each picture.")
    for concept in lab.concepts[:3]:
        rows = rows_of(lab, concept, settings, [f"bias {b:g}" for b in lab.form.biases], count=2)
        page_.section(f"<{concept.name}>, a kind of {concept.super_category}", *rows)
    return page_


def _similarity(lab: Lab, concept: Concept, lesson: Lesson) -> dict[str, Any]:
    """s at every position of a prompt, one number for all padding."""
    learned, _ = lab.learned(concept, lesson)
    planned = PlannedConcept(concept.name, adapter_of(learned, Rendering()), 0.5)
    made = plan(lab.base, PROMPT.format(concept.name), [planned])
    (tokens,) = made.chunks
    values = np.asarray(made.similarity[concept.name].tolist())
    end, slot = tokens.end_of_text, tokens.slots[0].position
    decode = lab.base.encoders[0].tokenizer.decode
    words = [
        "<concept>" if place == slot else str(decode([tokens.ids[0][place]])).strip()
        for place in range(1, end)
    ]
    s = [*values[: end + 1], values[end + 1 :].mean()]
    return {
        "words": ["start", *words, "end", "padding"],
        "s": [round(float(value), 3) for value in s],
    }
