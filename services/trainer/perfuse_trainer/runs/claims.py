"""Claims: which worker may write about which run, and for how long.

A claim is a lease with a fencing number. Whoever claims a run raises `fence`, and every later write
names the number that it was claimed under; a worker that slept through its lease finds that its
number is no longer the run's, and nothing that it writes is taken.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, select, update

from perfuse.errors import PerfuseError
from perfuse.names import ConceptName, TrainingRunName
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.moments import now
from perfuse_trainer.resources import RunState
from perfuse_trainer.runs.consent import is_consented
from perfuse_trainer.runs.endings import end, requeue
from perfuse_trainer.runs.events import News, append
from perfuse_trainer.tables import RUNS

HELD = (RunState.RUNNING.value, RunState.CANCELLING.value)


class LeaseLost(Exception):
    """The run is no longer this worker's; whatever it knows of the run is void."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A run that a worker holds.

    Attributes:
        run: key of its row.
        fence: under which it was claimed.
        attempt: which this is, from 1.
        image_set: key of the image set's row.
        checkpoint: digest of the file to go on from, or None.
        traceparent: the span that asked for the run, or None.
    """

    run: int
    fence: int
    attempt: int
    tenant: str
    run_id: str
    uid: str
    concept_id: str
    base_model_id: str
    image_set: int | None
    super_category: str
    key_lock: str
    settings: dict[str, Any]
    exclusive: bool
    checkpoint: str | None
    traceparent: str | None

    @property
    def name(self) -> TrainingRunName:
        """The run's name."""
        return TrainingRunName(self.tenant, self.run_id)

    @property
    def concept(self) -> ConceptName:
        """What it learns."""
        return ConceptName(self.tenant, self.concept_id)

    @classmethod
    def of(cls, row: AnyRow) -> Claim:
        """What a claimed run's row says."""
        return cls(
            run=row.id,
            fence=row.fence,
            attempt=row.attempt,
            tenant=row.tenant,
            run_id=row.run_id,
            uid=row.uid,
            concept_id=row.concept_id,
            base_model_id=row.base_model_id,
            image_set=row.image_set,
            super_category=row.super_category,
            key_lock=row.key_lock,
            settings=row.settings,
            exclusive=row.exclusive,
            checkpoint=row.checkpoint_blob,
            traceparent=row.traceparent,
        )


