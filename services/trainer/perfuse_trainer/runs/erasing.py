"""Erasing: what was kept of a concept that the Registry has erased goes, and the Registry is told.

The Registry is asked for erasures that nobody has confirmed. For each, one transaction ends the
concept's runs, empties their rows, and notes the files that no row names any more; then the files
are removed, and only then the erasure is confirmed. Whatever cuts this short, a later round goes
on. What stays of a run is that it was, when, and how it ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol

import structlog
from sqlalchemy import Connection, delete, exists, insert, or_, select, update

from perfuse.errors import ConceptErased, PerfuseError
from perfuse.names import ConceptName
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.moments import now
from perfuse_trainer.resources import RunState
from perfuse_trainer.runs.endings import end
from perfuse_trainer.runs.events import append, state_news
from perfuse_trainer.sets.image_sets import remove_set
from perfuse_trainer.tables import ERASED_CONCEPTS, EVENTS, IMAGE_SETS, REQUESTS, RUNS
from perfuse_trainer.vault import Vault

_EVERY = 5.0

LATECOMERS = timedelta(hours=1)
"""For so long it is looked for runs that were queued while their concept was being erased."""

_NOBODY = "erased"


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed of a concept; see `TrainerErasure` of the API."""

    run_count: int = 0
    ended_run_count: int = 0
    image_set_count: int = 0
    kept_image_set_count: int = 0
    file_count: int = 0

    def to_json(self) -> dict[str, int]:
        """Its fields."""
        return asdict(self)


class Erasures(Protocol):
    """Where erasures are asked for: `perfuse.client.registry.RegistryClient`."""

    async def unconfirmed_erasures(self, authorization: str) -> list[ConceptName]:
        """Concepts that were erased, of every tenant, of which the Trainer has yet to say so."""
        ...

    async def confirm_erasure(
        self, concept: ConceptName, removed: dict[str, int], authorization: str
    ) -> None:
        """Say what was removed of one."""
        ...


