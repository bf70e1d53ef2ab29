"""(9) Bytes of a concept against its likeness, beside the peers'."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from safetensors.torch import save
from torch import Tensor

from bench.fidelity.bootstrap import interval, verdict
from bench.fidelity.claims.peers import best_rate
from bench.fidelity.fronts import nearest, sweep
from bench.fidelity.lab import Lab
from bench.fidelity.lessons import INVERSION, LORA, OURS, Lesson
from bench.fidelity.plots import COLOURS, page
from bench.fidelity.rendering import Rendering, adapter_of
from perfuse_toybox.sheet import Sheet

NUMBER = 9
NAME = "bytes"
TITLE = "Small files for the likeness that they give"
STATEMENT = "An adapter is many times smaller than a LoRA, and its likeness is no less."
RULE = (
    "Holds if the file is smaller than the LoRA's, both in float16, and likeness at the middle of "
    "the sweep under LOCAL minus the LoRA's at full scale has an interval above 0."
)


def measure(lab: Lab) -> dict[str, Any]:
    """Bytes and likeness of every method's best."""
    bias = nearest(lab.form.biases, 0.5)
    ways: dict[str, tuple[Lesson, Rendering]] = {
        "LOCAL": (lab.lesson(), Rendering(bias=bias)),
        "TRAINED_K": (
            lab.lesson(key_lock="TRAINED_K"),
            Rendering(key_lock="TRAINED_K", bias=bias),
        ),
    }
    for method in (INVERSION, LORA):
        rate, _, _ = best_rate(lab, method)
        ways[method] = (lab.lesson(method=method, rate=rate), Rendering())
    found, likeness = {}, {}
    for name, (lesson, rendering) in ways.items():
        means = sweep(lab, name, lesson, rendering, "bias", [bias]).means
        likeness[name] = means["likeness"][0]
        size = _size(lesson, lab.learned(lab.concepts[0], lesson)[0], rendering)
        found[name] = {
            "bytes": size,
            "likeness": interval(likeness[name]),
            "text": interval(means["text"][0]),
        }
    gap = interval(likeness["LOCAL"] - likeness[LORA])
    answer = verdict(gap)
    if answer == "holds" and found["LOCAL"]["bytes"] >= found[LORA]["bytes"]:
        answer = "does not hold"
    return {
        "bias": bias,
        "ways": found,
        "verdicts": {"likeness, LOCAL − LoRA": {"verdict": answer, **gap}},
    }


def draw(record: dict[str, Any]) -> Figure:
    """Likeness over bytes."""
    figure, (axes,) = page()
    for index, (name, one) in enumerate(record["ways"].items()):
        y = one["likeness"]
        axes.errorbar(
            [one["bytes"]],
            [y["value"]],
            yerr=[[max(0, y["value"] - y["low"])], [max(0, y["high"] - y["value"])]],
            fmt="o",
            color=COLOURS[index],
            label=f"{name}, {one['bytes']:,} B",
        )
    axes.set_xscale("log")
    axes.set_xlabel("bytes of one concept's file, float16")
    axes.set_ylabel("likeness of the concept's figure")
    axes.grid(color="#eeeeee")
    axes.legend(fontsize=8)
    return figure


def sheet(lab: Lab) -> Sheet | None:
    """The pictures are those of claim 3."""
    del lab
    return None


def _size(lesson: Lesson, learned: dict[str, Tensor], rendering: Rendering) -> int:
    """Of the file that the method would keep, float16 safetensors."""
    if lesson.method == OURS:
        return len(adapter_of(learned, rendering).to_bytes("float16"))
    return len(save(learned))
