"""From text encodings and concepts to the keys and values of every layer.

This is the one place where an edit meets a base model. Rendering calls it with stored adapters
through `plan`, training with parameters: everything here is differentiable in the encodings, the
outputs and, where they carry gradients, the target inputs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch.nn import functional

from perfuse import method
from perfuse.attach.base_model import BaseModel
from perfuse.errors import InvalidArgument, WrongShape
from perfuse.method.operands import full_precision


@dataclass(frozen=True, eq=False)
class Strength:
    """How strongly each concept is on at each position; shared by all layers, keys and values.

    Attributes:
        similarity: s [..., M, J].
        coordinates: of the projection onto the target inputs [..., M, J].
        gate: σ [..., M, J].
        target_inputs: I [..., J, d], as given.
        spans: where the edit acts, along M, with start and stop; None everywhere.
    """

    similarity: torch.Tensor
    coordinates: torch.Tensor
    gate: torch.Tensor
    target_inputs: torch.Tensor
    spans: tuple[slice, ...] | None = None

    def within(self, spans: tuple[slice, ...]) -> Strength:
        """The same at some positions alone; the gate is shut elsewhere."""
        gate = torch.zeros_like(self.gate)
        for span in spans:
            gate[..., span, :] = self.gate[..., span, :]
        return replace(self, gate=gate, spans=spans)


class Projections(NamedTuple):
    """Keys and values of every cross-attention layer in the declared order, each [..., M, d_l]."""

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]


def strength(
    base: BaseModel,
    encodings: torch.Tensor,
    target_inputs: torch.Tensor,
    bias: float | torch.Tensor,
    temperature: float | torch.Tensor,
    *,
    duals: torch.Tensor | None = None,
    names: tuple[str, ...] | None = None,
) -> Strength:
    """Similarity, coordinates and gate of J concepts (paper Eq. 3 and App. B), in at least float32.

    Args:
        base: the base model, prepared.
        encodings: e [..., M, d].
        target_inputs: I [J, d], or [..., J, d] for rows with concepts of their own.
        bias: one number, or one per concept as a tensor that broadcasts to [..., M, J].
        temperature: likewise.
        duals: `method.dual_inputs` of the target inputs, where they are at hand.
        names: what to call the concepts in an error.

    Raises:
        FailedPrecondition: the base model has no covariance.
        DependentConcepts: two target inputs are too close to be told apart.
        WrongShape, NotFinite, InvalidArgument: as `perfuse.method`.
    """
    inverse = base.inverse_covariance
    inputs = target_inputs.to(encodings.device)
    similarity, coordinates = method.activity(encodings, inputs, inverse, duals=duals, names=names)
    return Strength(
        similarity=similarity,
        coordinates=coordinates,
        gate=method.gate(similarity, bias, temperature),
        target_inputs=inputs,
    )


def plain_projections(base: BaseModel, encodings: torch.Tensor) -> Projections:
    """Un-edited keys and values, as the frozen layers give them."""
    return Projections(plain_keys(base, encodings), _projected(_value_weights(base), encodings))


def plain_keys(base: BaseModel, encodings: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """W_K e of every layer, each [..., M, d_l]; with a super-category prompt, GLOBAL's keys."""
    return _projected(_key_weights(base), encodings)


def edited_projections(
    base: BaseModel,
    encodings: torch.Tensor,
    concepts: Strength,
    value_outputs: torch.Tensor,
    key_outputs: torch.Tensor | None = None,
    *,
    key_encodings: torch.Tensor | None = None,
    value_inputs: torch.Tensor | None = None,
    key_inputs: torch.Tensor | None = None,
) -> Projections:
    """Keys and values of every layer with J concepts in them (paper Eq. 3, App. B).

    Exactly one of `key_outputs` (LOCAL: `locked_key_outputs`; TRAINED_K: the trained ones) and
    `key_encodings` (GLOBAL) says what becomes of the keys.

    Args:
        base: the base model.
        encodings: e [..., M, d]; leading axes are rows.
        concepts: their strength on these encodings.
        value_outputs: o*_V of all layers in the declared order [J, Σ d_l], or [..., J, Σ d_l] for
            rows with concepts of their own.
        key_outputs: o*_K likewise; keys are edited like values.
        key_encodings: encodings [..., M, d] of the super-category prompt, position by position
            (`method.key_positions`); keys are their un-edited projections.
        value_inputs: W_V i* of the concepts, shaped as `value_outputs` (`projected_by_values`),
            where they are at hand.
        key_inputs: W_K i* likewise.

    Returns:
        Keys and values in the encodings' dtype.

    Raises:
        InvalidArgument: both or neither of `key_outputs` and `key_encodings` are given.
        WrongShape: outputs of another width than Σ d_l.
    """
    values = _edited(base, _value_weights(base), encodings, concepts, value_outputs, value_inputs)
    if key_encodings is not None and key_outputs is None:
        return Projections(plain_keys(base, key_encodings), values)
    if key_outputs is None or key_encodings is not None:
        raise InvalidArgument(
            "give key_outputs (LOCAL, TRAINED_K) or key_encodings (GLOBAL), one of the two"
        )
    keys = _edited(base, _key_weights(base), encodings, concepts, key_outputs, key_inputs)
    return Projections(keys, values)


