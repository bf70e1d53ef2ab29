"""Learning one concept in a trial's way, on the product's draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from bench.fidelity.lessons import Lesson, latents_of
from bench.fidelity.trials.way import Learnt, Way
from perfuse import method
from perfuse.adapter.tensors import Adapter
from perfuse.attach import (
    BaseModel,
    Conditioning,
    Tokens,
    attach,
    denoise,
    edited_projections,
    encode_tokens,
    split_outputs,
    strength,
)
from perfuse_toybox.concepts import Concept
from perfuse_trainer.learning.draws import Batch, Draws
from perfuse_trainer.learning.learning import Learning

State = dict[str, Tensor]
"""`target_input`, `super_category_encoding`, `value_output` `[Σ d_l]` or `[M, Σ d_l]`, and
`embedding.{encoder}`."""


States = Callable[[Concept, Way], State]
"""What was learned of a concept in a way."""


def state_of(adapter: Adapter) -> State:
    """An adapter's tensors by the names of a trial's."""
    words = {f"embedding.{name}": word for name, word in adapter.embeddings.items()}
    return words | {
        "target_input": adapter.target_input,
        "super_category_encoding": adapter.super_category_encoding,
        "value_output": adapter.value_output,
    }


def learn(
    base: BaseModel,
    concept: Concept,
    lesson: Lesson,
    learnt: Learnt,
    on_step: Callable[[int], None] = lambda done: None,
) -> State:
    """The state at the end; with the defaults of `Learnt` that of the product's `TrainingLoop`."""
    settings = replace(
        lesson.settings(concept),
        decay=learnt.decay,
        embedding_rate=learnt.embedding_rate,
        steps=learnt.steps or lesson.steps,
        output_rate=learnt.output_rate or lesson.settings(concept).output_rate,
    )
    draws = Draws(base, latents_of(base, concept, lesson), settings)
    learning = Learning(base, settings, draws.step(0).templates)
    outputs: Tensor = learning.value_output
    if learnt.outputs == "POSITION":
        outputs = nn.Parameter(outputs.detach().repeat(base.positions, 1))
    words = list(learning.embeddings.values())
    optimiser = torch.optim.AdamW(
        [
            {"params": [outputs], "lr": settings.output_rate},
            {"params": words, "lr": settings.embedding_rate},
        ]
    )
    alphas = base.pipeline.scheduler.alphas_cumprod
    with attach(base.unet):
        for step in range(settings.steps):
            batch = draws.step(step)
            conditioning, target_input = _conditioned(base, learning, outputs, batch, learnt)
            _loss(base, alphas, batch, conditioning).backward()
            optimiser.step()
            optimiser.zero_grad()
            learning.target_input = target_input.detach()
            on_step(step + 1)
    state = learning.state() | {"value_output": outputs.detach().clone()}
    state.pop("key_output")
    return state


@torch.no_grad()
def loss_of(base: BaseModel, learning: Learning, batch: Batch, learnt: Learnt) -> float:
    """One batch's loss."""
    with attach(base.unet):
        conditioning, _ = _conditioned(base, learning, learning.value_output, batch, learnt)
        return float(_loss(base, base.pipeline.scheduler.alphas_cumprod, batch, conditioning))


def gradients_of(base: BaseModel, learning: Learning, batch: Batch, learnt: Learnt) -> Tensor:
    """The gradient of one batch's loss by the word embeddings, all in one vector."""
    with attach(base.unet):
        conditioning, _ = _conditioned(base, learning, learning.value_output, batch, learnt)
        loss = _loss(base, base.pipeline.scheduler.alphas_cumprod, batch, conditioning)
        found = torch.autograd.grad(loss, list(learning.embeddings.values()))
    return torch.cat([one.flatten() for one in found])


def edited_by_position(
    base: BaseModel, values: tuple[Tensor, ...], gate: Tensor, outputs: Tensor
) -> tuple[Tensor, ...]:
    """Values with a target output for each position added to what is left of the encoding.

    Args:
        base: The base model.
        values: Per layer `[..., M, d_l]`, edited with outputs of zero.
        gate: σ `[..., M, 1]`.
        outputs: o* `[M, Σ d_l]`.
    """
    return tuple(
        value + gate * output
        for value, output in zip(values, split_outputs(base, outputs), strict=True)
    )


def acting(places: str, tokens: Tokens, length: int) -> Tensor:
    """1 at the positions that a way edits (`Way.places`), 0 elsewhere, `[M]`."""
    position = torch.arange(length)
    start, padding = position == 0, position > tokens.end_of_text
    (slot,) = tokens.slots
    left_out = {
        "NAMED": (position < slot.position) | padding,
        "ALL": torch.zeros(length, dtype=torch.bool),
        "NOT_START": start,
        "WORDS": start | padding,
        "CONCEPT": position != slot.position,
    }[places]
    return (~left_out).float()


def copied(tokens: Tokens, length: int, copies: int) -> Tensor:
    """Which position each is taken from, `[M]`: the last ones copy the concept's word."""
    (slot,) = tokens.slots
    source = torch.arange(length)
    assert length - copies > tokens.end_of_text
    source[length - copies + 1 :] = slot.position
    return source


def _conditioned(
    base: BaseModel, learning: Learning, outputs: Tensor, batch: Batch, learnt: Learnt
) -> tuple[Conditioning, Tensor]:
    """Keys and values of the batch's rows, and the target input with which they were edited."""
    distinct, share = torch.unique(batch.templates, return_inverse=True)
    prompts = [learning.prompts[index] for index in distinct.tolist()]
    encodings = encode_tokens(base, prompts, [learning.supplied] * len(prompts)).encodings
    slots = [prompt.slots[0].position for prompt in prompts]
    now = encodings[torch.arange(len(prompts)), slots][share].mean(0)
    settings = learning.settings
    target = method.running_mean(learning.target_input, now.detach(), settings.decay)
    if learnt.gradient == "WHOLE":
        target = target + now - now.detach()
    on = strength(base, encodings, target[None], settings.bias, settings.temperature)
    there = torch.stack([acting(learnt.places, one, encodings.shape[-2]) for one in prompts])
    on = replace(on, gate=on.gate * there[..., None], coordinates=on.coordinates * there[..., None])
    by_position = outputs.ndim == 2
    given = outputs.new_zeros(1, outputs.shape[-1]) if by_position else outputs[None]
    keys, values = edited_projections(base, encodings, on, given, learning.key_output[None])
    if by_position:
        values = edited_by_position(base, values, on.gate, outputs)
    sources = torch.stack([copied(one, encodings.shape[-2], learnt.copies) for one in prompts])
    rows = torch.arange(len(prompts))[:, None]
    conditioning = Conditioning(
        keys=tuple(key[rows, sources].index_select(0, share) for key in keys),
        values=tuple(value[rows, sources].index_select(0, share) for value in values),
        encodings=encodings.index_select(0, share),
        pooled=None,
    )
    return conditioning, target


def _loss(base: BaseModel, alphas: Tensor, batch: Batch, conditioning: Conditioning) -> Tensor:
    scale = alphas[batch.timesteps][:, None, None, None]
    noisy = scale.sqrt() * batch.latents + (1 - scale).sqrt() * batch.noise
    predicted = denoise(base, noisy, batch.timesteps, conditioning)
    target = method.diffusion_target(
        base.prediction_type, batch.latents, batch.noise, alphas, batch.timesteps
    )
    return method.masked_loss(predicted, target, None).mean()
