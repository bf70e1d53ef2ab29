"""The Trainer's own memory of requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from sqlalchemy import Connection

from perfuse.errors import PerfuseError
from perfuse.storage.database import Database
from perfuse.storage.requests import Mutation, Requests
from perfuse_trainer.tables import REQUESTS

Answer = TypeVar("Answer")

_REQUESTS = Requests(REQUESTS)
replayed = _REQUESTS.replayed


class _DoneMeanwhile(Exception):
    """The refusal came of the same request, sent twice at once: what it made was in its way."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer


def once(
    database: Database,
    mutation: Mutation,
    method: str,
    content: object,
    kind: Any,
    work: Callable[[Connection], Answer],
) -> Answer:
    """`Requests.once`, also for a request that is repeated while its first call is under way.

    On PostgreSQL the first call may be committed after the second has looked for its answer and
    before it looks at the rows; what it then refuses, it looks for once more.
    """

    def careful(connection: Connection) -> Answer:
        try:
            return work(connection)
        except PerfuseError:
            done, answer = replayed(connection, mutation, method, content, kind)
            if done:
                raise _DoneMeanwhile(answer) from None
            raise

    try:
        return _REQUESTS.once(database, mutation, method, content, kind, careful)
    except _DoneMeanwhile as done:
        return cast(Answer, done.answer)
