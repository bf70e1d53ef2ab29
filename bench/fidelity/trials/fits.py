"""How well what was learned fits its own pictures, with the keys as they are and otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from bench.fidelity.lab import Lab
from bench.fidelity.lessons import latents_of
from bench.fidelity.rendering import Rendering, adapter_of
from bench.fidelity.trials.learning import State, States, loss_of, state_of
from bench.fidelity.trials.way import Learnt, Way
from perfuse.attach import BaseModel
from perfuse_toybox.concepts import Concept
from perfuse_trainer.learning.draws import Batch, Draws
from perfuse_trainer.learning.learning import Learning

BATCHES = 6
COPIES = (4, 16)


def fits(lab: Lab, state_of: States) -> dict[str, dict[str, float]]:
    """Concept → what was learned → the training loss, over batches that no lesson had.

    `TRAINED_K, its keys locked` and `TRAINED_K, its keys alone` are parts of what was learned under
    TRAINED_K, the rest as before the first step; `LOCAL, n times` learned with the concept's word
    n times among keys and values.
    """
    found, lesson = {}, lab.lesson()
    for concept in lab.concepts:
        settings = lesson.settings(concept)
        draws = Draws(lab.base, latents_of(lab.base, concept, lesson), settings)
        learning = Learning(lab.base, settings, draws.step(0).templates)
        start = learning.state()
        batches = [draws.step(lesson.steps + number) for number in range(BATCHES)]
        loss = partial(_loss, lab.base, learning, batches, start)
        trained = _trained(lab, concept)
        keys = {"key_output": trained["key_output"]}
        found[concept.name] = {
            "nothing": loss({}),
            "LOCAL": loss(state_of(concept, Way(target="RUNNING_MEAN"))),
            "TRAINED_K": loss(trained),
            "TRAINED_K, its keys locked": loss(trained | {"key_output": start["key_output"]}),
            "TRAINED_K, its keys alone": loss(keys),
        }
        for copies in COPIES:
            way = Way(target="RUNNING_MEAN", learnt=Learnt(copies=copies))
            found[concept.name][f"LOCAL, {copies} times"] = loss(state_of(concept, way), copies)
    return found


def _trained(lab: Lab, concept: Concept) -> State:
    """TRAINED_K's tensors as training left them."""
    learned, _ = lab.learned(concept, lab.lesson(key_lock="TRAINED_K"))
    adapter = adapter_of(learned, Rendering(kept="unsettled", dtype="float32"))
    assert adapter.key_output is not None
    return state_of(adapter) | {"key_output": adapter.key_output}


def _loss(
    base: BaseModel,
    learning: Learning,
    batches: Sequence[Batch],
    start: State,
    state: State,
    copies: int = 1,
) -> float:
    """The mean over batches of a state, what it lacks as before the first step."""
    learning.load(start | state)
    losses = [loss_of(base, learning, one, Learnt(copies=copies)) for one in batches]
    return round(float(np.mean(losses)), 4)
