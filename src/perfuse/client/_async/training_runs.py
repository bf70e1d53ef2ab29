"""Training runs, as callers use them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path

from perfuse.adapter.header import digest
from perfuse.client import reading_trainer as reading
from perfuse.client._async.calls import Calls
from perfuse.client.channels import aio_pause
from perfuse.client.resources import StoredLock
from perfuse.client.training import StateChange, TrainingEvent, TrainingRun, TrainingSettings
from perfuse.client.writing import key_lock as lock_of
from perfuse.client.writing import request_id_or_new, training_settings
from perfuse.errors import Unavailable
from perfuse.v1 import trainer_pb2 as wire

PATIENCE = 120.0
"""Seconds for which a watcher goes on trying while the Trainer does not answer."""


class TrainingRuns:
    """Runs of the Trainer; meant by id or whole name."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def create(
        self,
        concept: str,
        image_set: str,
        *,
        settings: TrainingSettings | None = None,
        key_lock: StoredLock = "LOCAL",
        base_model: str = "",
        super_category: str = "",
        description: str = "",
        labels: Mapping[str, str] | None = None,
        training_run: str = "",
        request_id: str = "",
    ) -> TrainingRun:
        """Queue a run; its version becomes the concept's next one when it succeeds.

        Args:
            concept: that exists in the Registry.
            image_set: with images; it takes no more from then on.
            settings: the paper's by default.
            key_lock: how keys are locked while training.
            base_model: empty where the Trainer has only one.
            super_category: empty takes the concept's; another one is refused.
            description, labels: of the version; labels of the run too.
            training_run: its id to be; drawn by the Trainer where it is empty.
            request_id: the same for the same wish, so that it is done once; drawn by default.
        """
        names = self._calls.names
        request = wire.CreateTrainingRunRequest(
            parent=names.parent,
            training_run_id=training_run,
            training_run=wire.TrainingRun(
                concept=str(names.concept(concept)),
                image_set=str(names.image_set(image_set)),
                base_model=str(names.base_model(base_model)) if base_model else "",
                super_category=super_category,
                key_lock=lock_of(key_lock),
                settings=training_settings(settings or TrainingSettings()),
                description=description,
                labels=labels or {},
            ),
            request_id=request_id_or_new(request_id),
        )
        made = await self._calls.call("trainer", "CreateTrainingRun", request)
        return reading.training_run(made)

    async def get(self, training_run: str) -> TrainingRun:
        """A run with its validations so far."""
        name = str(self._calls.names.training_run(training_run))
        request = wire.GetTrainingRunRequest(name=name)
        return reading.training_run(await self._calls.call("trainer", "GetTrainingRun", request))

    async def list(
        self, *, filter: str = "", order_by: str = "", page_size: int = 0
    ) -> AsyncIterator[TrainingRun]:
        """The tenant's runs, the newest first, fetched page by page.

        Args:
            filter: AIP-160, as `state = "RUNNING"`.
            order_by: as `create_time desc`.
            page_size: of a page; 0 leaves it to the Trainer.
        """
        request = wire.ListTrainingRunsRequest(
            parent=self._calls.names.parent, filter=filter, order_by=order_by, page_size=page_size
        )
        async for each in self._calls.pages(
            "trainer", "ListTrainingRuns", request, "training_runs"
        ):
            yield reading.training_run(each)

    async def cancel(self, training_run: str) -> TrainingRun:
        """End a run within one step; no version comes of it. An ended run stays as it is."""
        name = str(self._calls.names.training_run(training_run))
        request = wire.CancelTrainingRunRequest(name=name, request_id=request_id_or_new(""))
        return reading.training_run(await self._calls.call("trainer", "CancelTrainingRun", request))

    async def learned_from(self, training_run: str, picture: str | Path) -> bool:
        """Whether a run learned from a picture, proved by the file as it was uploaded.

        The Trainer keeps keyed digests of a run's pictures for as long as the run; the picture
        itself is not sent.

        Args:
            training_run: id or name.
            picture: the file.

        Raises:
            FailedPrecondition: the Trainer kept none, or no longer has the secret for them.
        """
        request = wire.CheckTrainingImageRequest(
            name=str(self._calls.names.training_run(training_run)),
            digest=digest(Path(picture).read_bytes()),
        )
        told = await self._calls.call("trainer", "CheckTrainingImage", request)
        return bool(told.used)

    async def delete(self, training_run: str) -> None:
        """Delete a run that has ended, with its events and previews; its version stays.

        Raises:
            TrainingRunNotEnded: it has not ended.
        """
        name = str(self._calls.names.training_run(training_run))
        request = wire.DeleteTrainingRunRequest(name=name, request_id=request_id_or_new(""))
        await self._calls.call("trainer", "DeleteTrainingRun", request)

    async def watch(
        self, training_run: str, *, after_sequence: int = 0, patience: float = PATIENCE
    ) -> AsyncIterator[TrainingEvent]:
        """A run's events, those of the past at once and those to come as they happen.

        Ends after the event of the run's end. Where the connection is lost, or the Trainer is
        started anew, it goes on after the last event that was told: none is missed, none comes
        twice.

        Args:
            training_run: id or name.
            after_sequence: tell only what came after this event; 0 tells all.
            patience: seconds for which the Trainer may be away.

        Raises:
            NotFound: there is no such run of the caller's.
            Unavailable: the Trainer was away for longer.
        """
        name = str(self._calls.names.training_run(training_run))
        last, heard, wait = after_sequence, time.monotonic(), 0.2
        while True:
            request = wire.WatchTrainingRunRequest(name=name, after_sequence=last)
            try:
                watched = self._calls.stream("trainer", "WatchTrainingRun", request)
                async with aclosing(watched) as told:
                    async for sent in told:
                        last, heard, wait = sent.sequence, time.monotonic(), 0.2
                        event = reading.training_event(sent)
                        if event is not None:
                            yield event
                        if isinstance(event, StateChange) and event.ended:
                            return
                # A server that drains may end a watch early; a run that was over ends it too.
                found = await self.get(name)
                if found.ended and last >= found.last_sequence:
                    return
            except Unavailable:
                if time.monotonic() - heard > patience:
                    raise
            await aio_pause(wait)
            wait = min(2 * wait, 5.0)

    async def wait(self, training_run: str, *, patience: float = PATIENCE) -> TrainingRun:
        """The run once it has ended, however it did; see its `state`, `version` and `error`."""
        name = str(self._calls.names.training_run(training_run))
        after = (await self.get(name)).last_sequence
        # One less, so that a run that has ended already has an event to tell.
        async for _ in self.watch(name, after_sequence=max(0, after - 1), patience=patience):
            pass
        return await self.get(name)
