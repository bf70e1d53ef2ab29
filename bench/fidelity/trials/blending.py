"""Concepts that a trial learned, blended as the product does it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from bench.fidelity.bootstrap import Bootstrap, interval
from bench.fidelity.claims.blends import MEASURES
from bench.fidelity.curriculum import blend_prompts
from bench.fidelity.judge import Judged, judge
from bench.fidelity.lab import Lab, stacked
from bench.fidelity.lessons import pixels_of
from bench.fidelity.rendering import Rendering, adapter_of, render
from bench.fidelity.trials.learning import State, States
from bench.fidelity.trials.questions import Question
from bench.fidelity.trials.targets import words_of
from bench.fidelity.trials.way import Way
from perfuse.adapter.tensors import Adapter
from perfuse.attach import PlannedConcept, plan
from perfuse.method import KeyLock
from perfuse_toybox.concepts import Concept


def blends(
    lab: Lab, state_of: States, question: Question, biases: tuple[float, ...]
) -> dict[str, Any]:
    """Way → bias → what claim 4 measures of all blends of the form; and less the first way's.

    Args:
        lab: Gives form, base and evaluator.
        state_of: What was learned of a concept in a way.
        question: Those of its ways are left out that the product could not render.
        biases: Of the sweep.
    """
    ways = {name: way for name, way in question.ways.items() if _is_rendered_by_the_product(way)}
    arrays = {
        name: stacked(
            [[_blended(lab, state_of, way, bias, b) for b in lab.blends] for bias in biases]
        )
        for name, way in ways.items()
    }
    first, *others = arrays
    boot = Bootstrap(*arrays[first]["likeness"].shape[1:])
    means = {name: {one: boot.means(arrays[name][one]) for one in MEASURES} for name in arrays}
    return {
        "asks": question.asks,
        "biases": list(biases),
        "blends": [[concept.name for concept in blend] for blend in lab.blends],
        "ways": {
            name: {one: [interval(row) for row in np.atleast_2d(found[one])] for one in MEASURES}
            for name, found in means.items()
        },
        "against": {
            name: {
                one: interval((means[name][one] - means[first][one]).mean(0)) for one in MEASURES
            }
            for name in others
        },
    }


def _is_rendered_by_the_product(way: Way) -> bool:
    own = Way(learnt=way.learnt, key_lock=way.key_lock, temperature=way.temperature)
    return way == own and (way.learnt.outputs, way.learnt.counted) == ("PROJECTION", "WORDS")


def _blended(
    lab: Lab, state_of: States, way: Way, bias: float, blend: tuple[Concept, ...]
) -> Judged:
    form, asked = lab.form, blend_prompts(blend, lab.form.blend_scenes)
    parts = {
        "lessons": [lab.lesson().parts(lab.base, concept) for concept in blend],
        "way": way.parts(),
        "bias": bias,
        "asked": [one.prompt for one in asked],
        "seeds": list(form.seeds),
        "steps": form.denoising,
    }

    def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
        concepts = {
            one.name: PlannedConcept(
                one.name, _adapter(lab, one, state_of(one, way)), bias, way.temperature
            )
            for one in blend
        }
        lock = KeyLock(way.key_lock)
        plans = [
            plan(lab.base, one.prompt, [concepts[name] for name in one.figures], key_lock=lock)
            for one in asked
        ]
        pixels = render(lab.base, plans, form.seeds, form.denoising)
        examples = {concept.name: pixels_of(concept, form.pictures) for concept in blend}
        return {"pixels": pixels}, judge(lab.evaluator, asked, pixels, examples)

    return lab.store.ensure("trial blend", parts, make)[1]


def _adapter(lab: Lab, concept: Concept, state: State) -> Adapter:
    """An adapter of the product with a trial's tensors."""
    own = adapter_of(lab.learned(concept, lab.lesson())[0], Rendering(dtype="float32"))
    return replace(
        own,
        target_input=state["target_input"],
        super_category_encoding=state["super_category_encoding"],
        embeddings=words_of(state),
        value_output=state["value_output"],
    )