class Eraser:
    """Erases.

    Args:
        database: With the Trainer's tables.
        vault: Of all files.
        registry: Where erasures are.
        authorization: That the Registry takes for any tenant's.
        seconds: Between two rounds.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        registry: Erasures,
        authorization: str,
        *,
        seconds: float = _EVERY,
    ) -> None:
        self._database, self._vault, self._registry = database, vault, registry
        self._authorization, self._seconds = authorization, seconds
        self._asked = float("-inf")
        self._log = structlog.get_logger("perfuse_trainer.runs.erasing")

    async def turn(self) -> None:
        """One round, unless the last was just now."""
        if time.monotonic() - self._asked < self._seconds:
            return
        self._asked = time.monotonic()
        try:
            names = await self._registry.unconfirmed_erasures(self._authorization)
        except PerfuseError as error:
            self._log.warning("erasures_unknown", problem=str(error))
        else:
            await asyncio.to_thread(self._database.transact, partial(_note, names=names))
        for row in await asyncio.to_thread(self._database.read, _open):
            name = ConceptName(row.tenant, row.concept_id)
            try:
                removed = await asyncio.to_thread(self.erase, name)
                await self._registry.confirm_erasure(name, removed, self._authorization)
            except PerfuseError as error:
                self._log.warning("erasure_goes_on_later", concept=str(name), problem=str(error))
                continue
            await asyncio.to_thread(self._database.transact, partial(_confirmed, name=name))
            self._log.info("erased", concept=str(name), **removed)

    def erase(self, name: ConceptName) -> dict[str, int]:
        """Remove what is kept of a concept that is noted as erased.

        Returns:
            What was removed of it by now; see `Removed`.

        Raises:
            Unavailable: database or store do not answer; what was done until then stays done.
        """
        self._database.transact(partial(_empty, name=name))
        chosen = select(ERASED_CONCEPTS).where(*_is(name))
        row = self._database.read(lambda connection: connection.execute(chosen).one())
        for digest in row.files:
            self._vault.blobs.delete(name.tenant, digest)
        self._database.transact(partial(_struck_out, name=name, files=set(row.files)))
        self._database.forget_deleted()
        return dict(row.counts)


def require_unerased(connection: Connection, name: ConceptName) -> None:
    """Refuse a run of a concept that is known here to be erased.

    Raises:
        ConceptErased: it is.
    """
    if connection.execute(select(exists().where(*_is(name)))).scalar_one():
        raise _refusal(name)


def _refusal(name: ConceptName) -> ConceptErased:
    refusal = ConceptErased(
        f"{name} was erased, which nothing takes back. Make another concept, under another name"
    )
    refusal.resource = str(name)
    return refusal


def _is(name: ConceptName) -> tuple[Any, ...]:
    return ERASED_CONCEPTS.c.tenant == name.tenant, ERASED_CONCEPTS.c.concept_id == name.concept


def _note(connection: Connection, names: Sequence[ConceptName]) -> None:
    """Note what the Registry told; what it asks for again is done again."""
    for name in names:
        again = update(ERASED_CONCEPTS).where(*_is(name)).values(confirm_time=None)
        if not connection.execute(again).rowcount:
            connection.execute(
                insert(ERASED_CONCEPTS).values(
                    tenant=name.tenant,
                    concept_id=name.concept,
                    tell_time=now(),
                    counts=Removed().to_json(),
                    files=[],
                )
            )


def _open(connection: Connection) -> Sequence[AnyRow]:
    """What is yet to be confirmed, and what is young and has runs again."""
    late = exists().where(
        RUNS.c.tenant == ERASED_CONCEPTS.c.tenant,
        RUNS.c.concept_id == ERASED_CONCEPTS.c.concept_id,
        RUNS.c.super_category != "",
    )
    young = ERASED_CONCEPTS.c.tell_time > now() - LATECOMERS
    chosen = select(ERASED_CONCEPTS.c.tenant, ERASED_CONCEPTS.c.concept_id).where(
        or_(ERASED_CONCEPTS.c.confirm_time.is_(None), young & late)
    )
    return connection.execute(chosen).all()


def _confirmed(connection: Connection, name: ConceptName) -> None:
    connection.execute(update(ERASED_CONCEPTS).where(*_is(name)).values(confirm_time=now()))


def _struck_out(connection: Connection, name: ConceptName, files: set[str]) -> None:
    """Note no longer what was removed; another replica may have noted more meanwhile."""
    noted = connection.execute(select(ERASED_CONCEPTS).where(*_is(name)).with_for_update()).one()
    left = [each for each in noted.files if each not in files]
    connection.execute(update(ERASED_CONCEPTS).where(*_is(name)).values(files=left))


def _empty(connection: Connection, name: ConceptName) -> None:
    """End and empty the concept's runs, remove their image sets, and note the files."""
    noted = connection.execute(select(ERASED_CONCEPTS).where(*_is(name)).with_for_update()).one()
    moment = now()
    files: list[str] = list(noted.files)
    of_concept = (RUNS.c.tenant == name.tenant, RUNS.c.concept_id == name.concept)
    rows = connection.execute(
        select(RUNS).where(*of_concept, RUNS.c.super_category != "").with_for_update()
    ).all()
    ended = 0
    for row in rows:
        if not RunState(row.state).is_final:
            ended += 1
            cancelled = row.state == RunState.CANCELLING.value
            refusal = _refusal(name)
            files += (
                end(connection, row, RunState.CANCELLED, moment)
                if cancelled
                else end(connection, row, RunState.FAILED, moment, refusal.reason, str(refusal))
            )
        files += _emptied(connection, row.id, moment)
    sets = {row.image_set for row in rows if row.image_set is not None}
    removed, kept = 0, 0
    for image_set in sorted(sets):
        others = exists().where(RUNS.c.image_set == image_set, RUNS.c.concept_id != name.concept)
        if connection.execute(select(others)).scalar_one():
            kept += 1
            continue
        named = select(IMAGE_SETS.c.image_set_id).where(IMAGE_SETS.c.id == image_set)
        image_set_id = connection.execute(named).scalar()
        files += remove_set(connection, image_set)
        if image_set_id is not None:
            removed += 1
            _forget(connection, name.tenant, "image_set_id", image_set_id)
    _forget(connection, name.tenant, "concept_id", name.concept)
    before = Removed(**noted.counts)
    counts = Removed(
        run_count=before.run_count + len(rows),
        ended_run_count=before.ended_run_count + ended,
        image_set_count=before.image_set_count + removed,
        kept_image_set_count=before.kept_image_set_count + kept,
        file_count=before.file_count + len(files) - len(noted.files),
    )
    connection.execute(
        update(ERASED_CONCEPTS)
        .where(*_is(name))
        .values(counts=counts.to_json(), files=sorted(set(files)))
    )


def _emptied(connection: Connection, run: int, moment: datetime) -> list[str]:
    """Leave of a run's row and events that it ended, and how; its previews' files."""
    row = connection.execute(select(RUNS).where(RUNS.c.id == run)).one()
    pictures = select(EVENTS.c.blob).where(EVENTS.c.run == run, EVENTS.c.blob.is_not(None))
    files = list(connection.execute(pictures).scalars())
    connection.execute(delete(EVENTS).where(EVENTS.c.run == run))
    reason = row.error_reason
    message = _refusal(ConceptName(row.tenant, row.concept_id)) if reason else ""
    connection.execute(
        update(RUNS)
        .where(RUNS.c.id == run)
        .values(
            super_category="",
            settings=_without_words(row.settings),
            description="",
            labels={},
            loss=None,
            digest=None,
            version_number=None,
            provenance=None,
            consent_until=None,
            consent_seen=None,
            traceparent=None,
            # What went wrong may name files.
            error_message=str(message),
            update_time=moment,
            revision=RUNS.c.revision + 1,
        )
    )
    news = state_news(RunState(row.state), row.attempt, reason=reason, message=str(message))
    append(connection, run, row.tenant, [news], moment)
    return files


def _without_words(settings: dict[str, Any]) -> dict[str, Any]:
    if "training" not in settings:
        return settings
    training = {**settings["training"], "super_category": _NOBODY, "placeholder": _NOBODY}
    return {**settings, "training": training, "previews": None}


def _forget(connection: Connection, tenant: str, field: str, value: str) -> None:
    """Forget answers that are remembered for repetitions and tell of something erased."""
    told = REQUESTS.c.answer.contains(f'"{field}":"{value}"', autoescape=True)
    connection.execute(delete(REQUESTS).where(REQUESTS.c.tenant == tenant, told))
