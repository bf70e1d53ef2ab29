"""How concepts condition the denoiser while they are still being learned.

Any number of runs go through the text encoder, the edit and the projections together: prompts are
rows, and each row brings its run's word embeddings, target input and target outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from perfuse import method
from perfuse.attach import (
    BaseModel,
    Conditioning,
    Tokens,
    edited_projections,
    encode_tokens,
    strength,
)
from perfuse.method.operands import result_dtype
from perfuse_trainer.learning.learning import Learning


class Conditioned(NamedTuple):
    """A batch over several concepts in the making.

    Attributes:
        conditioning: Keys and values of all rows, differentiable in what is learned.
        target_inputs: i* `[d]` of each concept, with which they were edited.
    """

    conditioning: Conditioning
    target_inputs: tuple[Tensor, ...]


def condition(
    base: BaseModel, parts: Sequence[tuple[Learning, Tensor]], *, follow: bool
) -> Conditioned:
    """Keys and values for rows with the given templates, concept by concept.

    Each distinct template of a concept is encoded, edited and projected once and its rows share
    it, so that the text encoder's cost does not grow with the batch. Nothing of what is learned
    is changed.

    Args:
        base: The base model, prepared.
        parts: Concepts, each with the templates of its rows: `[B]` indices into `TEMPLATES`.
        follow: Let the target inputs follow these rows (training; not validation).
    """
    prompts: list[Tokens] = []
    embeddings, slots, owners, shares, gates = [], [], [], [], []
    for owner, (learning, templates) in enumerate(parts):
        distinct, share = torch.unique(templates, return_inverse=True)
        shares.append(share + len(prompts))
        chosen = [learning.prompts[index] for index in distinct.tolist()]
        prompts += chosen
        embeddings += [learning.supplied] * len(chosen)
        slots += [prompt.slots[0].position for prompt in chosen]
        owners += [owner] * len(chosen)
        gates += [(learning.settings.bias, learning.settings.temperature)] * len(chosen)
    device = base.device
    encoding = encode_tokens(base, prompts, embeddings)
    encodings = encoding.encodings
    inputs = tuple(learning.target_input for learning, _ in parts)
    if follow:
        at_slots = encodings.detach()[torch.arange(len(prompts)), slots]
        at_slots = at_slots.to(result_dtype(at_slots))
        inputs = tuple(
            method.running_mean(
                learning.target_input,
                at_slots[share.to(device)].mean(0),
                learning.settings.decay,
            )
            for (learning, _), share in zip(parts, shares, strict=True)
        )
    owner_of = torch.tensor(owners, device=device)
    own = torch.stack(inputs).index_select(0, owner_of)[:, None]
    on = strength(base, encodings, own, *_gate_parameters(gates, own))
    keys, values = edited_projections(
        base,
        encodings,
        on,
        _stacked([learning.value_output for learning, _ in parts], owner_of),
        _stacked([learning.key_output for learning, _ in parts], owner_of),
    )
    # index_select, not indexing: the gradient of key[rows] adds up in an order of the threads'.
    rows = torch.cat(shares).to(device)
    conditioning = Conditioning(
        keys=tuple(key.index_select(0, rows) for key in keys),
        values=tuple(value.index_select(0, rows) for value in values),
        encodings=encodings.index_select(0, rows),
        pooled=None if encoding.pooled is None else encoding.pooled.index_select(0, rows),
    )
    return Conditioned(conditioning, inputs)


def _gate_parameters(
    gates: Sequence[tuple[float, float]], like: Tensor
) -> tuple[float | Tensor, float | Tensor]:
    """Bias and temperature: numbers where all runs agree, since a tensor waits for the device."""
    if len(set(gates)) == 1:
        return gates[0]
    bias, temperature = like.new_tensor(gates)[:, :, None, None].unbind(1)
    return bias, temperature


def _stacked(outputs: Sequence[Tensor], owner_of: Tensor) -> Tensor:
    """Target outputs for each prompt, [P, 1, Σ d_l]."""
    return torch.stack(list(outputs)).index_select(0, owner_of)[:, None]
