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

from perfuse.attach.base_model import BaseModel
from perfuse.attach.chunks import Chunks, split, with_super_categories
from perfuse.attach.conditioning import Conditioning, concatenate
from perfuse.attach.encoding import encode_chunks, super_category_encodings
from perfuse.attach.encoding_store import EncodingStore, encoded
from perfuse.attach.planned_concept import (
    PlannedConcept,
    common_lock,
    gate_parameters,
    key_operands,
    prepared,
    require_base,
    rows,
    value_operands,
)
from perfuse.attach.projection import (
    Projections,
    edited_projections,
    plain_projections,
    strength,
)
from perfuse.attach.prompt import Prompt
from perfuse.attach.tokens import Tokens
from perfuse.errors import BaseModelMismatch, InvalidArgument, PromptRefused
from perfuse.method import KeyLock, Reach, Remainder


@dataclass(frozen=True, eq=False)
class ConditioningPlan:
    """What the denoiser reads of one prompt, at every step; compare plans by `digest`.

    M stands for all positions: those of one text, or of every chunk of a long one.

    Attributes:
        keys: per layer in the declared order [M, d_l].
        values: likewise.
        encodings: e [M, d].
        pooled: [p] where the denoiser reads a pooled encoding (SDXL), else None.
        similarity: name → s [M], how strongly each concept is on at each position.
        gate: name → σ [M], 0 where the concept does not act.
        chunks: the tokenised prompt; one text, or several where it was split.
        key_lock: how the keys were computed; None where the prompt names no concept.
        base_model: fingerprint.
        digest: "sha256:..." over everything that decides the tensors but their dtype and device:
            base model, covariance, token ids, adapters, gate parameters, lock, remainder, reach,
            super-categories.
    """

    keys: tuple[torch.Tensor, ...]
    values: tuple[torch.Tensor, ...]
    encodings: torch.Tensor
    pooled: torch.Tensor | None
    similarity: Mapping[str, torch.Tensor]
    gate: Mapping[str, torch.Tensor]
    chunks: tuple[Tokens, ...]
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
    remainder: Remainder = Remainder.SUPER_CATEGORY,
    reach: Reach = Reach.NAMED,
    max_chunks: int = 1,
    min_chunks: int = 1,
    store: EncodingStore | None = None,
) -> ConditioningPlan:
    """Encode a prompt, edit it and project it.

    Args:
        base: the base model; prepared, where there are concepts.
        prompt: text that names each of `concepts` at least once, as `<name>`; or cut already.
        concepts: in any order; the result does not depend on it.
        key_lock: LOCAL, GLOBAL or TRAINED_K. None takes the lock that the adapters were trained
            with, which must then be one.
        remainder: what stands where a gate is not open; with NOTHING there, and `reach` EVERYWHERE,
            it is the paper's Eq. 3 to the letter.
        reach: at which positions concepts act.
        max_chunks: how many chunks a prompt longer than the text encoder reads may be split into
            (`chunks.split`); 1 refuses it.
        min_chunks: chunks that the plan shall have at least, as one that is compared with it does;
            the empty prompt stands in those that are lacking.
        store: of this base model's text encodings, to look them up in and to put them into.

    Raises:
        PromptRefused: a placeholder without concept, a concept that is not named, or too long.
        BaseModelMismatch: an adapter is for another base model.
        InvalidArgument: TRAINED_K with an adapter that stores no keys; locks that differ; a
            concept that was prepared for something else.
        DependentConcepts: two concepts are too close to be told apart.
        FailedPrecondition: the base model has no covariance.
    """
    given = {concept.name: concept for concept in concepts}
    if len(given) != len(concepts):
        raise InvalidArgument(
            f"two concepts have the same name among {', '.join(sorted(given))}; names must differ"
        )
    parsed = prompt if isinstance(prompt, Prompt) else Prompt.parse(prompt, given)
    names = parsed.names
    if unknown := sorted(set(names) - given.keys()):
        raise PromptRefused(
            f"the prompt names {', '.join(f'<{name}>' for name in unknown)}, which is not given"
        )
    if unused := sorted(given.keys() - set(names)):
        raise PromptRefused(
            f"the prompt does not name {', '.join(f'<{name}>' for name in unused)}; write each "
            "concept into the prompt, or leave it out of the request"
        )
    named = [given[name] for name in names]
    for concept in named:
        require_base(base, concept)
    lock = common_lock(named, key_lock)
    supers = {concept.name: concept.adapter.metadata.super_category for concept in named}
    written_out = supers if lock is KeyLock.GLOBAL else None
    chunks = split(base, parsed, most=max_chunks, least=min_chunks, super_categories=written_out)
    ready = {concept.name: prepared(base, concept) for concept in named}
    whole, pooled = encoded(base, chunks.tokens, ready, store)
    # Here a prompt has no axis of rows.
    encodings = whole[0]
    record: dict[str, Any] = {
        "base_model": base.fingerprint,
        "ids": [tokens.ids for tokens in chunks.tokens],
    }
    similarity: dict[str, torch.Tensor] = {}
    gate: dict[str, torch.Tensor] = {}
    if lock is None:
        projections = plain_projections(base, encodings)
    else:
        settings = [gate_parameters(concept, lock) for concept in named]
        in_order = list(ready.values())
        on = strength(
            base,
            encodings,
            rows([concept.target_input for concept in in_order]),
            *_parameters(settings, base),
            duals=rows([concept.dual_input for concept in in_order]),
            names=names,
        )
        if reach is Reach.NAMED:
            on = on.within(chunks.reached)
        similarity = dict(zip(names, on.similarity.unbind(-1), strict=True))
        gate = dict(zip(names, on.gate.unbind(-1), strict=True))
        values, value_inputs = value_operands(in_order, remainder)
        keys = key_inputs = key_encodings = None
        if lock is KeyLock.GLOBAL:
            replaced = with_super_categories(base, parsed, chunks, supers)
            record["super_ids"] = [tokens.ids for tokens in replaced]
            key_encodings = super_category_encodings(
                base, encoded(base, replaced, {}, store)[0], chunks.tokens, replaced
            )[0]
        else:
            keys, key_inputs = key_operands(in_order, lock, remainder)
        projections = edited_projections(
            base,
            encodings,
            on,
            values,
            keys,
            key_encodings=key_encodings,
            value_inputs=value_inputs,
            key_inputs=key_inputs,
        )
        record |= {
            "covariance": base.covariance.digest if base.covariance else None,
            "slots": [
                [[slot.position, names.index(slot.name)] for slot in tokens.slots]
                for tokens in chunks.tokens
            ],
            "adapters": [concept.digest for concept in in_order],
            "gates": settings,
            "key_lock": lock.value,
            "remainder": remainder.value,
            "reach": reach.value,
            "super_categories": [supers[name] for name in names],
        }
    return _planned(
        base,
        projections,
        encodings,
        pooled,
        similarity,
        gate,
        chunks,
        lock,
        record,
    )


