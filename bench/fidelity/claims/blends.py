"""(4) Concepts trained apart meet in one picture, against averaging LoRAs."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from bench.fidelity.bootstrap import Bootstrap, interval, verdict
from bench.fidelity.claims.peers import best_rate
from bench.fidelity.contact import blend_rows
from bench.fidelity.fronts import nearest
from bench.fidelity.lab import Lab, Setting, stacked
from bench.fidelity.lessons import LORA
from bench.fidelity.plots import draw_bars, page
from bench.fidelity.rendering import Rendering
from perfuse_toybox.sheet import Sheet

NUMBER = 4
NAME = "blends"
TITLE = "Concepts trained apart meet in one picture"
STATEMENT = (
    "Two and three concepts, each trained alone, are all present in one picture, each with its own "
    "identity, better than with averaged LoRAs."
)
RULE = (
    "The likeness of a blend is that of its least alike concept. Holds if ours under LOCAL or "
    "GLOBAL minus the averaged LoRAs' has an interval above 0. LoRAs are also added at full "
    "scale, the other common way. Intervals draw blends, some of which share a concept."
)
MEASURES = ("likeness", "text", "present", "swapped", "own/primary", "own/pattern", "scene")


def ways(lab: Lab, count: int) -> dict[str, Setting]:
    """How `count` concepts are blended: ours at two biases under two locks, and LoRAs."""
    rate, _, _ = best_rate(lab, LORA)
    lora = lab.lesson(method=LORA, rate=rate)
    found: dict[str, Setting] = {}
    for lock in ("LOCAL", "GLOBAL"):
        for wanted in (0.5, 0.8):
            bias = nearest(lab.form.biases, wanted)
            found[f"{lock}, bias {bias:g}"] = (lab.lesson(), Rendering(key_lock=lock, bias=bias))
    found["LoRAs averaged"] = (lora, Rendering(scale=1 / count))
    found["LoRAs added"] = (lora, Rendering(scale=1.0))
    found["base alone"] = (None, Rendering())
    return found


def measure(lab: Lab) -> dict[str, Any]:
    """Every blend of the form in every scene."""
    by_blend = [(blend, ways(lab, len(blend))) for blend in lab.blends]
    for blend, found_ways in by_blend:
        lab.learn((c, lesson) for lesson, _ in found_ways.values() if lesson for c in blend)
    names = list(by_blend[0][1])
    judged = [[lab.blended(blend, found[name]) for blend, found in by_blend] for name in names]
    lab.note(f"{len(names)} ways to blend {len(by_blend)} times")
    arrays = stacked(judged)
    boot = Bootstrap(*arrays["likeness"].shape[1:])
    means = {name: boot.means(arrays[name]) for name in MEASURES}
    averaged = names.index("LoRAs averaged")
    verdicts = {}
    for index, name in enumerate(names):
        if name.startswith(("LOCAL", "GLOBAL")):
            found = interval(means["likeness"][index] - means["likeness"][averaged])
            verdicts[f"likeness, {name} − averaged"] = {"verdict": verdict(found), **found}
    return {
        "blends": [[concept.name for concept in blend] for blend in lab.blends],
        "ways": {
            name: {measured: interval(means[measured][index]) for measured in MEASURES}
            for index, name in enumerate(names)
        },
        "verdicts": verdicts,
    }


def draw(record: dict[str, Any]) -> Figure:
    """Likeness of the least alike, presence and swaps."""
    figure, axes = page(4, width=3.6, height=3.4)
    names = list(record["ways"])
    shown = {
        "likeness": "likeness of the least alike",
        "text": "text similarity",
        "present": "share with all concepts present",
        "swapped": "share with a colour swapped",
    }
    for one, (measured, label) in zip(axes, shown.items(), strict=True):
        draw_bars(one, names, [record["ways"][name][measured] for name in names], label)
    for one in axes[1:]:
        one.set_yticklabels([])
    return figure


def sheet(lab: Lab) -> Sheet:
    """Every blend in a few scenes, way by way."""
    page_ = Sheet("Blends", "Concepts trained apart; the first row is what the painter makes.")
    for blend in lab.blends[:3]:
        rows = blend_rows(lab, blend, ways(lab, len(blend)))
        page_.section(" + ".join(f"<{concept.name}>" for concept in blend), *rows)
    return page_
