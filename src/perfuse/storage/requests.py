"""Mutations done once: a repeated `request_id` gives the first call's answer (AIP-155)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter
from sqlalchemy import Connection, Table, bindparam, insert, select

from perfuse.errors import PerfuseError, RequestIdReused
from perfuse.storage.audit import Audit
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.moments import now
from perfuse.storage.mutation import Mutation as Mutation
from perfuse.storage.prepared import Prepared

Answer = TypeVar("Answer")


class _DoneMeanwhile(Exception):
    """The refusal came of the same request, sent twice at once: what it made was in its way."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer


class Requests:
    """Remembers what was answered, and records what was done.

    Args:
        table: With columns tenant, method, request_id, fingerprint, answer and done_time, the
            first three of them its key.
        audit: Where each mutation's event goes, once, in its transaction.
    """

    def __init__(self, table: Table, audit: Audit) -> None:
        self._audit = audit
        self._remember = Prepared(insert(table), table.c.keys())
        kept = {
            name: bindparam(f"kept_{name}", type_=column.type) for name, column in table.c.items()
        }
        self._remember_and_record = Prepared(audit.beside(insert(table).values(kept)))
        self._recall = Prepared(
            select(table.c.fingerprint, table.c.answer).where(
                table.c.tenant == bindparam("tenant"),
                table.c.method == bindparam("method"),
                table.c.request_id == bindparam("request_id"),
            )
        )

    def once(
        self,
        database: Database,
        mutation: Mutation,
        method: str,
        content: object,
        kind: Any,
        work: Callable[[Connection], Answer],
        *,
        looked: bool = False,
    ) -> Answer:
        """Do `work` in a transaction unless it was done before, and remember its answer with it.

        On PostgreSQL the first call may be committed after its repetition has looked for an answer
        and before that looks at the rows; what it then refuses, it looks for once more.

        Args:
            database: Where.
            mutation: Who asks, with the `request_id`; without one nothing is remembered.
            method: Of the API.
            content: What is asked for, as JSON can say it; other content is refused. The first
                of it names the resource, where the answer has no `name` to be recorded.
            kind: Type of the answer.
            work: The change itself; it may run again where another transaction was in its way.
            looked: Whether the caller has just asked `replayed`. Another that did the same
                meanwhile makes the transaction fail, and its repetition looks.

        Raises:
            RequestIdReused: the id was used for other content.
            Unavailable, Aborted: as `Database.transact`.
        """

        def do(connection: Connection) -> Answer:
            nonlocal looked
            if not looked:
                done, earlier = self.replayed(connection, mutation, method, content, kind)
                if done:
                    return cast(Answer, earlier)
            looked = False
            try:
                answer = work(connection)
            except PerfuseError:
                done, earlier = self.replayed(connection, mutation, method, content, kind)
                if done:
                    raise _DoneMeanwhile(earlier) from None
                raise
            self._keep(connection, mutation, method, content, kind, answer)
            return answer

        try:
            return database.transact(do)
        except _DoneMeanwhile as done:
            return cast(Answer, done.answer)

    def _keep(
        self,
        connection: Connection,
        mutation: Mutation,
        method: str,
        content: object,
        kind: Any,
        answer: object,
    ) -> None:
        """Record what was done, and remember its answer."""
        resource = _resource(answer, content)
        if not mutation.request_id:
            self._audit.record(connection, mutation, method, resource)
            return
        kept = self.kept_values(mutation, method, content, kind, answer)
        if connection.dialect.name == "postgresql":
            event = self._audit.event_values(mutation, method, resource)
            named = {f"kept_{name}": value for name, value in kept.items()}
            self._remember_and_record.run(connection, **named, **event)
        else:
            self._audit.record(connection, mutation, method, resource)
            self._remember.run(connection, **kept)

    def kept_values(
        self, mutation: Mutation, method: str, content: object, kind: Any, answer: object
    ) -> dict[str, Any]:
        """The values of the row that remembers a request; arguments as those of `once`."""
        return {
            "tenant": mutation.tenant,
            "method": method,
            "request_id": mutation.request_id,
            "fingerprint": _fingerprint(content),
            "answer": _texts(kind).dump_json(answer).decode(),
            "done_time": now(),
        }

    def replayed(
        self, connection: Connection, mutation: Mutation, method: str, content: object, kind: Any
    ) -> tuple[bool, Any]:
        """Whether the mutation was done before, and its answer then."""
        if not mutation.request_id:
            return False, None
        row = self._recall.first(
            connection, tenant=mutation.tenant, method=method, request_id=mutation.request_id
        )
        return self.recalled(row, mutation, method, content, kind)

    def recalled(
        self, row: AnyRow | None, mutation: Mutation, method: str, content: object, kind: Any
    ) -> tuple[bool, Any]:
        """What `replayed` returns, where the request's row, or None, was looked up already.

        Args:
            row: With the columns fingerprint and answer, None in both where there was no request.
            mutation, method, content, kind: As `once`.
        """
        if row is None or row.fingerprint is None:
            return False, None
        if row.fingerprint != _fingerprint(content):
            raise RequestIdReused(
                f"request_id {mutation.request_id} was used before for another {method}. Use a new "
                "UUID for a new request, and the same one only to repeat a call"
            )
        return True, _texts(kind).validate_json(row.answer)


def _resource(answer: object, content: object) -> str:
    """The name of what was made or changed."""
    name = getattr(answer, "name", None)
    if name is None and isinstance(content, list) and content:
        name = content[0]
    return "" if name is None else str(name)


def _fingerprint(content: object) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _texts(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