@torch.no_grad()
def unconditional(base: BaseModel, chunks: int = 1) -> ConditioningPlan:
    """The plan of "no prompt" for guidance, never edited, as diffusers makes it.

    That is the empty prompt, or zeros where an SDXL pipeline asks for them.

    Args:
        base: the base model.
        chunks: as many as the plan has that it is compared with.
    """
    if not (base.pooled and base.pipeline.config.get("force_zeros_for_empty_prompt", False)):
        return plan(base, "", min_chunks=chunks)
    empty = split(base, Prompt.parse(""), least=chunks)
    whole, pooled = encode_chunks(base, empty.tokens)
    encodings = torch.zeros_like(whole[0])
    pooled = None if pooled is None else torch.zeros_like(pooled)
    record = {"base_model": base.fingerprint, "zeros": list(encodings.shape)}
    return _planned(
        base, plain_projections(base, encodings), encodings, pooled, {}, {}, empty, None, record
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


def _parameters(
    settings: Sequence[tuple[float, float]], base: BaseModel
) -> Sequence[float | torch.Tensor]:
    """Biases and temperatures; of one concept as numbers, since tensors wait for the device."""
    if len(settings) == 1:
        return settings[0]
    return base.inverse_covariance.new_tensor(settings).unbind(-1)


def _planned(
    base: BaseModel,
    projections: Projections,
    encodings: torch.Tensor,
    pooled: torch.Tensor | None,
    similarity: Mapping[str, torch.Tensor],
    gate: Mapping[str, torch.Tensor],
    chunks: Chunks,
    lock: KeyLock | None,
    record: Mapping[str, Any],
) -> ConditioningPlan:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return ConditioningPlan(
        keys=projections.keys,
        values=projections.values,
        encodings=encodings,
        pooled=None if pooled is None else pooled[0],
        similarity=similarity,
        gate=gate,
        chunks=chunks.tokens,
        key_lock=lock,
        base_model=base.fingerprint,
        digest="sha256:" + hashlib.sha256(text.encode()).hexdigest(),
    )