class Claims:
    """Writes about runs, each under the claim that a worker has on it.

    Args:
        database: With the Trainer's tables.
        lease: How long a claim lasts without being renewed.
    """

    def __init__(self, database: Database, lease: timedelta) -> None:
        self.database = database
        self.lease = lease

    def look(self, claims: Sequence[Claim]) -> dict[int, RunState | None]:
        """Key of a run → its state, or None where the claim is lost or the person whose likeness
        it learns does not consent any more, as far as is known; one small query."""
        asked = select(RUNS.c.id, RUNS.c.fence, RUNS.c.state).where(
            RUNS.c.id.in_([claim.run for claim in claims]), is_consented(now())
        )
        rows = self.database.read(lambda connection: connection.execute(asked).all())
        found = {row.id: row for row in rows}
        states: dict[int, RunState | None] = {}
        for claim in claims:
            row = found.get(claim.run)
            held = row is not None and row.fence == claim.fence and row.state in HELD
            states[claim.run] = RunState(row.state) if row is not None and held else None
        return states

    def renew(self, worker: str, runs: Collection[int]) -> set[int]:
        """Make the leases of a worker's runs last anew; those that were lost stay lost.

        Args:
            worker: Whose id no other worker ever has.
            runs: Keys of runs.

        Returns:
            Keys of those that are still the worker's.
        """
        moment = now()
        renewed = (
            update(RUNS)
            .where(RUNS.c.id.in_(runs), RUNS.c.worker == worker, RUNS.c.state.in_(HELD))
            .values(lease_time=moment + self.lease)
            .returning(RUNS.c.id)
        )
        return self.database.transact(
            lambda connection: set(connection.execute(renewed).scalars().all())
        )

    def tell(self, claim: Claim, news: Sequence[News], **changes: Any) -> None:
        """Append events, and change the run's row with them.

        Raises:
            LeaseLost: the run is no longer the worker's; nothing was written.
        """
        self._write(claim, news, changes)

    def checkpoint(self, claim: Claim, blob: str, step: int) -> str | None:
        """Make a file the one to go on from.

        Returns:
            The file that was it before, which no row names any more.

        Raises:
            LeaseLost: the run is no longer the worker's.
        """
        changes = {"checkpoint_blob": blob, "checkpoint_step": step, "faults": 0}
        before = self._write(claim, (), changes)
        return before.checkpoint_blob  # type: ignore[no-any-return]

    def finish(self, claim: Claim, blob: str, digest: str, news: Sequence[News]) -> None:
        """Hand the adapter over for publication; the run is nobody's from then on.

        Raises:
            LeaseLost: the run is no longer the worker's, or was cancelled.
        """
        changes = {
            "adapter_blob": blob,
            "digest": digest,
            "finish_time": now(),
            "worker": None,
            "lease_time": None,
        }
        self._write(claim, news, changes, states=(RunState.RUNNING.value,))

    def fail(self, claim: Claim, error: PerfuseError) -> list[str]:
        """End the run with the reason; gives the files that no row names any more.

        Raises:
            LeaseLost: the run is no longer the worker's.
        """
        return self._end(claim, RunState.FAILED, error.reason, str(error))

    def cancelled(self, claim: Claim) -> list[str]:
        """End the run as was asked; gives the files that no row names any more.

        Raises:
            LeaseLost: the run is no longer the worker's.
        """
        return self._end(claim, RunState.CANCELLED)

    def give_back(self, claim: Claim) -> None:
        """Let another worker go on; without effect where the claim is lost."""
        moment = now()

        def work(connection: Connection) -> None:
            row = connection.execute(_locked(claim)).first()
            if row is not None and row.state == RunState.RUNNING.value:
                requeue(connection, row, moment)

        self.database.transact(work)

    def fault(self, claim: Claim, error: PerfuseError, most: int) -> tuple[int, list[str]]:
        """Count a fault that is not the run's own: it waits again, or ends with the reason.

        Args:
            claim: On the run.
            error: Why it ends, if it does.
            most: Faults in a row with which it ends.

        Returns:
            Its faults in a row, and the files that no row names any more.

        Raises:
            LeaseLost: the run is no longer the worker's.
        """
        moment = now()

        def work(connection: Connection) -> tuple[int, list[str]]:
            row = connection.execute(_locked(claim)).first()
            if row is None or row.state not in HELD:
                raise LeaseLost
            faults = row.faults + 1
            if row.state == RunState.CANCELLING.value:
                return faults, end(connection, row, RunState.CANCELLED, moment)
            if faults >= most:
                left = end(connection, row, RunState.FAILED, moment, error.reason, str(error))
                return faults, left
            requeue(connection, row, moment, faults=faults)
            return faults, []

        return self.database.transact(work)

    def _write(
        self,
        claim: Claim,
        news: Sequence[News],
        changes: dict[str, Any],
        states: Sequence[str] = HELD,
    ) -> AnyRow:
        moment = now()

        def work(connection: Connection) -> AnyRow:
            before = connection.execute(_locked(claim)).first()
            if before is None or before.state not in states:
                raise LeaseLost
            values = {"lease_time": moment + self.lease, "update_time": moment, **changes}
            values["revision"] = before.revision + 1
            connection.execute(_held(claim).values(**values))
            append(connection, claim.run, claim.tenant, news, moment)
            return before

        return self.database.transact(work)

    def _end(self, claim: Claim, state: RunState, reason: str = "", message: str = "") -> list[str]:
        moment = now()

        def work(connection: Connection) -> list[str]:
            row = connection.execute(_locked(claim)).first()
            if row is None or row.state not in HELD:
                raise LeaseLost
            if row.state == RunState.CANCELLING.value:
                return end(connection, row, RunState.CANCELLED, moment)
            return end(connection, row, state, moment, reason, message)

        return self.database.transact(work)


def _held(claim: Claim) -> Any:
    return update(RUNS).where(
        RUNS.c.id == claim.run, RUNS.c.fence == claim.fence, RUNS.c.state.in_(HELD)
    )


def _locked(claim: Claim) -> Any:
    chosen = select(RUNS).where(RUNS.c.id == claim.run, RUNS.c.fence == claim.fence)
    return chosen.with_for_update()
