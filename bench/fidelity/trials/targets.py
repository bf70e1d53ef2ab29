"""Where a finished concept's target input lies."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.fidelity.lessons import Lesson, latents_of
from bench.fidelity.trials.learning import State
from perfuse import method
from perfuse.attach import (
    BaseModel,
    Prompt,
    encode_tokens,
    projected_by_values,
    tokenise,
)
from perfuse_toybox.concepts import Concept
from perfuse_trainer.learning.draws import Draws
from perfuse_trainer.learning.learning import Learning
from perfuse_trainer.learning.settling import settled
from perfuse_trainer.learning.templates import TEMPLATES

LATER = (
    "a photo of a dog and a {}",
    "a photo of a bear with a {}",
    "a picture of a rabbit wearing a {}",
    "an image of an owl on a {}",
)
"""Prompts that name the concept after another figure."""


def at_target(
    base: BaseModel, concept: Concept, lesson: Lesson, state: State, target: str
) -> State:
    """A state as learned, with its target input where a `Way` wants it.

    Args:
        base: The base model.
        concept: Whose state it is.
        lesson: How it was learned.
        state: With training's running mean.
        target: `Way.target`.
    """
    if target == "RUNNING_MEAN":
        return state
    if target == "CARRIED":
        return _carried(base, concept, state)
    settings = lesson.settings(concept)
    draws = Draws(base, latents_of(base, concept, lesson), settings)
    learning = Learning(base, settings, draws.step(0).templates)
    whole = state | {"key_output": learning.key_output}
    return {name: value for name, value in settled(base, learning, whole).items() if name in state}


@torch.no_grad()
def _carried(base: BaseModel, concept: Concept, state: State) -> State:
    """Templates and prompts that name it later weigh the same."""
    name, inputs, supers = concept.name, [], []
    for some in (TEMPLATES, LATER):
        own = [Prompt.parse(text.format(f"<{name}>"), [name]) for text in some]
        plain = [prompt.with_super_categories({name: concept.super_category}) for prompt in own]
        tokens, plain_tokens = ([tokenise(base, one) for one in each] for each in (own, plain))
        words = [{name: words_of(state)}] * len(own)
        inputs.append(encode_tokens(base, tokens, words).at_slots(name).mean(0))
        supers.append(encode_tokens(base, plain_tokens).at_slots(name).mean(0))
    before, after = state["target_input"], torch.stack(inputs).mean(0)
    similarity = method.similarities(after[None], before[None], base.inverse_covariance)[0, 0]
    moved = projected_by_values(base, after - similarity * before)
    return state | {
        "target_input": after,
        "super_category_encoding": torch.stack(supers).mean(0),
        "value_output": state["value_output"] + moved,
    }


def words_of(state: State) -> dict[str, Tensor]:
    """The word embeddings, by text encoder."""
    return {
        part.removeprefix("embedding."): value
        for part, value in state.items()
        if part.startswith("embedding.")
    }
