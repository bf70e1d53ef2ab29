"""How many runs a tenant may have that wait, and how many that are trained at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, text

from perfuse.quotas import Quotas, exceeded
from perfuse_trainer.resources import RunState
from perfuse_trainer.runs.claims import HELD
from perfuse_trainer.tables import RUNS

_QUEUED = (RunState.QUEUED.value,)
_RETRY_SECONDS = 30.0
"""Until it is worth asking again: runs take minutes."""


@dataclass(frozen=True, slots=True)
class Used:
    """How much of a quota is used; `limit` is None where there is none."""

    quota: str
    used: int
    limit: float | None


class Allowance:
    """Holds tenants to their quotas of runs.

    Args:
        quotas: What they are.
    """

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas

    def require_place(self, connection: Connection, tenant: str) -> None:
        """See that one more run may wait; of several that ask at once, each is counted.

        Args:
            connection: In the transaction that queues it.
            tenant: Whose.

        Raises:
            QuotaExceeded: as many wait as may.
        """
        limit = self._quotas.limit(tenant, "runs_queued")
        if limit is None:
            return
        _hold(connection, tenant)
        if _count(connection, tenant, _QUEUED) >= int(limit):
            raise exceeded(
                tenant,
                "runs_queued",
                int(limit),
                "Wait until one of them begins, or cancel one",
                _RETRY_SECONDS,
            )

    def may_begin(self, connection: Connection, tenant: str) -> bool:
        """Whether one more run may be trained; where not, it waits, and nobody is refused.

        Args:
            connection: In the transaction that claims it.
            tenant: Whose.
        """
        limit = self._quotas.limit(tenant, "runs_running")
        if limit is None:
            return True
        _hold(connection, tenant)
        return _count(connection, tenant, HELD) < int(limit)

    def used(self, connection: Connection, tenant: str) -> list[Used]:
        """What a tenant has under way, by quota."""
        return [
            Used(quota, _count(connection, tenant, states), self._quotas.limit(tenant, quota))
            for quota, states in (("runs_queued", _QUEUED), ("runs_running", HELD))
        ]


def _hold(connection: Connection, tenant: str) -> None:
    """Have others who count this tenant's runs wait for the end of the transaction.

    SQLite has one writer at a time anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"),
            {"key": f"perfuse runs of {tenant}"},
        )


def _count(connection: Connection, tenant: str, states: Sequence[str]) -> int:
    counted = select(func.count()).where(RUNS.c.tenant == tenant, RUNS.c.state.in_(states))
    return int(connection.execute(counted).scalar_one())
