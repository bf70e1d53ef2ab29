"""A worker from its settings: what `perfuse-trainer work` and Ray's actors do."""

from __future__ import annotations

import logging
import os
import threading
from functools import partial
from pathlib import Path

import torch

from perfuse.attach import BaseModel, silence_loading
from perfuse.errors import FailedPrecondition, NotFound, PerfuseError
from perfuse.quotas import Quotas
from perfuse.serving import tracing
from perfuse.storage.database import Database
from perfuse_trainer.runs.claims import Claims
from perfuse_trainer.runs.run_queue import Queue
from perfuse_trainer.schema import SCHEMA
from perfuse_trainer.service_settings import TrainerSettings
from perfuse_trainer.vault import MAX_BLOB_BYTES, Vault
from perfuse_trainer.working.previews import ImageEncoder
from perfuse_trainer.working.unusable import blame
from perfuse_trainer.working.worker import Worker, WorkerSettings

_log = logging.getLogger(__name__)

STALLED = 75
"""The exit status of a worker that hung."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}


def work(base_model_id: str, worker_id: str, stop: threading.Event) -> None:
    """Train runs of a base model until `stop` is set or none has come for long.

    The process ends at once where a step hangs: it would keep its device, and a place among the
    workers, for ever, and its runs are another's by then.

    Args:
        base_model_id: that the settings name.
        worker_id: under which to claim.
        stop: set by whoever wants it to end.

    Raises:
        NotFound: there is no such base model here.
        FailedPrecondition: it was not prepared.
        PerfuseError: it cannot be loaded, or the database is at another revision.
    """
    settings = TrainerSettings.load()
    directory = settings.base_directories().get(base_model_id)
    if directory is None:
        raise NotFound(f"PERFUSE_TRAINER_BASE_MODELS does not name {base_model_id}")
    _, end_tracing = tracing.configure("perfuse-trainer-worker")
    database = Database(settings.database_url.get_secret_value(), connections=4)
    try:
        SCHEMA.require_revision(database)
        silence_loading()
        queue = Queue(
            database, settings.lease, settings.max_faults, quotas=Quotas(settings.quota_file)
        )
        claims = Claims(database, settings.lease)
        vault = Vault(settings.store(MAX_BLOB_BYTES))
        try:
            base = _load(settings, directory)
        except (PerfuseError, torch.OutOfMemoryError) as error:
            _log.error("%s cannot be loaded: %s", directory, error)
            # Whoever starts workers would start the next one at once.
            stop.wait(blame(queue, claims, vault, worker_id, base_model_id, settings.pack))
            raise
        encoder = None
        if settings.image_encoder is not None:
            encoder = ImageEncoder(settings.image_encoder, base.device)
        worker = Worker(
            worker_id,
            base_model_id,
            base,
            queue,
            claims,
            vault,
            WorkerSettings(
                pack=settings.pack,
                checkpoint_every=settings.checkpoint_every,
                idle_seconds=settings.idle_seconds,
                stall_seconds=settings.stall_seconds,
                clipseg=settings.clipseg,
            ),
            encoder,
            on_stall=partial(_end_process, worker_id),
        )
        worker.run(stop)
    finally:
        database.close()
        end_tracing()


def _load(settings: TrainerSettings, directory: Path) -> BaseModel:
    base = BaseModel.load(directory, dtype=_DTYPES[settings.dtype], device=settings.device)
    if base.covariance is None:
        raise FailedPrecondition(
            f"{directory} is not prepared, so nothing can be trained on it. Run: "
            f"perfuse base prepare {directory} --captions FILE"
        )
    return base


def _end_process(worker_id: str) -> None:
    _log.error("%s hangs; its process ends, and its runs go on with another worker", worker_id)
    os._exit(STALLED)
