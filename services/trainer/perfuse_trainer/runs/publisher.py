"""Publication: finished adapters become versions in the Registry, each once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Connection, select

from perfuse.client.publication import Publication
from perfuse.client.registry import RegistryClient
from perfuse.errors import PerfuseError, RequestIdReused
from perfuse.names import ConceptName, TrainingRunName, VersionName
from perfuse.serving import tracing
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.moments import now
from perfuse_trainer.measures import POSTPONED, PUBLISHED, REFUSED, Measures
from perfuse_trainer.resources import RunState
from perfuse_trainer.runs.attachments import attachments_of
from perfuse_trainer.runs.endings import end
from perfuse_trainer.tables import RUNS
from perfuse_trainer.vault import Vault

REMEMBERED = timedelta(hours=12)
"""Shorter than the Registry remembers a `request_id`; afterwards it is asked what it has."""

_MAY_PASS = {
    "UNAVAILABLE",
    "ABORTED",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    # The operator's to mend: the run is done and keeps.
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "INTERNAL",
    "UNKNOWN",
}


class Publisher:
    """Publishes what workers finished, under the run's uid as `request_id`.

    Any number of Trainers may publish the same run at once: the Registry makes one version of it,
    and the first to come back ends the run.

    Args:
        database: With the Trainer's tables.
        vault: Of runs' files.
        registry: Where versions are made.
        authorization: That the Registry takes for any tenant's.
        measures: Counts the tries.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        registry: RegistryClient,
        authorization: str,
        measures: Measures | None = None,
    ) -> None:
        self._measures = measures or Measures()
        self._database, self._vault = database, vault
        self._registry, self._authorization = registry, authorization
        self._log = structlog.get_logger("perfuse_trainer.runs.publisher")

    async def publish(self) -> int:
        """Publish what is finished; what cannot be published now is tried at the next call.

        Returns:
            How many runs ended by it.
        """
        finished = (
            select(RUNS)
            .where(RUNS.c.state == RunState.RUNNING.value, RUNS.c.adapter_blob.is_not(None))
            .order_by(RUNS.c.finish_time)
            .limit(20)
        )
        rows = await asyncio.to_thread(
            self._database.read, lambda connection: connection.execute(finished).all()
        )
        return sum(await asyncio.gather(*map(self._publish, rows)))

    async def _publish(self, row: AnyRow) -> bool:
        name = str(TrainingRunName(row.tenant, row.run_id))
        try:
            with tracing.span("perfuse.publish", row.traceparent):
                version = await self._version(row)
        except PerfuseError as error:
            if error.status in _MAY_PASS:
                self._measures.publication(POSTPONED)
                self._log.warning("not_published", run=name, problem=str(error))
                return False
            self._measures.publication(REFUSED)
            self._log.error("cannot_be_published", run=name, problem=str(error))
            reason, problem = error.reason, f"the version could not be published: {error}"
            return await self._end(row, RunState.FAILED, reason=reason, message=problem)
        self._measures.publication(PUBLISHED)
        self._log.info("published", run=name, version=str(version))
        return await self._end(row, RunState.SUCCEEDED, version=version.number)

    async def _version(self, row: AnyRow) -> VersionName:
        adapter = await asyncio.to_thread(self._vault.get, row.tenant, row.adapter_blob)
        attached = await asyncio.to_thread(attachments_of, self._database, self._vault, row)
        work = Publication(
            concept=ConceptName(row.tenant, row.concept_id),
            adapter=adapter,
            training_run=TrainingRunName(row.tenant, row.run_id),
            request_id=row.uid,
            description=row.description,
            labels=row.labels,
            previews=attached.previews,
            curve=attached.curve,
        )
        if now() - row.finish_time > REMEMBERED:
            earlier = await self._registry.published(work, self._authorization)
            if earlier is not None:
                return earlier
        try:
            return await self._registry.publish(work, self._authorization)
        except RequestIdReused:
            # Published already with other previews: by an earlier release, which sent none, or
            # before the store lost one.
            earlier = await self._registry.published(work, self._authorization)
            if earlier is None:
                raise
            return earlier

    async def _end(self, row: AnyRow, state: RunState, **ending: Any) -> bool:
        moment = now()

        def work(connection: Connection) -> list[str] | None:
            chosen = select(RUNS).where(RUNS.c.id == row.id, RUNS.c.fence == row.fence)
            present = connection.execute(chosen.with_for_update()).first()
            if present is None or RunState(present.state).is_final:
                return None
            return end(connection, present, state, moment, **ending)

        left = await asyncio.to_thread(self._database.transact, work)
        if left is None:
            return False
        await asyncio.to_thread(self._vault.drop, row.tenant, left)
        return True
