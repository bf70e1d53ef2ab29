"""Measuring the ways of a question, and comparing each with the first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from bench.fidelity.bootstrap import Array, ahead, interval
from bench.fidelity.companions import compare
from bench.fidelity.curriculum import prompts
from bench.fidelity.judge import Judged, judge
from bench.fidelity.lab import Lab, stacked
from bench.fidelity.lessons import pixels_of
from bench.fidelity.rendering import Rendering, adapter_of, render
from bench.fidelity.trials import readings
from bench.fidelity.trials.blending import blends
from bench.fidelity.trials.covariances import with_covariance
from bench.fidelity.trials.fits import fits
from bench.fidelity.trials.learning import State, learn, state_of
from bench.fidelity.trials.planning import planned
from bench.fidelity.trials.questions import BIASES, Question
from bench.fidelity.trials.targets import at_target
from bench.fidelity.trials.way import Learnt, Way
from perfuse_toybox.concepts import Concept

CAPTIONS = 6000
"""Read for a C of a trial's own."""

MEASURES = ("likeness", "text", "own/kind", "others", "alike", "unchanged", "taken")


class Trial:
    """Learns, renders and judges in any way; keeps what is finished in the lab's store.

    Args:
        lab: Gives form, base, evaluator, lessons of the product's own way, and the store.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab, self._boot = lab, lab.bootstrap()

    def ask(self, question: Question) -> dict[str, Any]:
        """Every way's sweep, and its differences from the first way."""
        arrays = {}
        for name, way in question.ways.items():
            self._lab.note(f"{question.name}: {name}")
            rows = [[self._judged(c, way, bias) for c in self._lab.concepts] for bias in BIASES]
            arrays[name] = stacked(rows)
        means = {
            name: {one: self._boot.means(found[one]) for one in MEASURES}
            for name, found in arrays.items()
        }
        first, *others = means
        return {
            "asks": question.asks,
            "biases": list(BIASES),
            "ways": {
                name: {one: [interval(row) for row in np.atleast_2d(found[one])] for one in found}
                for name, found in means.items()
            },
            "against": {name: differences(means[name], means[first]) for name in others},
        }

    def blend(self, question: Question) -> dict[str, Any]:
        """The ways in blends of several concepts, as `blends`."""
        return blends(self._lab, self._state, question, BIASES)

    def readings(self) -> dict[str, Any]:
        """`readings.read` of what the product's own way learned, and `fits`."""

        def of(way: Way) -> Callable[[Concept], State]:
            return lambda concept: self._state(concept, way)

        learned = Way(target="RUNNING_MEAN")
        own = readings.read(self._lab, of(Way()), of(learned), CAPTIONS)
        return own | {"fits": fits(self._lab, self._state)}

    def _judged(self, concept: Concept, way: Way, bias: float) -> Judged:
        """One number for each picture of the form's prompts."""
        lab, form = self._lab, self._lab.form
        if way == Way(key_lock=way.key_lock):
            # The product's own: the claims have rendered it.
            setting = (lab.lesson(), Rendering(key_lock=way.key_lock, bias=bias))
            return lab.judged(concept, setting) | lab.beside_one(concept, setting)
        asked = prompts(concept, form.prompts)
        base = with_covariance(lab.base, way.learnt.counted, CAPTIONS)
        parts = {
            "lesson": lab.lesson().parts(lab.base, concept),
            "way": way.parts(),
            "bias": bias,
            "asked": [one.prompt for one in asked],
            "seeds": list(form.seeds),
            "steps": form.denoising,
            "captions": CAPTIONS,
        }

        def make() -> tuple[dict[str, Tensor], dict[str, Any]]:
            state = self._state(concept, way)
            plans = [planned(base, one, state, way, bias) for one in asked]
            pixels = render(base, plans, form.seeds, form.denoising)
            examples = {concept.name: pixels_of(concept, form.pictures)}
            plain = lab.pictures((concept,), (None, Rendering()))
            found = judge(lab.evaluator, asked, pixels, examples)
            return {"pixels": pixels}, found | compare(lab.evaluator, asked, pixels, plain)

        return lab.store.ensure("trial", parts, make)[1]

    def _state(self, concept: Concept, way: Way) -> State:
        """What was learned; in the product's own way it is the lesson of the claims."""
        lab, lesson, learnt = self._lab, self._lab.lesson(), way.learnt
        base = with_covariance(lab.base, learnt.counted, CAPTIONS)
        if learnt == Learnt():
            rendering = Rendering(kept="unsettled", dtype="float32")
            state = state_of(adapter_of(lab.learned(concept, lesson)[0], rendering))
        else:
            parts = {
                "lesson": lesson.parts(lab.base, concept),
                "learnt": Way(learnt).parts()["learnt"],
                "captions": CAPTIONS,
            }

            def make() -> tuple[State, dict[str, Any]]:
                lab.note(f"learning {concept.name}: {learnt}")
                return learn(base, concept, lesson, learnt), {}

            state = lab.store.ensure("trial lesson", parts, make)[0]
        return at_target(base, concept, lesson, state, way.target)


def differences(ours: Mapping[str, Array], first: Mapping[str, Array]) -> dict[str, Any]:
    """Way minus first way: measures over the whole sweep, and the fronts both ways."""
    found = {one: interval((ours[one] - first[one]).mean(0)) for one in MEASURES}

    def pair(means: Mapping[str, Array], a: str, b: str) -> tuple[Array, Array]:
        return means[a], means[b]

    for name, a, b in (
        ("text at equal likeness", "likeness", "text"),
        ("likeness at equal text", "text", "likeness"),
        ("companions alike at equal likeness", "likeness", "alike"),
    ):
        found[name] = interval(ahead(pair(ours, a, b), pair(first, a, b)))
    return found
