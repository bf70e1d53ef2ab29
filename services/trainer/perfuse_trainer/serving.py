"""The Trainer as a server: its front door, its foreman, and a runner of workers."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta

from perfuse.client.registry import RegistryClient
from perfuse.serving import logs, tracing
from perfuse.serving.edge import Edge
from perfuse.serving.metrics import Metrics
from perfuse.serving.run import Server
from perfuse.serving.validation import ProtovalidateValidator
from perfuse.v1.trainer_pb2_grpc import add_TrainerServiceServicer_to_server
from perfuse_trainer.foreman import Foreman
from perfuse_trainer.measures import Measures
from perfuse_trainer.runners.local import LocalRunner
from perfuse_trainer.runners.runner import Runner
from perfuse_trainer.runs.consent import ConsentWatch
from perfuse_trainer.runs.erasing import Eraser
from perfuse_trainer.runs.publisher import Publisher
from perfuse_trainer.runs.run_queue import Queue
from perfuse_trainer.runs.staff import Staff
from perfuse_trainer.service_settings import TrainerSettings
from perfuse_trainer.sweeping import Sweeper
from perfuse_trainer.trainer import Trainer
from perfuse_trainer.wire.servicer import TrainerServicer, request_kinds

_PREFIX = "PERFUSE_TRAINER_"
_NOT_FOR_WORKERS = {
    f"{_PREFIX}{name}" for name in ("REGISTRY_TOKEN", "TOKEN_FILE", "PROVENANCE_KEYS")
}


async def serve(settings: TrainerSettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        PerfuseError: the settings do not allow it.
    """
    directories, authorization = settings.base_directories(), settings.registry_authorization()
    credentials = settings.registry_credentials()
    logs.configure(settings.log_level, settings.log_format)
    metrics = Metrics()
    measures = Measures(metrics.registry)
    trainer = Trainer.from_settings(settings, measures.storage)
    measures.tell_tables(trainer.database)
    validator = ProtovalidateValidator()
    validator.prepare(*request_kinds())
    tracer, end_tracing = tracing.configure("perfuse-trainer")
    edge = Edge(
        settings.authenticator(),
        validator,
        metrics=metrics,
        tracer=tracer,
        threads=settings.threads,
    )
    sweeper = Sweeper(trainer.database, trainer.vault, grace=timedelta(hours=settings.orphan_hours))

    def sweep() -> None:
        try:
            measures.sweep(sweeper.sweep())
            trainer.audit.forget()
        except Exception:
            measures.sweep(None)
            raise

    async with RegistryClient(settings.registry, credentials) as registry:
        consent = ConsentWatch(trainer.database, registry, authorization, trainer.vault.drop)
        eraser = Eraser(trainer.database, trainer.vault, registry, authorization)
        foreman = Foreman(
            Queue(
                trainer.database,
                settings.lease,
                settings.max_faults,
                on_loss=measures.lease_losses.inc,
            ),
            runner(settings),
            Publisher(trainer.database, trainer.vault, registry, authorization, measures),
            trainer.vault,
            sweep,
            Staff(trainer.database, settings.lease),
            workers=settings.workers,
            pack=settings.pack,
            base_models=frozenset(directories),
            measures=measures,
            sweep_seconds=settings.sweep_minutes * 60,
            # As if told so from outside: what is under way ends in order.
            chores=[consent.turn, eraser.turn],
            on_lost=lambda: os.kill(os.getpid(), signal.SIGTERM),
        )

        async def ready() -> None:
            await asyncio.to_thread(trainer.check)

        async def close() -> None:
            await foreman.stop(settings.grace_seconds)
            await asyncio.to_thread(trainer.close)
            end_tracing()

        server = Server.from_settings(settings, edge, ready=ready)
        servicer = TrainerServicer(trainer, registry, list(directories), edge)
        server.add(add_TrainerServiceServicer_to_server, servicer)
        server.on_close(close)
        foreman.start()
        await server.run()
        if foreman.lost is not None:
            raise foreman.lost


def runner(settings: TrainerSettings) -> Runner:
    """The runner that the settings name.

    Raises:
        Unavailable: there is no Ray cluster where they say.
    """
    if settings.runner == "local":
        return LocalRunner(dict.fromkeys(_NOT_FOR_WORKERS, ""))
    # Ray takes seconds to import, which those who do not use it need not wait for.
    from perfuse_trainer.runners.ray_actors import RayRunner

    return RayRunner(settings.ray_address, told_to_actors(settings), settings.device)


def told_to_actors(settings: TrainerSettings) -> dict[str, str]:
    """The environment of workers on other machines, which have no files of secrets."""
    told = settings.secrets() | {
        name: value for name, value in os.environ.items() if name.startswith((_PREFIX, "OTEL_"))
    }
    for name in _NOT_FOR_WORKERS:
        told.pop(name, None)
    return told
