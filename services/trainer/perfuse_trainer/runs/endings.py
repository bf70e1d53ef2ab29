"""How a worker's hold on a run ends: the run ends with it, or waits again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, update

from perfuse.names import ConceptName
from perfuse.storage.database import AnyRow
from perfuse_trainer.resources import RunState
from perfuse_trainer.runs.events import append, state_news
from perfuse_trainer.sets.image_sets import release
from perfuse_trainer.tables import RUNS


def end(
    connection: Connection,
    row: AnyRow,
    state: RunState,
    moment: datetime,
    reason: str = "",
    message: str = "",
    version: int | None = None,
) -> list[str]:
    """End a run for good, and let go of its image set.

    Args:
        connection: In a transaction that holds the row.
        row: Of the run.
        state: SUCCEEDED, FAILED or CANCELLED.
        moment: When.
        reason, message: Why it failed.
        version: Number of the version that came of it.

    Returns:
        Digests of files that no row names once the transaction is committed.
    """
    ended = update(RUNS).where(RUNS.c.id == row.id)
    connection.execute(
        ended.values(
            state=state.value,
            fence=row.fence + 1,
            worker=None,
            lease_time=None,
            checkpoint_blob=None,
            adapter_blob=None,
            version_number=version,
            error_reason=reason,
            error_message=message,
            end_time=moment,
            update_time=moment,
            revision=row.revision + 1,
        )
    )
    name = "" if version is None else str(ConceptName(row.tenant, row.concept_id).version(version))
    news = state_news(state, row.attempt, reason=reason, message=message, version=name)
    append(connection, row.id, row.tenant, [news], moment)
    left = [blob for blob in (row.checkpoint_blob, row.adapter_blob) if blob is not None]
    if row.image_set is not None:
        left += release(connection, row.image_set)
    return left


def requeue(connection: Connection, row: AnyRow, moment: datetime, **changes: Any) -> None:
    """Have the run wait again, whoever held it."""
    queued = update(RUNS).where(RUNS.c.id == row.id)
    connection.execute(
        queued.values(
            state=RunState.QUEUED.value,
            # Whoever still believes to hold it must not write any more.
            fence=row.fence + 1,
            worker=None,
            lease_time=None,
            update_time=moment,
            revision=row.revision + 1,
            **changes,
        )
    )
    append(connection, row.id, row.tenant, [state_news(RunState.QUEUED, row.attempt)], moment)
