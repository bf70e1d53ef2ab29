"""From a prompt to a plan: concepts fetched, gates set, keys and values computed once and kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from perfuse.attach import (
    BaseModel,
    ConditioningPlan,
    Named,
    PlannedConcept,
    PreparedConcept,
    Prompt,
    TextEncoding,
    gate_parameters,
    plan,
    prepare_concept,
)
from perfuse.errors import BaseModelMismatch, InvalidArgument
from perfuse.method import KeyLock
from perfuse.names import VersionName
from perfuse_renderer.kept import Kept
from perfuse_renderer.pool import AdapterPool, PooledAdapter
from perfuse_renderer.prompts import Part, Placeholder, parse_prompt, placeholders
from perfuse_renderer.turns import Turns


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


@dataclass(slots=True)
class _Flight:
    """A plan that is being made, and how many wait for it."""

    task: asyncio.Task[ConditioningPlan]
    waiting: int = 0


class Planner:
    """Plans prompts for one resident base model.

    One thread plans, so that planning takes no more of the machine from the denoiser than that,
    and the first of several plans is not as late as the last. Tenants take turns at it.

    Args:
        base: the base model.
        pool: where adapters come from.
        max_bytes: of plans kept; the same prompt with another seed is planned no second time.
        max_text_bytes: of text encodings kept; the same text with the same concepts is encoded no
            second time, whatever their bias, temperature and key lock.
        max_concept_bytes: of prepared concepts kept; a concept that comes again in another prompt
            is not projected again.
        on_made: told the seconds that each plan took to make.

    Attributes:
        computed: plans made so far.
    """

    def __init__(
        self,
        base: BaseModel,
        pool: AdapterPool,
        max_bytes: int = 1 << 30,
        *,
        max_text_bytes: int = 1 << 27,
        max_concept_bytes: int = 1 << 27,
        on_made: Callable[[float], object] = lambda seconds: None,
    ) -> None:
        self._on_made = on_made
        self._base = base
        self._pool = pool
        self._plans: Kept[Hashable, ConditioningPlan] = Kept(max_bytes, _plan_bytes)
        self._texts: Kept[str, TextEncoding] = Kept(max_text_bytes, _text_bytes)
        self._concepts: Kept[str, PreparedConcept] = Kept(
            max_concept_bytes, lambda concept: concept.nbytes
        )
        self._flights: dict[Hashable, _Flight] = {}
        self._turns = Turns()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="perfuse-planner")
        self.computed = 0

    @property
    def caches(self) -> dict[str, Kept[Any, Any]]:
        """What is kept, by what it is."""
        return {"plans": self._plans, "texts": self._texts, "concepts": self._concepts}

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
        made = self._plans.get(key)
        if made is None:

            def make() -> ConditioningPlan:
                return plan(
                    self._base,
                    cut,
                    [self._prepared(concept, digests[concept.name]) for concept in concepts],
                    key_lock=key_lock,
                    max_chunks=max_chunks,
                    min_chunks=min_chunks,
                    store=self._texts,
                )

            made = await self._once(asker.tenant, key, make)
        return PlannedPrompt(made, _record(found, concepts, made.key_lock))

    def forget(self, digests: frozenset[str]) -> list[str]:
        """Keep nothing any more that was computed from these adapters.

        Returns:
            Digests of the plans that were kept.
        """
        self._concepts.drop(lambda digest: digest in digests)
        # Few texts, and which of them went with which adapter nobody has written down.
        self._texts.drop(lambda text: True)
        dropped = self._plans.drop(lambda key: not digests.isdisjoint(_adapters_of(key)))
        return [made.digest for made in dropped]

    def _prepared(self, concept: PlannedConcept, digest: str) -> PlannedConcept:
        """The concept with what no prompt changes of it; computed here the first time."""
        ready = self._concepts.get(digest)
        if ready is None:
            ready = prepare_concept(self._base, concept.adapter)
            self._concepts.put(digest, ready)
        return replace(concept, adapter=ready.adapter, prepared=ready)

    async def _once(
        self, tenant: str, key: Hashable, make: Callable[[], ConditioningPlan]
    ) -> ConditioningPlan:
        """The plan of a key, made once for all who ask meanwhile, as long as anyone waits."""
        flight = self._flights.get(key)
        if flight is None:
            flight = _Flight(asyncio.ensure_future(self._make(tenant, key, make)))
            self._flights[key] = flight
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and self._flights.get(key) is flight:
                del self._flights[key]
                flight.task.cancel()

    async def _make(
        self, tenant: str, key: Hashable, make: Callable[[], ConditioningPlan]
    ) -> ConditioningPlan:
        async with self._turns.turn(tenant):
            began = time.perf_counter()
            made = await asyncio.get_running_loop().run_in_executor(self._thread, make)
        self._on_made(time.perf_counter() - began)
        self.computed += 1
        self._plans.put(key, made)
        return made

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


def _adapters_of(key: Any) -> list[str]:
    """Digests of the adapters that went into the plan of a key."""
    return [digest for _, digest, *_ in key[-1]]


def _plan_bytes(made: ConditioningPlan) -> int:
    return sum(tensor.nbytes for tensor in (*made.keys, *made.values, made.encodings))


def _text_bytes(encoding: TextEncoding) -> int:
    return sum(tensor.nbytes for tensor in encoding if tensor is not None)


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
