"""Events of runs: appended in the transaction that makes them true, read from a number on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, insert, select, update

from perfuse.storage.database import Database
from perfuse_trainer.resources import Event, EventKind, ValidationPoint
from perfuse_trainer.tables import EVENTS, RUNS

PAGE = 500


class News(NamedTuple):
    """An event that is yet to get its number."""

    kind: EventKind
    body: dict[str, Any]
    blob: str | None = None


_INSERT = insert(EVENTS)
_AFTER = (
    select(EVENTS.c.sequence, EVENTS.c.event_time, EVENTS.c.kind, EVENTS.c.body, EVENTS.c.blob)
    .where(EVENTS.c.run == bindparam("run"), EVENTS.c.sequence > bindparam("after"))
    .order_by(EVENTS.c.sequence)
    .limit(PAGE)
)
_VALIDATIONS = (
    select(EVENTS.c.body)
    .where(EVENTS.c.run == bindparam("run"), EVENTS.c.kind == EventKind.VALIDATION.value)
    .order_by(EVENTS.c.sequence)
)


def append(
    connection: Connection, run: int, tenant: str, news: Sequence[News], moment: datetime
) -> None:
    """Append events to a run, in a transaction in which nobody else can.

    The update of the run's counter holds its row until the transaction ends, so that numbers are
    committed in their order and a reader never sees one before an earlier one.
    """
    if not news:
        return
    counted = (
        update(RUNS)
        .where(RUNS.c.id == run)
        .values(next_sequence=RUNS.c.next_sequence + len(news))
        .returning(RUNS.c.next_sequence)
    )
    first = connection.execute(counted).scalar_one() - len(news)
    connection.execute(
        _INSERT,
        [
            {
                "run": run,
                "sequence": first + index,
                "event_time": moment,
                "kind": each.kind.value,
                "body": each.body,
                "tenant": tenant,
                "blob": each.blob,
            }
            for index, each in enumerate(news)
        ],
    )


def events_after(database: Database, run: int, after: int) -> list[Event]:
    """At most `PAGE` events of a run with higher numbers, in their order."""
    asked = {"run": run, "after": after}
    rows = database.read(lambda connection: connection.execute(_AFTER, asked).all())
    return [Event(row[0], row[1], EventKind(row[2]), row[3], row[4]) for row in rows]


def validations(connection: Connection, run: int) -> tuple[ValidationPoint, ...]:
    """A run's validation curve; what an attempt after a worker's death told again counts once."""
    points = {
        body["step"]: ValidationPoint(**body)
        for (body,) in connection.execute(_VALIDATIONS, {"run": run})
    }
    return tuple(points[step] for step in sorted(points))


def state_news(
    state: str, attempt: int, *, reason: str = "", message: str = "", version: str = ""
) -> News:
    """That a run's state changed."""
    body: dict[str, Any] = {"state": state, "attempt": attempt}
    if reason:
        body["error"] = {"reason": reason, "message": message}
    if version:
        body["version"] = version
    return News(EventKind.STATE, body)
