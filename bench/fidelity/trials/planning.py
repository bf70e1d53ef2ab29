"""The keys and values of a prompt with one concept, in a trial's way."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from bench.fidelity.companions import PLACES, place_of
from bench.fidelity.curriculum import Asked
from bench.fidelity.trials.learning import State, acting, copied, edited_by_position
from bench.fidelity.trials.targets import words_of
from bench.fidelity.trials.way import Way
from perfuse import method
from perfuse.attach import (
    BaseModel,
    ConditioningPlan,
    Encoding,
    Strength,
    Tokens,
    edited_projections,
    encode,
    plain_keys,
    plan,
    projected_by_keys,
    projected_by_values,
    split_outputs,
    strength,
)

LEAST = 0.1
"""Similarity of a concept's word below which it is not divided by."""


@torch.no_grad()
def planned(base: BaseModel, asked: Asked, state: State, way: Way, bias: float) -> ConditioningPlan:
    """The plan of a prompt that names one concept; super-categories of one token alone."""
    encoded = _encoded(base, asked, state)
    (tokens,) = encoded.tokens
    on = strength_of(base, encoded.encodings, state, way, bias, tokens)
    value_output, by_position = state["value_output"], state["value_output"].ndim == 2
    supers, inputs = state["super_category_encoding"], state["target_input"]
    remains, value_input = (projected_by_values(base, one) for one in (supers, inputs))
    locked, key_input = (projected_by_keys(base, one) for one in (supers, inputs))
    key_output = locked
    if way.remainder == "SUPER_CATEGORY":
        key_input, key_output = key_input - locked, key_output - locked
        value_input, value_output = value_input - remains, value_output - remains
    if way.context == "SUPER":
        return _in_its_place(base, asked, on.gate[0], state["value_output"] - remains)
    given = torch.zeros_like(remains) if by_position else value_output
    keys, values = edited_projections(
        base,
        encoded.encodings,
        on,
        given[None],
        key_output[None],
        value_inputs=value_input[None],
        key_inputs=key_input[None],
    )
    if by_position:
        values = edited_by_position(base, values, on.gate, value_output)
    if way.key_lock == "GLOBAL":
        supposed = encode(base, asked.caption)
        keys = plain_keys(base, supposed.encodings)
        if way.keys == "EDITED":
            keys = edited_projections(
                base,
                supposed.encodings,
                strength_of(base, supposed.encodings, state, way, bias, tokens),
                given[None],
                key_output[None],
                value_inputs=value_input[None],
                key_inputs=key_input[None],
            ).keys
    made = replace(
        plan(base, asked.caption),
        keys=tuple(key[0] for key in keys),
        values=tuple(value[0] for value in values),
        encodings=encoded.encodings[0],
    )
    if way.context in ("SLOT", "MIXED"):
        return _mixed(base, asked, made, state["value_output"] - remains, way, bias, tokens)
    return _repeated(made, tokens, way.copies)


@torch.no_grad()
def similarities(base: BaseModel, asked: Asked, state: State) -> dict[str, list[float]]:
    """s of a concept's prompt at each place of it (`companions.PLACES`)."""
    encoded = _encoded(base, asked, state)
    (tokens,) = encoded.tokens
    (slot,) = tokens.slots
    on = strength(base, encoded.encodings, state["target_input"][None], 0.5, 0.15)
    found: dict[str, list[float]] = {place: [] for place in PLACES}
    for position, s in enumerate(on.similarity[0, :, 0].tolist()):
        found[place_of(position, slot.position, tokens.end_of_text)].append(s)
    return found


def strength_of(
    base: BaseModel, encodings: Tensor, state: State, way: Way, bias: float, tokens: Tokens
) -> Strength:
    """Similarity and gate, off where the way does not edit."""
    on = strength(base, encodings, state["target_input"][None], bias, way.temperature)
    gate, (slot,) = on.gate, tokens.slots
    if way.word == "RELATIVE":
        own = on.similarity[..., slot.position, :].unsqueeze(-2).clamp(min=LEAST)
        gate = method.gate(on.similarity / own, bias, way.temperature)
    if way.word == "OPEN":
        gate = gate.clone()
        gate[..., slot.position, :] = method.gate(gate.new_tensor(1.0), bias, way.temperature)
    if not way.tail:
        closed, opened = method.gate(gate.new_tensor([0.0, 1.0]), bias, way.temperature)
        gate = ((gate - closed) / (opened - closed)).clamp(0, 1)
    there = acting(way.places, tokens, encodings.shape[-2])[:, None]
    return replace(on, gate=gate * there, coordinates=on.coordinates * there)


def _in_its_place(base: BaseModel, asked: Asked, gate: Tensor, gained: Tensor) -> ConditioningPlan:
    """The super-category's prompt with what a concept gains over it added to the values."""
    plain = plan(base, asked.caption)
    values = tuple(
        value + gate * one
        for value, one in zip(plain.values, split_outputs(base, gained), strict=True)
    )
    return replace(plain, values=values)


def _mixed(
    base: BaseModel,
    asked: Asked,
    own: ConditioningPlan,
    gained: Tensor,
    way: Way,
    bias: float,
    tokens: Tokens,
) -> ConditioningPlan:
    """The super-category's prompt with the gain at the concept's word; elsewhere the two mixed."""
    plain = plan(base, asked.caption)
    (slot,) = tokens.slots
    opened = method.gate(gained.new_tensor(1.0), bias, way.temperature)
    share = torch.full((len(own.values[0]), 1), 1.0 if way.context == "SLOT" else float(opened))
    share[slot.position] = 0
    there = 1.0 * (torch.arange(len(share)) == slot.position)[:, None]
    keys = tuple(a + share * (b - a) for a, b in zip(plain.keys, own.keys, strict=True))
    values = tuple(
        a + share * (b - a) + there * opened * one
        for a, b, one in zip(plain.values, own.values, split_outputs(base, gained), strict=True)
    )
    return replace(plain, keys=keys, values=values)


def _encoded(base: BaseModel, asked: Asked, state: State) -> Encoding:
    (name,) = asked.figures
    return encode(base, asked.prompt, {name: words_of(state)})


def _repeated(made: ConditioningPlan, tokens: Tokens, copies: int) -> ConditioningPlan:
    """The concept's word so many times, the further ones in the last places of padding."""
    source = copied(tokens, len(made.keys[0]), copies)
    return replace(
        made,
        keys=tuple(key[source] for key in made.keys),
        values=tuple(value[source] for value in made.values),
    )
