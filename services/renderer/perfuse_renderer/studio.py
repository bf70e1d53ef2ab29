"""A studio: one resident base model with all that it takes to render on it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version as release_of
from typing import Any

from perfuse.attach import MAX_CHUNKS, BaseModel, ConditioningPlan, unconditional
from perfuse.errors import InvalidArgument
from perfuse.method import KeyLock
from perfuse.serving import tracing
from perfuse_renderer.backend import Backend
from perfuse_renderer.engine.render import Event, Stepped
from perfuse_renderer.engine.row import Picture
from perfuse_renderer.engine.schedulers import make_scheduler, scheduler_name
from perfuse_renderer.ledger import Ledger
from perfuse_renderer.planning import (
    Asker,
    ConceptSettings,
    PlannedPrompt,
    Planner,
    RenderedConcept,
)

DEFAULT_STEPS = 30
_GRANULE = 8


@dataclass(frozen=True, slots=True)
class RenderOrder:
    """What a caller asks to be rendered; zeros and Nones are left to the studio."""

    prompt: str
    negative_prompt: str = ""
    concepts: Mapping[str, ConceptSettings] = field(default_factory=dict)
    key_lock: KeyLock | None = None
    seeds: Sequence[int] = ()
    image_count: int = 0
    width: int = 0
    height: int = 0
    steps: int = 0
    guidance: float | None = None
    scheduler: str = ""
    in_chunks: bool = False
    """Whether a prompt that is too long is read in chunks, and not refused."""


@dataclass(frozen=True, slots=True)
class Record:
    """Exactly what one picture was rendered from; the same record gives the same picture."""

    base_model: str
    base_model_fingerprint: str
    prompt: str
    negative_prompt: str
    concepts: tuple[RenderedConcept, ...]
    key_lock: str
    plan_digest: str
    negative_plan_digest: str
    seed: int
    width: int
    height: int
    steps: int
    guidance: float
    scheduler: str
    release: str
    render_time: datetime
    chunk_count: int


@dataclass(frozen=True, slots=True)
class Commission:
    """An order with everything settled, ready for the backend."""

    order: RenderOrder
    pictures: tuple[Picture, ...]
    planned: PlannedPrompt
    negative: PlannedPrompt | None
    scheduler: str


class Studio:
    """Renders on one base model.

    Args:
        name: `baseModels/{id}`.
        base: loaded.
        planner: of its prompts.
        backend: that steps its rows.
        guidance: where an order says none.
        ledger: of its renders; one that nobody reads by default.
    """

    def __init__(
        self,
        name: str,
        base: BaseModel,
        planner: Planner,
        backend: Backend,
        guidance: float = 7.5,
        ledger: Ledger | None = None,
    ) -> None:
        self.name = name
        self.base = base
        self.backend = backend
        self.planner = planner
        self.ledger = ledger or Ledger()
        self._guidance = guidance
        self._nothings: dict[int, ConditioningPlan] = {}
        self._release = release_of("perfuse")

    @property
    def picture_size(self) -> int:
        """Width and height of the base model's own pictures, in pixels."""
        return int(self.base.unet.config.sample_size * self.base.pipeline.vae_scale_factor)

    async def commission(self, asker: Asker, order: RenderOrder) -> Commission:
        """Settle an order: fetch its concepts, plan its prompts, choose what it leaves open.

        Raises:
            InvalidArgument: settings that do not fit; and whatever `Planner.plan` raises.
        """
        size = self._size(order)
        seeds = _seeds(order)
        scheduler = scheduler_name(self.base, order.scheduler)
        steps = order.steps or DEFAULT_STEPS
        guidance = self._guidance if order.guidance is None else order.guidance
        _require_known(order)
        # Found out now, not in the middle of everyone's batch.
        _require_steps(make_scheduler(self.base, order.scheduler), scheduler, steps)
        with tracing.span("perfuse.plan", base_model=self.name):
            planned, negative = await self._prompts(asker, order, compared=guidance > 1)
            against = negative.plan if negative else await self._nothing(len(planned.plan.chunks))
        pictures = tuple(
            Picture(planned.plan, against, seed, steps, guidance, order.scheduler, *size)
            for seed in seeds
        )
        return Commission(order, pictures, planned, negative, scheduler)

    async def render(
        self, tenant: str, work: Commission, *, deadline: float | None, preview_every: int = 0
    ) -> AsyncIterator[Event]:
        """Every event of a commission; see `Backend.render`."""
        events = self.backend.render(
            tenant, work.pictures, deadline=deadline, preview_every=preview_every
        )
        entry = self.ledger.open(work.pictures)
        rendering = tracing.begin(
            "perfuse.render", base_model=self.name, pictures=len(work.pictures)
        )
        try:
            async with aclosing(events) as listened:  # type: ignore[type-var]
                async for event in listened:
                    if isinstance(event, Stepped) and not entry.begun:
                        rendering.add_event("began")
                    entry.hear(event)
                    yield event
        finally:
            entry.close()
            rendering.end()

    def record(self, work: Commission, index: int) -> Record:
        """What the picture `index` of a commission was rendered from."""
        picture = work.pictures[index]
        lock = work.planned.plan.key_lock
        named = {concept.placeholder: concept for concept in work.planned.concepts}
        for concept in work.negative.concepts if work.negative else ():
            named.setdefault(concept.placeholder, concept)
        return Record(
            base_model=self.name,
            base_model_fingerprint=self.base.fingerprint,
            prompt=work.order.prompt,
            negative_prompt=work.order.negative_prompt,
            concepts=tuple(named.values()),
            key_lock=lock.value if lock else "",
            plan_digest=picture.plan.digest,
            negative_plan_digest=picture.negative.digest,
            seed=picture.seed,
            width=picture.width,
            height=picture.height,
            steps=picture.steps,
            guidance=picture.guidance,
            scheduler=work.scheduler,
            release=self._release,
            render_time=datetime.now(UTC),
            chunk_count=len(picture.plan.chunks),
        )

    async def _prompts(
        self, asker: Asker, order: RenderOrder, *, compared: bool
    ) -> tuple[PlannedPrompt, PlannedPrompt | None]:
        """The prompt and the negative prompt; of one length where guidance compares them."""
        texts = {"prompt": order.prompt}
        if order.negative_prompt:
            texts["negative_prompt"] = order.negative_prompt

        async def planned(least: int) -> list[PlannedPrompt]:
            return await asyncio.gather(
                *(self._plan(asker, order, texts[field], field, least) for field in texts)
            )

        prompts = await planned(1)
        _require_named(order, prompts)
        counts = {len(prompt.plan.chunks) for prompt in prompts}
        if compared and len(counts) > 1:
            prompts = await planned(max(counts))
        return prompts[0], prompts[1] if len(prompts) > 1 else None

    async def _plan(
        self, asker: Asker, order: RenderOrder, prompt: str, field: str, least: int
    ) -> PlannedPrompt:
        return await self.planner.plan(
            asker,
            prompt,
            order.concepts,
            order.key_lock,
            field,
            max_chunks=MAX_CHUNKS if order.in_chunks else 1,
            min_chunks=least,
        )

    async def _nothing(self, chunks: int) -> ConditioningPlan:
        """The plan of no prompt, as long as the one that it is compared with."""
        if chunks not in self._nothings:
            self._nothings[chunks] = await asyncio.to_thread(unconditional, self.base, chunks)
        return self._nothings[chunks]

    def _size(self, order: RenderOrder) -> tuple[int, int]:
        own = self.picture_size
        height, width = order.height or own, order.width or own
        # The denoiser halves the latents at every level, and must get them back.
        levels = len(self.base.unet.config.block_out_channels) - 1
        granule = max(_GRANULE, self.base.pipeline.vae_scale_factor * 2**levels)
        for side, value in (("height", height), ("width", width)):
            if value % granule:
                raise InvalidArgument.in_field(
                    f"settings.{side}", f"{value} is not a multiple of {granule} pixels"
                )
        return height, width


