"""Base models that stay: loaded, attached, and warm before anyone calls."""

from __future__ import annotations

import threading
from pathlib import Path

import torch

from perfuse.attach import BaseModel, silence_loading, unconditional
from perfuse.errors import FailedPrecondition
from perfuse_renderer.backend import LocalBackend
from perfuse_renderer.engine.engine import Engine
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.engine.render import Ended, Event, Render
from perfuse_renderer.engine.row import Picture
from perfuse_renderer.planning import Planner
from perfuse_renderer.pool import AdapterPool
from perfuse_renderer.settings import RendererSettings
from perfuse_renderer.studio import Studio

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def open_studio(
    name: str, directory: Path, pool: AdapterPool, settings: RendererSettings
) -> Studio:
    """Load a base model and make it ready to render.

    Args:
        name: `baseModels/{id}`.
        directory: in diffusers layout, prepared.
        pool: where its concepts come from.
        settings: of the Renderer.

    Raises:
        NotFound, BaseModelUnsuitable, DataLoss, BaseModelMismatch: as `BaseModel.load`.
        FailedPrecondition: it was not prepared.
    """
    silence_loading()
    base = BaseModel.load(directory, dtype=_DTYPES[settings.dtype], device=settings.device)
    if base.covariance is None:
        raise FailedPrecondition(
            f"{directory} is not prepared, so concepts cannot be rendered on it. Run: "
            f"perfuse base prepare {directory} --captions FILE"
        )
    if base.device.type != "cpu":
        base.unet.to(memory_format=torch.channels_last)
    engine = Engine(
        base,
        EngineSettings(
            max_lanes=settings.max_lanes,
            max_waiting=settings.max_waiting,
            max_waiting_of_tenant=settings.max_waiting_of_tenant,
        ),
    )
    studio = Studio(
        name,
        base,
        Planner(base, pool, settings.plan_megabytes << 20),
        LocalBackend(engine),
        settings.guidance,
    )
    _warm_up(engine, studio)
    return studio


def _warm_up(engine: Engine, studio: Studio) -> None:
    """One step of the base model's own size in a batch of one, so that the first caller's is fast.

    Raises:
        PerfuseError: it failed; then nothing else would succeed.
    """
    nothing = unconditional(studio.base)
    size = studio.picture_size
    ended = threading.Event()
    told: list[Event] = []

    def tell(event: Event) -> None:
        told.append(event)
        if isinstance(event, Ended):
            ended.set()

    engine.submit(Render("", [Picture(nothing, nothing, 0, 2, 2.0, "", size, size)], tell))
    ended.wait()
    for event in told:
        if error := getattr(event, "error", None):
            raise error
