"""Consent: a run that learns a living person's likeness goes on while the person consents.

A run knows until when the consent lasts, and when the Registry said so last. Both are looked at
before a run is claimed and before each of its steps, so that it stops at the consent's end, and at
`STALE` after the Registry's last word, whether or not anybody here is alive to stop it. What the
Registry takes back, the watch ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog
from sqlalchemy import Connection, or_, select, update

from perfuse.client.registry import FoundConcept
from perfuse.errors import (
    ConceptDeleted,
    ConceptErased,
    ConsentExpired,
    ConsentRevoked,
    FailedPrecondition,
    NotFound,
    PerfuseError,
)
from perfuse.names import ConceptName
from perfuse.storage.database import Database
from perfuse.storage.moments import now
from perfuse_trainer.resources import ENDED, RunState
from perfuse_trainer.runs.endings import end
from perfuse_trainer.tables import RUNS

STALE = timedelta(seconds=60)
"""How long a run goes on after the Registry's last word about its consent."""

_EVERY = 5.0
_OPEN = RUNS.c.state.not_in([state.value for state in ENDED])


class Concepts(Protocol):
    """Where concepts are asked for: `perfuse.client.registry.RegistryClient`."""

    async def concept(
        self, name: ConceptName, authorization: str, *, tenant: str | None = None
    ) -> FoundConcept:
        """A concept as it is at the moment."""
        ...


def is_consented(moment: datetime) -> Any:
    """Whether a run may be trained at that moment, as a condition on its row."""
    return or_(
        RUNS.c.consent_until.is_(None),
        (RUNS.c.consent_until > moment) & (RUNS.c.consent_seen > moment - STALE),
    )


class ConsentWatch:
    """Asks the Registry about the consent of every run of a likeness that has not ended.

    Args:
        database: With the Trainer's tables.
        registry: Where concepts are.
        authorization: That the Registry takes for any tenant's.
        drop: Removes files of a tenant that no row names any more.
        seconds: Between two rounds.
    """

    def __init__(
        self,
        database: Database,
        registry: Concepts,
        authorization: str,
        drop: Callable[[str, list[str]], None],
        *,
        seconds: float = _EVERY,
    ) -> None:
        self._database, self._registry = database, registry
        self._authorization, self._drop, self._seconds = authorization, drop, seconds
        self._asked = float("-inf")
        self._log = structlog.get_logger("perfuse_trainer.runs.consent")

    async def turn(self) -> None:
        """One round, unless the last was just now."""
        if time.monotonic() - self._asked < self._seconds:
            return
        self._asked = time.monotonic()
        chosen = (
            select(RUNS.c.tenant, RUNS.c.concept_id)
            .where(_OPEN, RUNS.c.consent_until.is_not(None))
            .distinct()
        )
        rows = await asyncio.to_thread(
            self._database.read, lambda connection: connection.execute(chosen).all()
        )
        for row in rows:
            await self._ask(ConceptName(row.tenant, row.concept_id))

    async def _ask(self, name: ConceptName) -> None:
        asked = now()
        try:
            found = await self._registry.concept(name, self._authorization, tenant=name.tenant)
        except (NotFound, ConceptErased) as refusal:
            await self._end(name, refusal)
        except PerfuseError as error:
            self._log.warning("consent_unknown", concept=str(name), problem=str(error))
        else:
            if found.deleted:
                await self._end(name, ConceptDeleted(f"{name} was deleted"))
            elif found.consent_until is None:
                await self._end(name, None)
            else:
                await asyncio.to_thread(self._renew, name, found.consent_until, asked)

    def _renew(self, name: ConceptName, until: datetime, asked: datetime) -> None:
        told = update(RUNS).where(*_runs_of(name)).values(consent_until=until, consent_seen=asked)
        self._database.transact(lambda connection: connection.execute(told).rowcount)

    async def _end(self, name: ConceptName, refusal: PerfuseError | None) -> None:
        moment = now()

        def work(connection: Connection) -> list[str]:
            rows = connection.execute(select(RUNS).where(*_runs_of(name)).with_for_update()).all()
            left: list[str] = []
            for row in rows:
                why = refusal or _withdrawn(name, row.consent_until, moment)
                state = RunState.FAILED
                if row.state == RunState.CANCELLING.value:
                    left += end(connection, row, RunState.CANCELLED, moment)
                else:
                    left += end(connection, row, state, moment, why.reason, str(why))
            return left

        left = await asyncio.to_thread(self._database.transact, work)
        self._log.warning("consent_withdrawn", concept=str(name))
        await asyncio.to_thread(self._drop, name.tenant, left)


def _runs_of(name: ConceptName) -> tuple[Any, ...]:
    return (
        RUNS.c.tenant == name.tenant,
        RUNS.c.concept_id == name.concept,
        RUNS.c.consent_until.is_not(None),
        _OPEN,
    )


def _withdrawn(name: ConceptName, until: datetime, moment: datetime) -> FailedPrecondition:
    if until <= moment:
        return ConsentExpired(
            f"the consent to training {name} expired at {until:%Y-%m-%d %H:%M} UTC. Record the "
            "person's consent anew, and queue the run again"
        )
    return ConsentRevoked(
        f"the consent to training {name} was revoked. Record the person's consent anew, and queue "
        "the run again"
    )
