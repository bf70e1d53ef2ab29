"""A conditioning plan: everything the denoiser reads of one prompt, computed once.

Text does not change between denoising steps, and an edit touches only what is computed from text.
So a plan holds the keys and values of every layer for one prompt and is reused at every step, for
every seed, beside any other plan in the batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from perfuse.adapter import Adapter
from perfuse.attach.base_model import BaseModel
from perfuse.attach.conditioning import Conditioning, concatenate
from perfuse.attach.encoding import encode_tokens, super_category_encodings, tokenise
from perfuse.attach.projection import (
    Projections,
    edited_projections,
    locked_key_outputs,
    plain_projections,
    strength,
)
from perfuse.attach.prompt import Prompt, Tokens
from perfuse.errors import BaseModelMismatch, InvalidArgument, PromptRefused
from perfuse.method import KeyLock

RENDER_BIAS = {KeyLock.LOCAL: 0.70, KeyLock.TRAINED_K: 0.70, KeyLock.GLOBAL: 0.55}
"""Bias of the gate where neither the request nor the adapter says one."""


@dataclass(frozen=True, eq=False)
class PlannedConcept:
    """One concept of a prompt.

    Attributes:
        name: as the prompt names it, without angle brackets.
        adapter: what was learned; for the plan's base model.
        bias: of the gate; None takes the adapter's suggestion (LOCAL, TRAINED_K) or 0.55 (GLOBAL).
        temperature: of the gate; None takes the adapter's suggestion.
    """

    name: str
    adapter: Adapter
    bias: float | None = None
    temperature: float | None = None


@dataclass(frozen=True, eq=False)
class ConditioningPlan:
    """What the denoiser reads of one prompt, at every step; compare plans by `digest`.

    Attributes:
        keys: per layer in the declared order [M, d_l].
        values: likewise.
        encodings: e [M, d].
        pooled: [p] where the denoiser reads a pooled encoding (SDXL), else None.
        similarity: name → s [M], how strongly each concept is on at each position.
        gate: name → σ [M].
        tokens: the tokenised prompt.
        key_lock: how the keys were computed; None where the prompt names no concept.
        base_model: fingerprint.
        digest: "sha256:..." over everything that decides the tensors but their dtype and device:
            base model, covariance, token ids, adapters, gate parameters, lock, super-categories.
    """

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    encodings: torch.Tensor
    pooled: torch.Tensor | None
    similarity: Mapping[str, torch.Tensor]
    gate: Mapping[str, torch.Tensor]
    tokens: Tokens
    key_lock: KeyLock | None
    base_model: str
    digest: str

    @property
    def conditioning(self) -> Conditioning:
        """The plan as a batch of one row; views, no copies."""
        return Conditioning(
            keys=tuple(key[None] for key in self.keys),
            values=tuple(value[None] for value in self.values),
            encodings=self.encodings[None],
            pooled=None if self.pooled is None else self.pooled[None],
        )


@torch.no_grad()
def plan(
    base: BaseModel,
    prompt: str | Prompt,
    concepts: Sequence[PlannedConcept] = (),
    *,
    key_lock: KeyLock | None = None,
) -> ConditioningPlan:
    """Encode a prompt, edit it and project it.

    Args:
        base: the base model; prepared, where there are concepts.
        prompt: text that names each of `concepts` at least once, as `<name>`; or cut already.
        concepts: in any order; the result does not depend on it.
        key_lock: LOCAL, GLOBAL or TRAINED_K. None takes the lock that the adapters were trained
            with, which must then be one.

    Raises:
        PromptRefused: a placeholder without concept, a concept that is not named, or too long.
        BaseModelMismatch: an adapter is for another base model.
        InvalidArgument: TRAINED_K with an adapter that stores no keys; locks that differ.
        DependentConcepts: two concepts are too close to be told apart.
        FailedPrecondition: the base model has no covariance.
    """
    given = {concept.name: concept for concept in concepts}
    if len(given) != len(concepts):
        raise InvalidArgument(
            f"two concepts have the same name among {', '.join(sorted(given))}; names must differ"
        )
    parsed = prompt if isinstance(prompt, Prompt) else Prompt.parse(prompt, given)
    if unknown := sorted(set(parsed.names) - given.keys()):
        raise PromptRefused(
            f"the prompt names {', '.join(f'<{name}>' for name in unknown)}, which is not given"
        )
    if unused := sorted(given.keys() - set(parsed.names)):
        raise PromptRefused(
            f"the prompt does not name {', '.join(f'<{name}>' for name in unused)}; write each "
            "concept into the prompt, or leave it out of the request"
        )
    named = [given[name] for name in parsed.names]
    for concept in named:
        _require_base(base, concept)
    tokens = tokenise(base, parsed)
    embeddings = {concept.name: concept.adapter.embeddings for concept in named}
    encoding = encode_tokens(base, [tokens], [embeddings])
    encodings = encoding.encodings
    lock = _lock(named, key_lock)
    record: dict[str, Any] = {"base_model": base.fingerprint, "ids": tokens.ids}
    similarity: dict[str, torch.Tensor] = {}
    gate: dict[str, torch.Tensor] = {}
    if lock is None:
        projections = plain_projections(base, encodings)
    else:
        settings = [gate_parameters(concept, lock) for concept in named]
        inputs = torch.stack([concept.adapter.target_input for concept in named])
        on = strength(
            base,
            encodings,
            inputs,
            *base.inverse_covariance.new_tensor(settings).unbind(-1),
            names=parsed.names,
        )
        similarity = dict(zip(parsed.names, on.similarity[0].unbind(-1), strict=True))
        gate = dict(zip(parsed.names, on.gate[0].unbind(-1), strict=True))
        supers = {concept.name: concept.adapter.metadata.super_category for concept in named}
        values = torch.stack([concept.adapter.value_output for concept in named])
        if lock is KeyLock.GLOBAL:
            key_encodings, record["super_ids"] = super_category_encodings(
                base, parsed, tokens, supers
            )
            projections = edited_projections(
                base, encodings, on, values, key_encodings=key_encodings
            )
        else:
            keys = torch.stack([_key_output(base, concept, lock) for concept in named])
            projections = edited_projections(base, encodings, on, values, keys)
        record |= {
            "covariance": base.covariance.digest if base.covariance else None,
            "slots": [[slot.position, parsed.names.index(slot.name)] for slot in tokens.slots],
            "adapters": [concept.adapter.digest for concept in named],
            "gates": settings,
            "key_lock": lock.value,
            "super_categories": [supers[name] for name in parsed.names],
        }
    return _planned(
        base,
        projections,
        encoding.encodings,
        encoding.pooled,
        similarity,
        gate,
        tokens,
        lock,
        record,
    )


@torch.no_grad()
def unconditional(base: BaseModel) -> ConditioningPlan:
    """The plan of "no prompt" for guidance, never edited, as diffusers makes it.

    That is the empty prompt, or zeros where an SDXL pipeline asks for them.
    """
    if not (base.pooled and base.pipeline.config.get("force_zeros_for_empty_prompt", False)):
        return plan(base, "")
    tokens = tokenise(base, Prompt.parse(""))
    encoding = encode_tokens(base, [tokens])
    encodings = torch.zeros_like(encoding.encodings)
    pooled = None if encoding.pooled is None else torch.zeros_like(encoding.pooled)
    record = {"base_model": base.fingerprint, "zeros": list(encodings.shape)}
    return _planned(
        base, plain_projections(base, encodings), encodings, pooled, {}, {}, tokens, None, record
    )


def stack(plans: Sequence[ConditioningPlan]) -> Conditioning:
    """One batch from plans, a row each; rows may hold different concepts, or none.

    Raises:
        InvalidArgument: no plans.
        BaseModelMismatch: plans of different base models.
    """
    if len(bases := sorted({entry.base_model for entry in plans})) > 1:
        raise BaseModelMismatch(
            f"the plans are for {len(bases)} base models ({', '.join(bases)}); a batch has one"
        )
    return concatenate([entry.conditioning for entry in plans])


def _planned(
    base: BaseModel,
    projections: Projections,
    encodings: torch.Tensor,
    pooled: torch.Tensor | None,
    similarity: Mapping[str, torch.Tensor],
    gate: Mapping[str, torch.Tensor],
    tokens: Tokens,
    lock: KeyLock | None,
    record: Mapping[str, Any],
) -> ConditioningPlan:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return ConditioningPlan(
        keys=tuple(key[0] for key in projections.keys),
        values=tuple(value[0] for value in projections.values),
        encodings=encodings[0],
        pooled=None if pooled is None else pooled[0],
        similarity=similarity,
        gate=gate,
        tokens=tokens,
        key_lock=lock,
        base_model=base.fingerprint,
        digest="sha256:" + hashlib.sha256(text.encode()).hexdigest(),
    )


def _lock(concepts: Sequence[PlannedConcept], wanted: KeyLock | None) -> KeyLock | None:
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

    An adapter suggests a bias for the keys that it was trained with. Under GLOBAL the paper's
    best biases are lower, so that the suggestion is not taken over.
    """
    suggested = concept.adapter.metadata
    bias = concept.bias
    if bias is None:
        bias = RENDER_BIAS[lock] if lock is KeyLock.GLOBAL else suggested.bias
    temperature = concept.temperature if concept.temperature is not None else suggested.temperature
    return float(bias), float(temperature)


def _key_output(base: BaseModel, concept: PlannedConcept, lock: KeyLock) -> torch.Tensor:
    """o*_K of all layers [Σ d_l]: stored, or recomputed from the super-category."""
    if lock is KeyLock.TRAINED_K and concept.adapter.key_output is not None:
        return concept.adapter.key_output.to(base.device)
    return locked_key_outputs(base, concept.adapter.super_category_encoding)


def _require_base(base: BaseModel, concept: PlannedConcept) -> None:
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
