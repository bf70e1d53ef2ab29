"""Who works where: Trainers on one database start no more workers than the runs need.

Each writes down how many workers it has, a moment's news for the others. Whoever finds that there
are too few looks once more under a lock, and writes down those that it is about to start before it
starts them, so that no two start one for the same runs. A Trainer that falls silent is forgotten
soon: the others then start what is missing, at worst too many for a while.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from uuid import uuid4

from sqlalchemy import Connection, delete, func, insert, select, text

from perfuse.storage.database import Database
from perfuse.storage.moments import now
from perfuse_trainer.tables import STAFF

LONGEST_SILENCE = timedelta(seconds=5)
"""After which a Trainer's workers count no more, at the latest."""

_HOLD = text("SELECT pg_advisory_xact_lock(hashtextextended('perfuse trainer staff', 0))")


class Staff:
    """The workers of all Trainers, as one of them sees them.

    Args:
        database: With the Trainer's tables.
        lease: How long a worker may be silent before its runs are taken from it; a Trainer that is
            silent for so long, or for `LONGEST_SILENCE`, counts as gone.
    """

    def __init__(self, database: Database, lease: timedelta) -> None:
        self._database = database
        self._silence = min(lease, LONGEST_SILENCE)
        self._trainer = str(uuid4())
        self._told: Mapping[str, int] = {}
        self._told_time = 0.0

    def hire(self, own: Mapping[str, int], needed: Mapping[str, int], room: int) -> list[str]:
        """Tell the others of one's own workers, and choose whom to start beside them.

        Args:
            own: Id of a base model → workers that this Trainer has for it.
            needed: Id of a base model that it can have workers for → workers that its runs need.
            room: How many it may start.

        Returns:
            For each worker to be started its base model's id. They are told already.

        Raises:
            Unavailable: the database does not answer.
        """
        own = {base: count for base, count in own.items() if count}
        if any(own.get(base, 0) < count for base, count in self._told.items()):
            # Where one's own workers die, another's may not: the others go first.
            self._database.transact(lambda connection: self._tell(connection, own))
            return []
        if room > 0 and self._lacking(own, needed, self._database.read(self._others)):
            return self._database.transact(
                lambda connection: self._hire(connection, own, needed, room)
            )
        is_due = time.monotonic() - self._told_time >= self._silence.total_seconds() / 5
        if own != self._told or (own and is_due):
            self._database.transact(lambda connection: self._tell(connection, own))
        return []

    def leave(self) -> None:
        """Tell the others that one's own workers are gone.

        Raises:
            Unavailable: the database does not answer.
        """
        self._database.transact(lambda connection: self._tell(connection, {}))

    def _hire(
        self, connection: Connection, own: Mapping[str, int], needed: Mapping[str, int], room: int
    ) -> list[str]:
        if connection.dialect.name == "postgresql":
            connection.execute(_HOLD)
        # A statement of its own: one that waited for a lock answers from before its wait.
        hired = self._lacking(own, needed, self._others(connection))[:room]
        self._tell(connection, Counter(own) + Counter(hired))
        return hired

    def _lacking(
        self, own: Mapping[str, int], needed: Mapping[str, int], others: Mapping[str, int]
    ) -> list[str]:
        """A base model's id for each worker that is missing."""
        return [
            base
            for base, count in sorted(needed.items())
            for _ in range(count - own.get(base, 0) - others.get(base, 0))
        ]

    def _others(self, connection: Connection) -> dict[str, int]:
        counted = (
            select(STAFF.c.base_model_id, func.sum(STAFF.c.workers))
            .where(STAFF.c.trainer != self._trainer, STAFF.c.tell_time > now() - self._silence)
            .group_by(STAFF.c.base_model_id)
        )
        return {base: int(count) for base, count in connection.execute(counted).all()}

    def _tell(self, connection: Connection, own: Mapping[str, int]) -> None:
        moment = now()
        old = (STAFF.c.trainer == self._trainer) | (STAFF.c.tell_time <= moment - self._silence)
        connection.execute(delete(STAFF).where(old))
        rows = [
            {
                "trainer": self._trainer,
                "base_model_id": base,
                "workers": count,
                "tell_time": moment,
            }
            for base, count in own.items()
        ]
        if rows:
            connection.execute(insert(STAFF), rows)
        self._told, self._told_time = dict(own), time.monotonic()
