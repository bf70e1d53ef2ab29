"""A concept of a prompt: its adapter, and how it is to be rendered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from perfuse.adapter import Adapter
from perfuse.attach.base_model import BaseModel
from perfuse.attach.prepared_concept import PreparedConcept, prepare_concept
from perfuse.errors import BaseModelMismatch, InvalidArgument
from perfuse.method import Filled, KeyLock, Remainder, filled

GLOBAL_BIAS = 0.40
"""Bias of the gate under GLOBAL where the request says none (decision 27)."""


@dataclass(frozen=True, eq=False)
class PlannedConcept:
    """One concept of a prompt.

    Attributes:
        name: as the prompt names it, without angle brackets.
        adapter: what was learned; for the plan's base model.
        bias: of the gate; None takes the adapter's suggestion (LOCAL, TRAINED_K) or 0.4 (GLOBAL).
        temperature: of the gate; None takes the adapter's suggestion.
        prepared: `prepare_concept` of the adapter, where it is at hand; what it holds is computed
            in every plan otherwise.
    """

    name: str
    adapter: Adapter
    bias: float | None = None
    temperature: float | None = None
    prepared: PreparedConcept | None = None


def common_lock(concepts: Sequence[PlannedConcept], wanted: KeyLock | None) -> KeyLock | None:
    """The lock to render with; None where there is nothing to lock."""
    if not concepts:
        return None
    trained = {concept.name: concept.adapter.metadata.key_lock for concept in concepts}
    if wanted is None:
        if len(set(trained.values())) > 1:
            stated = ", ".join(f"<{name}> {lock}" for name, lock in trained.items())
            raise InvalidArgument(
                f"the adapters were trained with different key locks ({stated}); choose one: "
                "LOCAL and GLOBAL serve every adapter"
            )
        return KeyLock(next(iter(trained.values())))
    lock = KeyLock(wanted)
    without = [name for name, stored in trained.items() if stored != KeyLock.TRAINED_K.value]
    if lock is KeyLock.TRAINED_K and without:
        raise InvalidArgument(
            f"key lock TRAINED_K needs stored keys; trained with LOCAL, {', '.join(without)} has "
            "none: choose LOCAL or GLOBAL"
        )
    return lock


def gate_parameters(concept: PlannedConcept, lock: KeyLock) -> tuple[float, float]:
    """Bias and temperature: the request's, else the adapter's, else the default for GLOBAL.

    An adapter suggests a bias for the keys that it was trained with. GLOBAL's
    keys are others, so that the suggestion is not taken over.
    """
    suggested = concept.adapter.metadata
    bias = concept.bias
    if bias is None:
        bias = GLOBAL_BIAS if lock is KeyLock.GLOBAL else suggested.bias
    temperature = concept.temperature if concept.temperature is not None else suggested.temperature
    return float(bias), float(temperature)


def prepared(base: BaseModel, concept: PlannedConcept) -> PreparedConcept:
    """What was prepared, or prepared now.

    Raises:
        InvalidArgument: it was prepared for another base model or from another adapter.
        FailedPrecondition: the base model has no covariance.
    """
    found = concept.prepared or prepare_concept(base, concept.adapter)
    if found.base is not base or found.adapter is not concept.adapter:
        raise InvalidArgument(
            f"<{concept.name}> was prepared for another base model or from another adapter; give "
            "what prepare_concept makes of this very adapter, or nothing"
        )
    return found


def value_operands(
    concepts: Sequence[PreparedConcept], remainder: Remainder
) -> tuple[torch.Tensor, torch.Tensor]:
    """What values are edited with, as rows: outputs, and projected inputs."""
    if remainder is Remainder.NOTHING:
        return (
            rows([concept.value_output for concept in concepts]),
            rows([concept.value_input for concept in concepts]),
        )
    return _left([concept.value_left for concept in concepts])


def key_operands(
    concepts: Sequence[PreparedConcept], lock: KeyLock, remainder: Remainder
) -> tuple[torch.Tensor, torch.Tensor]:
    """What keys are edited with under LOCAL and TRAINED_K, likewise."""
    if remainder is Remainder.NOTHING:
        return (
            rows([_key_output(concept, lock) for concept in concepts]),
            rows([concept.key_input for concept in concepts]),
        )
    return _left([_key_left(concept, lock) for concept in concepts])


def rows(vectors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Vectors [...] as rows [J, ...]; of one vector a view."""
    return vectors[0][None] if len(vectors) == 1 else torch.stack(list(vectors))


def _left(operands: Sequence[Filled]) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, outputs = (
        each[0] if len(each) == 1 else torch.cat(each) for each in zip(*operands, strict=True)
    )
    return outputs, inputs


def _key_left(concept: PreparedConcept, lock: KeyLock) -> Filled:
    if lock is not KeyLock.TRAINED_K:
        return concept.locked_key_left
    operands = (concept.key_input, _key_output(concept, lock), concept.locked_key_output)
    return filled(*(each[None] for each in operands))


def _key_output(concept: PreparedConcept, lock: KeyLock) -> torch.Tensor:
    """o*_K of all layers [Σ d_l]: stored, or from the super-category."""
    stored = concept.adapter.key_output
    if lock is KeyLock.TRAINED_K and stored is not None:
        return stored.to(concept.base.device)
    return concept.locked_key_output


def require_base(base: BaseModel, concept: PlannedConcept) -> None:
    """Refuse an adapter of another base model.

    Raises:
        BaseModelMismatch: names both.
    """
    stated = concept.adapter.metadata
    if stated.base_model != base.fingerprint:
        raise BaseModelMismatch(
            f"<{concept.name}> was trained on base model {stated.base_model} "
            f"({stated.architecture}) and this one is {base.fingerprint} ({base.architecture}); "
            "train the concept again on this base model"
        )
    if [layer.name for layer in stated.layers] != [layer.name for layer in base.layers]:
        raise BaseModelMismatch(
            f"<{concept.name}> declares other layers than the base model of the same fingerprint; "
            "the file was not made by a release that knows this architecture"
        )