def locked_key_outputs(base: BaseModel, super_category_encoding: torch.Tensor) -> torch.Tensor:
    """o*_K = W_K e_super for all layers, [..., Σ d_l] in at least float32 (paper Sec. 4.2)."""
    return projected_by_keys(base, super_category_encoding)


def initial_value_outputs(base: BaseModel, super_category_encoding: torch.Tensor) -> torch.Tensor:
    """W_V e_super for all layers, [..., Σ d_l]: where training starts o*_V."""
    return projected_by_values(base, super_category_encoding)


def projected_by_keys(base: BaseModel, vectors: torch.Tensor) -> torch.Tensor:
    """W_K of all layers times vectors [..., d], [..., Σ d_l] in at least float32."""
    return _all_projected(base, _key_weights(base), vectors)


def projected_by_values(base: BaseModel, vectors: torch.Tensor) -> torch.Tensor:
    """W_V of all layers times vectors [..., d], [..., Σ d_l] in at least float32."""
    return _all_projected(base, _value_weights(base), vectors)


def split_outputs(base: BaseModel, outputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """[..., Σ d_l] cut into one tensor per layer, as views.

    Raises:
        WrongShape: the last axis is not Σ d_l.
    """
    widths = [layer.width for layer in base.layers]
    if outputs.shape[-1] != sum(widths):
        raise WrongShape(
            f"outputs are {outputs.shape[-1]} wide; the {len(widths)} layers of "
            f"{base.architecture} give {sum(widths)}"
        )
    return torch.split(outputs, widths, dim=-1)


def _key_weights(base: BaseModel) -> list[torch.Tensor]:
    return [layer.key_weight for layer in base.layers]


def _value_weights(base: BaseModel) -> list[torch.Tensor]:
    return [layer.value_weight for layer in base.layers]


def _projected(weights: list[torch.Tensor], encodings: torch.Tensor) -> tuple[torch.Tensor, ...]:
    # Layer by layer, as the denoiser does it, so that its own keys and values come out to the bit.
    return tuple(functional.linear(encodings, weight) for weight in weights)


def _all_projected(
    base: BaseModel, weights: list[torch.Tensor], vectors: torch.Tensor
) -> torch.Tensor:
    vectors = vectors.to(base.device)
    return torch.cat([method.locked_key_output(weight, vectors) for weight in weights], dim=-1)


def _edited(
    base: BaseModel,
    weights: list[torch.Tensor],
    encodings: torch.Tensor,
    concepts: Strength,
    outputs: torch.Tensor,
    inputs: torch.Tensor | None,
) -> tuple[torch.Tensor, ...]:
    """`method.blend` of every layer; what it adds to W e is computed for all of them at once."""
    if inputs is None:
        inputs = _all_projected(base, weights, concepts.target_inputs)
    outputs = outputs.to(base.device)
    factors, terms = method.change_terms(inputs, concepts.coordinates, concepts.gate, outputs)
    projected = _projected(weights, encodings)
    widths = [each.shape[-1] for each in projected]
    if sum(widths) != terms.shape[-1]:
        split_outputs(base, terms)  # which says so
    # Nobody else has W e, and new memory for it costs more than all of the edit.
    in_place = (
        projected[0].dtype == terms.dtype
        and projected[0].shape[:-1] == factors.shape[:-1]
        and not torch.is_grad_enabled()
    )
    everywhere = (slice(0, factors.shape[-2]),)
    for span in everywhere if concepts.spans is None else concepts.spans:
        with full_precision(concepts.gate):
            changes = (factors[..., span, :] @ terms).split(widths, dim=-1)
        if in_place:
            for each, change in zip(projected, changes, strict=True):
                each.narrow(-2, span.start, change.shape[-2]).add_(change)
        else:
            pairs = zip(projected, changes, strict=True)
            projected = tuple(_changed(each, change, span) for each, change in pairs)
    return projected


def _changed(projected: torch.Tensor, change: torch.Tensor, span: slice) -> torch.Tensor:
    """W e with a change at some positions, rounded once, differentiable."""
    part = projected[..., span, :]
    changed = (part + change).to(projected.dtype)
    if part.shape[-2] == projected.shape[-2]:
        return changed
    before, after = projected[..., : span.start, :], projected[..., span.stop :, :]
    return torch.cat([before, changed, after], dim=-2)
