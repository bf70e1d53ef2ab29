"""Every base model of a Renderer opened, and closed again, with the backend it is to have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from perfuse.attach import BaseModel
from perfuse.errors import FailedPrecondition
from perfuse_renderer.backend import Backend, LocalBackend
from perfuse_renderer.engine.limits import EngineSettings
from perfuse_renderer.ledger import Ledger
from perfuse_renderer.measures import Measures
from perfuse_renderer.planning import Planner
from perfuse_renderer.pool import AdapterPool
from perfuse_renderer.residence import DTYPES, forget_steps, load_base, start_engine
from perfuse_renderer.settings import RendererSettings
from perfuse_renderer.studio import Studio


@asynccontextmanager
async def open_studios(
    settings: RendererSettings, pool: AdapterPool, measures: Measures | None = None
) -> AsyncIterator[dict[str, Studio]]:
    """`baseModels/{id}` → studio, ready to render; at the end nothing of them is left.

    Args:
        settings: of the Renderer.
        pool: where concepts come from.
        measures: count what is done; their own by default, which nobody reads.

    Raises:
        NotFound, BaseModelUnsuitable, DataLoss, BaseModelMismatch: as `BaseModel.load`.
        FailedPrecondition: a base model was not prepared, or its replicas do not start.
        Unavailable: no Ray cluster answers where one is to be joined.
    """
    directories = settings.base_directories()
    studios: dict[str, Studio] = {}
    measures = measures or Measures()
    measures.tell(studios, pool, settings.max_lanes)
    opening = _served if settings.backend == "serve" else _local
    async with opening(settings, directories, pool, measures, studios):
        try:
            yield studios
        finally:
            await asyncio.gather(*(studio.backend.drain(0.0) for studio in studios.values()))


@asynccontextmanager
async def _local(
    settings: RendererSettings,
    directories: Mapping[str, Path],
    pool: AdapterPool,
    measures: Measures,
    studios: dict[str, Studio],
) -> AsyncIterator[None]:
    for name, directory in directories.items():
        base = await asyncio.to_thread(_prepared, directory, settings.device, settings.dtype)
        engine = await asyncio.to_thread(start_engine, base, _limits(settings))
        backend = LocalBackend(engine)
        studios[name] = _studio(name, base, backend, pool, measures, settings)
    yield


@asynccontextmanager
async def _served(
    settings: RendererSettings,
    directories: Mapping[str, Path],
    pool: AdapterPool,
    measures: Measures,
    studios: dict[str, Studio],
) -> AsyncIterator[None]:
    # Only here, for Ray takes seconds to import.
    from perfuse_renderer.cluster import Cluster
    from perfuse_renderer.plan_store import PlanStore
    from perfuse_renderer.replica import ReplicaSettings
    from perfuse_renderer.serve_backend import ServeBackend

    cluster = Cluster(settings, len(directories))
    try:
        for name, directory in directories.items():
            # Prompts are planned here, on the CPU, and exactly.
            base = await asyncio.to_thread(_prepared, directory, "cpu", "float32")
            forget_steps(base)
            replica = ReplicaSettings(
                str(directory.resolve()),
                base.fingerprint,
                settings.device,
                settings.dtype,
                _limits(settings),
                settings.plan_megabytes,
            )
            handle = cluster.deploy(name.removeprefix("baseModels/"), replica)
            store = PlanStore(DTYPES[settings.dtype], settings.object_store_megabytes << 19)
            backend = ServeBackend(handle, store, patience=settings.replica_wait_seconds)
            studios[name] = _studio(
                name, base, backend, pool, measures, settings, forget=store.forget
            )
        if cluster.owned:
            # In a cluster that grows, the first replica may come hours later: health tells.
            for name in directories:
                await cluster.started(name.removeprefix("baseModels/"))
        yield
    finally:
        cluster.close()


def _prepared(directory: Path, device: str, dtype: str) -> BaseModel:
    base = load_base(directory, device, dtype)
    if base.covariance is None:
        raise FailedPrecondition(
            f"{directory} is not prepared, so concepts cannot be rendered on it. Run: "
            f"perfuse base prepare {directory} --captions FILE"
        )
    return base


def _studio(
    name: str,
    base: BaseModel,
    backend: Backend,
    pool: AdapterPool,
    measures: Measures,
    settings: RendererSettings,
    *,
    forget: Callable[[list[str]], object] = lambda plans: None,
) -> Studio:
    plans = settings.plan_megabytes << 20
    book = measures.book(name.removeprefix("baseModels/"))
    planner = Planner(
        base,
        pool,
        plans,
        max_text_bytes=plans >> 3,
        max_concept_bytes=plans >> 3,
        on_made=book.planned,
    )
    pool.on_forget.append(lambda digests: forget(planner.forget(digests)))
    return Studio(name, base, planner, backend, settings.guidance, Ledger(book))


def _limits(settings: RendererSettings) -> EngineSettings:
    return EngineSettings(
        max_lanes=settings.max_lanes,
        max_waiting=settings.max_waiting,
        max_waiting_of_tenant=settings.max_waiting_of_tenant,
        compile=settings.compile,
    )
