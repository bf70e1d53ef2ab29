"""(11) Ours: a concept leaves its companions as they are, where a LoRA changes them too."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bench.fidelity.bootstrap import Array, ahead, interval, verdict
from bench.fidelity.claims.peers import best_rate
from bench.fidelity.companions import MEASURES, moved
from bench.fidelity.contact import rows_of
from bench.fidelity.curriculum import prompts
from bench.fidelity.fronts import Front, beside, nearest
from bench.fidelity.lab import Lab, Setting
from bench.fidelity.lessons import INVERSION, LORA
from bench.fidelity.plots import draw_bars, draw_fronts, page
from bench.fidelity.rendering import Rendering, plans
from perfuse.attach import Prompt, tokenise
from perfuse_toybox.sheet import Sheet

NUMBER = 11
NAME = "company"
TITLE = "A concept leaves its companions as they are"
STATEMENT = (
    "Ours, not the paper's: at equal likeness a concept under LOCAL or GLOBAL changes the figures "
    "beside it less than a LoRA or textual inversion does, and less of its own look goes over."
)
RULE = (
    "Companions are compared with those in the picture that the base alone makes of the same "
    "prompt and noise. *Alike* is the likeness of the two, as of concepts; a companion is "
    "*unchanged* if its kind, colour and pattern are read the same; it took the concept's look if "
    "it has one of the concept's colours, or its pattern, and has not there. Holds, for each "
    "comparison with the LoRA, if the difference at equal likeness has an interval above 0; with "
    "textual inversion, which is a single point, at the bias of the nearest likeness."
)
SAID = {"alike": "alike", "unchanged": "unchanged", "own look kept to itself": "taken"}
"""What a verdict says, and the measure behind it."""


def measure(lab: Lab) -> dict[str, Any]:
    """Our two sweeps, the LoRA's with a weaker scale more, textual inversion, the painter."""
    fronts = {
        name: beside(lab, name, values, settings)
        for name, (_, values, settings) in ways(lab).items()
    }
    verdicts: dict[str, Any] = {}
    for lock in ("LOCAL", "GLOBAL"):
        for what, measured in SAID.items():
            ours, theirs = (_kept(fronts[name], measured) for name in (lock, LORA))
            found = interval(ahead(ours, theirs))
            verdicts[f"{what}, {lock} − {LORA}"] = {"verdict": verdict(found), **found}
    single = fronts[INVERSION]
    for lock in ("LOCAL", "GLOBAL"):
        at = _nearest(fronts[lock], single)
        gap = _kept(fronts[lock], "alike")[1][at] - _kept(single, "alike")[1][0]
        name = f"alike, {lock} at {fronts[lock].knobs[at]:g} − {INVERSION}"
        found = interval(gap)
        verdicts[name] = {"verdict": verdict(found), **found}
    boot, read = lab.bootstrap(), lab.beside([None])
    bars = {"the painter": {name: interval(boot.means(read[name][0])) for name in MEASURES}}
    bars |= {name: _at_middle(lab, found) for name, found in fronts.items()}
    return {
        "fronts": [one.record() for one in fronts.values()],
        "ways": bars,
        "moved": _moved(lab),
        "verdicts": verdicts,
    }


def ways(lab: Lab) -> dict[str, tuple[str, tuple[float, ...], list[Setting]]]:
    """Name → knob, its values, a setting for each."""
    biases, scales = lab.form.biases, (min(lab.form.scales) / 2, *lab.form.scales)
    found: dict[str, tuple[str, tuple[float, ...], list[Setting]]] = {
        lock: (
            "bias",
            biases,
            [(lab.lesson(), Rendering(key_lock=lock, bias=bias)) for bias in biases],
        )
        for lock in ("LOCAL", "GLOBAL")
    }
    lora, inversion = (lab.lesson(method=m, rate=best_rate(lab, m)[0]) for m in (LORA, INVERSION))
    found[LORA] = ("scale", scales, [(lora, Rendering(scale=scale)) for scale in scales])
    found[INVERSION] = ("", (1.0,), [(inversion, Rendering())])
    return found


def draw(record: dict[str, Any]) -> Figure:
    """Likeness over the companions unchanged and over the share that took the concept's look."""
    figure, (left, middle, right) = page(3, width=5.0)
    draw_fronts(left, record["fronts"], knob="knob", across="unchanged")
    left.set_xlabel("companions unchanged")
    draw_fronts(middle, record["fronts"], knob="knob", across="taken")
    middle.set_xlabel("companions that took the concept's look")
    names = list(record["ways"])
    label = "companion's likeness to itself, at the settings below"
    draw_bars(right, names, [record["ways"][name]["alike"] for name in names], label)
    return figure


def sheet(lab: Lab) -> Sheet:
    """The same prompts and noise without the concept, by our locks and by the peers."""
    page_ = Sheet("What stands beside a concept", "The same prompts and noise; first no concept.")
    shown: dict[str, Setting] = {"no concept": (None, Rendering())}
    for name, (knob, values, settings) in ways(lab).items():
        at = _middle(values, knob)
        shown[f"{name}, {knob} {values[at]:g}" if knob else name] = settings[at]
    for concept in lab.concepts[:4]:
        rows = []
        for name, setting in shown.items():
            rows += rows_of(lab, concept, [setting], [name], across=True)
        page_.section(f"<{concept.name}>, a kind of {concept.super_category}", *rows)
    return page_


def _kept(one: Front, measured: str) -> tuple[Array, Array]:
    """Likeness, and a measure of companions of which more is better."""
    values = one.means[measured]
    return one.means["likeness"], 1 - values if measured == "taken" else values


def _nearest(ours: Front, single: Front) -> int:
    """Our point of the nearest likeness, of those from the highest likeness on."""
    likeness = ours.means["likeness"][:, 0]
    best = int(likeness.argmax())
    return best + int(np.abs(likeness[best:] - single.means["likeness"][0, 0]).argmin())


def _middle(values: tuple[float, ...], knob: str) -> int:
    """Where a way is shown: ours at a bias of 0.5, a peer at full scale."""
    return values.index(nearest(values, 0.5 if knob == "bias" else 1.0))


def _at_middle(lab: Lab, found: Front) -> dict[str, Any]:
    at = _middle(found.knobs, "bias" if found.knobs == lab.form.biases else "scale")
    return {name: interval(found.means[name][at]) for name in MEASURES}


def _moved(lab: Lab) -> dict[str, dict[str, dict[str, float]]]:
    """Way → keys and values → place of a prompt → how far they move, over concepts."""
    found = {}
    for name, (knob, values, settings) in ways(lab).items():
        lesson, rendering = settings[_middle(values, knob)]
        assert lesson is not None
        each = []
        for concept in lab.concepts:
            asked = prompts(concept, lab.form.prompts)
            plain = plans(lab.base, None, {}, asked, Rendering())
            learned = {concept.name: lab.learned(concept, lesson)[0]}
            ours = plans(lab.base, lesson.method, learned, asked, rendering)
            each.append(moved(ours, plain, [_slot(lab, concept.name, one.prompt) for one in asked]))
        found[name] = {
            part: {
                place: round(float(np.mean([one[part][place] for one in each])), 4)
                for place in each[0][part]
            }
            for part in ("keys", "values")
        }
    return found


def _slot(lab: Lab, name: str, prompt: str) -> int:
    return tokenise(lab.base, Prompt.parse(prompt, [name])).slots[0].position