def _seeds(order: RenderOrder) -> list[int]:
    if order.seeds and order.image_count:
        raise InvalidArgument.in_field(
            "settings.image_count", "give seeds or a number of pictures, not both"
        )
    if order.seeds:
        return list(order.seeds)
    return [secrets.randbelow(2**32) for _ in range(order.image_count or 1)]


def _require_known(order: RenderOrder) -> None:
    if order.key_lock is KeyLock.TRAINED_K:
        raise InvalidArgument.in_field(
            "settings.key_lock", "choose LOCAL or GLOBAL; TRAINED_K is taken where it was trained"
        )


def _require_steps(scheduler: Any, name: str, steps: int) -> None:
    try:
        scheduler.set_timesteps(steps)
    except ValueError as error:
        raise InvalidArgument.in_field(
            "settings.steps",
            f"the scheduler {name} cannot take {steps}. Give another number, or choose another "
            "scheduler",
        ) from error


def _require_named(order: RenderOrder, planned: Sequence[PlannedPrompt]) -> None:
    named = {concept.placeholder for prompt in planned for concept in prompt.concepts}
    if unnamed := sorted(set(order.concepts) - named):
        raise InvalidArgument.in_field(
            "settings.concepts",
            f"{', '.join(f'<{name[:80]}>' for name in unnamed)} is not in the prompt. Name it "
            "there as it is written here, or leave its settings out",
        )
