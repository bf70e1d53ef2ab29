"""The queue: whose run is next, and what becomes of runs whose workers died."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, literal, select, update

from perfuse.quotas import Quotas
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.moments import Moment, now
from perfuse_trainer.resources import RunState
from perfuse_trainer.runs.allowance import Allowance
from perfuse_trainer.runs.claims import HELD, Claim
from perfuse_trainer.runs.consent import is_consented
from perfuse_trainer.runs.endings import end, requeue
from perfuse_trainer.runs.events import append, state_news
from perfuse_trainer.tables import RUNS


class Queue:
    """Runs that wait.

    Args:
        database: With the Trainer's tables.
        lease: How long a claim lasts without being renewed.
        max_faults: Deaths of workers in a row, none of which got to a new checkpoint, after which
            a run is given up.
        on_loss: Called for each run that is taken from a worker which fell silent.
        quotas: How many runs of a tenant may be trained at a time.
    """

    def __init__(
        self,
        database: Database,
        lease: timedelta,
        max_faults: int = 5,
        *,
        on_loss: Callable[[], object] = lambda: None,
        quotas: Quotas | None = None,
    ) -> None:
        self._allowance = Allowance(quotas or Quotas())
        self._on_loss = on_loss
        self._database = database
        self._lease = lease
        self.max_faults = max_faults

    def claim(
        self, worker: str, base_models: Sequence[str], room: int, *, alone: bool
    ) -> list[Claim]:
        """Claim runs that wait, fairly between tenants.

        The next run is of the tenant with the fewest runs under way, then of the one whose turn
        was longest ago; within a tenant the oldest. A tenant with as many runs under way as its
        quota allows waits. An exclusive run is claimed only by a worker
        that has nothing else, and then nothing beside it.

        Args:
            worker: Who claims.
            base_models: Ids of the base models that it has.
            room: Most runs to claim.
            alone: Whether it holds nothing at the moment.
        """
        claims: list[Claim] = []
        while len(claims) < room:
            free = alone and not claims
            found = self._database.transact(
                lambda connection, free=free: self._claim_one(  # type: ignore[misc]
                    connection, worker, base_models, exclusive_too=free
                )
            )
            if found is None:
                break
            claims.append(found)
            if found.exclusive:
                break
        return claims

    def length(self) -> dict[str, int]:
        """Id of a base model → its runs that wait or are being trained."""
        moment = now()
        counted = (
            select(RUNS.c.base_model_id, func.count())
            .where(
                (RUNS.c.state == RunState.QUEUED.value)
                | (RUNS.c.state.in_(HELD) & (RUNS.c.lease_time >= moment))
            )
            .group_by(RUNS.c.base_model_id)
        )
        return self._database.read(
            lambda connection: dict(connection.execute(counted).tuples().all())
        )

    def waiting(self) -> set[str]:
        """Ids of base models that runs wait for."""
        asked = select(RUNS.c.base_model_id).where(RUNS.c.state == RunState.QUEUED.value).distinct()
        return self._database.read(
            lambda connection: set(connection.execute(asked).scalars().all())
        )

    def reap(self) -> list[tuple[str, str]]:
        """Take up what dead workers left: queue it again, or end it.

        Returns:
            Pairs of tenant and digest of files that no row names any more.
        """
        moment = now()
        left = (
            select(RUNS)
            .where(RUNS.c.state.in_(HELD), RUNS.c.lease_time < moment)
            .order_by(RUNS.c.id)
            .limit(100)
        )
        dropped: list[tuple[str, str]] = []
        rows = self._database.read(lambda connection: connection.execute(left).all())
        for row in rows:
            found = self._database.transact(
                lambda connection, row=row: self._reap_one(  # type: ignore[misc]
                    connection, row, moment
                )
            )
            if found is not None:
                self._on_loss()
                dropped += [(row.tenant, blob) for blob in found]
        return dropped

    def _reap_one(self, connection: Connection, seen: AnyRow, moment: datetime) -> list[str] | None:
        """Files that no row names any more; None where the run is no longer to be taken up."""
        chosen = select(RUNS).where(
            RUNS.c.id == seen.id, RUNS.c.fence == seen.fence, RUNS.c.lease_time < moment
        )
        row = connection.execute(chosen.with_for_update()).first()
        if row is None or row.state not in HELD:
            return None
        if row.state == RunState.CANCELLING.value:
            return end(connection, row, RunState.CANCELLED, moment)
        if row.faults + 1 >= self.max_faults:
            message = (
                f"{row.faults + 1} workers in a row died or vanished without getting the run "
                "further, the last at its step "
                f"{row.step}. Use fewer rows or smaller pictures if their memory did not suffice, "
                "or ask the operator for the workers' logs"
            )
            return end(connection, row, RunState.FAILED, moment, "WORKERS_LOST", message)
        requeue(connection, row, moment, faults=row.faults + 1)
        return []

    def _claim_one(
        self,
        connection: Connection,
        worker: str,
        base_models: Sequence[str],
        *,
        exclusive_too: bool,
    ) -> Claim | None:
        moment = now()
        candidates = _candidates(connection, base_models, exclusive_too=exclusive_too)
        for tenant, row_id in candidates:
            if not self._allowance.may_begin(connection, tenant):
                continue
            taken = (
                update(RUNS)
                .where(RUNS.c.id == row_id, RUNS.c.state == RunState.QUEUED.value)
                .values(
                    state=RunState.RUNNING.value,
                    fence=RUNS.c.fence + 1,
                    attempt=RUNS.c.attempt + 1,
                    worker=worker,
                    lease_time=moment + self._lease,
                    claim_time=moment,
                    start_time=func.coalesce(RUNS.c.start_time, literal(moment, Moment)),
                    update_time=moment,
                    revision=RUNS.c.revision + 1,
                )
                .returning(RUNS)
            )
            row = connection.execute(taken).first()
            if row is None:
                continue  # Another worker was faster.
            news = [state_news(RunState.RUNNING, row.attempt)]
            append(connection, row.id, row.tenant, news, moment)
            return Claim.of(row)
        return None


def _candidates(
    connection: Connection, base_models: Sequence[str], *, exclusive_too: bool
) -> list[tuple[str, int]]:
    """Tenants in the order of their turns, each with the oldest of its runs that wait."""
    waiting = select(RUNS.c.tenant, func.min(RUNS.c.id).label("oldest")).where(
        RUNS.c.state == RunState.QUEUED.value,
        RUNS.c.base_model_id.in_(base_models),
        is_consented(now()),
    )
    if not exclusive_too:
        waiting = waiting.where(RUNS.c.exclusive.is_(False))
    oldest = dict(connection.execute(waiting.group_by(RUNS.c.tenant)).tuples().all())
    if not oldest:
        return []
    busy: dict[str, int] = dict(
        connection.execute(
            select(RUNS.c.tenant, func.count())
            .where(RUNS.c.state.in_(HELD), RUNS.c.tenant.in_(oldest))
            .group_by(RUNS.c.tenant)
        )
        .tuples()
        .all()
    )
    last = dict(
        connection.execute(
            select(RUNS.c.tenant, func.max(RUNS.c.claim_time))
            .where(RUNS.c.tenant.in_(oldest))
            .group_by(RUNS.c.tenant)
        )
        .tuples()
        .all()
    )
    never = datetime.min.replace(tzinfo=now().tzinfo)
    turns = sorted(
        oldest, key=lambda each: (busy.get(each, 0), last.get(each) or never, oldest[each])
    )
    return [(tenant, oldest[tenant]) for tenant in turns]
