"""From a prompt to a plan: concepts fetched, gates set, keys and values computed once and kept."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from perfuse.attach import (
    BaseModel,
    ConditioningPlan,
    Named,
    PlannedConcept,
    Prompt,
    gate_parameters,
    plan,
)
from perfuse.errors import BaseModelMismatch, InvalidArgument
from perfuse.method import KeyLock
from perfuse.names import VersionName
from perfuse_renderer.pool import AdapterPool, PooledAdapter
from perfuse_renderer.prompts import Part, Placeholder, parse_prompt, placeholders


@dataclass(frozen=True, slots=True)
class ConceptSettings:
    """What a request says of one placeholder; None leaves it to the adapter.

    Attributes:
        bias, temperature: of its gate.
        version: number, alias or `latest`, in place of what the placeholder says.
    """

    bias: float | None = None
    temperature: float | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class RenderedConcept:
    """A concept as it was planned, for the record."""

    placeholder: str
    version: VersionName
    digest: str
    bias: float
    temperature: float


@dataclass(frozen=True, slots=True)
class PlannedPrompt:
    """A plan, and what went into it."""

    plan: ConditioningPlan
    concepts: tuple[RenderedConcept, ...]


@dataclass(frozen=True, slots=True)
class Asker:
    """On whose behalf: the caller's tenant, and the credential to ask the Registry with."""

    tenant: str
    authorization: str = field(repr=False)


class Planner:
    """Plans prompts for one resident base model.

    Args:
        base: the base model.
        pool: where adapters come from.
        max_bytes: of plans kept; the same prompt with another seed is planned no second time.
    """

    def __init__(self, base: BaseModel, pool: AdapterPool, max_bytes: int = 1 << 30) -> None:
        self._base = base
        self._pool = pool
        self._max_bytes = max_bytes
        self._bytes = 0
        self._plans: OrderedDict[object, tuple[ConditioningPlan, int]] = OrderedDict()
        self.computed = 0

    async def plan(
        self,
        asker: Asker,
        prompt: str,
        settings: Mapping[str, ConceptSettings],
        key_lock: KeyLock | None,
        field: str = "prompt",
        *,
        max_chunks: int = 1,
        min_chunks: int = 1,
    ) -> PlannedPrompt:
        """The plan of a prompt that names concepts in place.

        Args:
            asker: who asks.
            prompt: as written.
            settings: placeholder as written → its settings; others may be there too.
            key_lock: None takes the lock that the adapters were trained with.
            field: of the request, for messages.
            max_chunks, min_chunks: as `perfuse.attach.plan` takes them.

        Raises:
            InvalidArgument, PromptRefused: a malformed or too long prompt, settings that disagree.
            NotFound, Unavailable, DataLoss: of a concept; the message has its place.
            BaseModelMismatch: a concept of another base model; names both.
            DependentConcepts: two concepts that cannot be told apart.
        """
        parts = parse_prompt(prompt, field)
        found = await self._fetch(asker, placeholders(parts), settings, field)
        concepts = _planned(found, settings)
        cut = Prompt.of(_named(parts, found))
        # The Registry's digests: an adapter's own costs as much as writing its file.
        digests = {str(pooled.version.name): pooled.version.digest for pooled in found.values()}
        key = (
            cut,
            key_lock,
            (max_chunks, min_chunks),
            tuple((c.name, digests[c.name], c.bias, c.temperature) for c in concepts),
        )
        kept = self._plans.get(key)
        if kept is None:
            made = await asyncio.to_thread(
                plan,
                self._base,
                cut,
                concepts,
                key_lock=key_lock,
                max_chunks=max_chunks,
                min_chunks=min_chunks,
            )
            self.computed += 1
            self._keep(key, made)
        else:
            self._plans.move_to_end(key)
            made = kept[0]
        return PlannedPrompt(made, _record(found, concepts, made.key_lock))

    async def _fetch(
        self,
        asker: Asker,
        named: Sequence[Placeholder],
        settings: Mapping[str, ConceptSettings],
        field: str,
    ) -> dict[str, PooledAdapter]:
        """Placeholder as written → its adapter."""
        first: dict[str, Placeholder] = {}
        for placeholder in named:
            first.setdefault(placeholder.written, placeholder)

        async def get(placeholder: Placeholder) -> PooledAdapter:
            name = placeholder.name(asker.tenant)
            wanted = settings.get(placeholder.written, ConceptSettings()).version
            if wanted is not None:
                name = name.parent.version(wanted)
            pooled = await self._pool.get(asker.tenant, name, asker.authorization)
            if pooled.version.fingerprint != self._base.fingerprint:
                raise BaseModelMismatch(
                    f"{field}, character {placeholder.position}: {pooled.version.name} stands on "
                    f"{pooled.version.base_model} ({pooled.version.fingerprint}); the base model "
                    f"here is {self._base.fingerprint} ({self._base.architecture}). Render on the "
                    "concept's own base model, or train it on this one"
                )
            return pooled

        pooled = await asyncio.gather(*map(get, first.values()))
        return dict(zip(first, pooled, strict=True))

    def _keep(self, key: object, made: ConditioningPlan) -> None:
        tensors = [*made.keys, *made.values, made.encodings]
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        if key in self._plans:
            return
        self._plans[key] = (made, size)
        self._bytes += size
        while self._bytes > self._max_bytes and len(self._plans) > 1:
            _, (_, dropped) = self._plans.popitem(last=False)
            self._bytes -= dropped


def _planned(
    found: Mapping[str, PooledAdapter], settings: Mapping[str, ConceptSettings]
) -> list[PlannedConcept]:
    """One concept for each version, however often and by whatever placeholder it is named."""
    concepts: dict[str, PlannedConcept] = {}
    for written, pooled in found.items():
        said = settings.get(written, ConceptSettings())
        name = str(pooled.version.name)
        concept = PlannedConcept(name, pooled.adapter, said.bias, said.temperature)
        other = concepts.setdefault(name, concept)
        if (other.bias, other.temperature) != (concept.bias, concept.temperature):
            raise InvalidArgument.in_field(
                "concepts",
                f"<{written}> and another placeholder are both {name}, with different settings. "
                "Give them the same, or name the concept in one way only",
            )
    return list(concepts.values())


def _named(parts: Sequence[Part], found: Mapping[str, PooledAdapter]) -> list[str | Named]:
    return [
        Named(str(found[part.written].version.name)) if isinstance(part, Placeholder) else part
        for part in parts
    ]


def _record(
    found: Mapping[str, PooledAdapter], concepts: Sequence[PlannedConcept], lock: KeyLock | None
) -> tuple[RenderedConcept, ...]:
    if lock is None:
        return ()
    by_name = {concept.name: concept for concept in concepts}
    record = []
    for written, pooled in found.items():
        concept = by_name[str(pooled.version.name)]
        bias, temperature = gate_parameters(concept, lock)
        record.append(
            RenderedConcept(written, pooled.version.name, pooled.version.digest, bias, temperature)
        )
    return tuple(record)
