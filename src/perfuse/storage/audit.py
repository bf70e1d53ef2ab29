"""The record of who did what to which resource: written with the change itself, never changed.

A mutation's event is inserted in its transaction, so that neither is there without the other and a
repeated request leaves one event. A refused mutation has none to be part of; its event is written
afterwards, and may be lost with the process. Reads are not recorded here: each is a line of the
log. Events hold names and no content.

Events are not chained by digests: a chain would have every mutation wait for the one before it
(decision 19). The table's triggers keep them instead (`append_only`).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Connection, Insert, Table, bindparam, delete, insert, select

from perfuse.errors import NotFound, PerfuseError
from perfuse.names import TenantName
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.filters import Field, Kind
from perfuse.storage.listing import Lists, Page, Query
from perfuse.storage.moments import now
from perfuse.storage.mutation import Mutation
from perfuse.storage.paging import Listing
from perfuse.storage.prepared import Prepared

EVERY_TENANT = "tenants/-"
"""The parent under which an operator lists the events of all tenants (AIP-159)."""

_MAX_RESOURCE = 320
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One mutation, done or refused.

    Attributes:
        id: rises with every event of the installation.
        tenant: of the caller.
        subject: the caller, as its credential names it.
        rpc: name of the method.
        resource: name of what was changed; empty where there is none.
        code: of the gRPC status.
        request_id: that makes the mutation safe to repeat; empty where there was none.
        call_id: under which the log has the call.
        peer: address that the call came from.
    """

    id: int
    event_time: datetime
    tenant: str
    subject: str
    rpc: str
    resource: str
    code: str
    request_id: str
    call_id: str
    peer: str


_FIELDS = tuple(AuditEvent.__dataclass_fields__)
_INSERTED = tuple(name for name in _FIELDS if name != "id")


class RefusedCall(Protocol):
    """`perfuse.serving.refused.Refused`."""

    @property
    def caller(self) -> Any: ...
    @property
    def rpc(self) -> str: ...
    @property
    def resource(self) -> str: ...
    @property
    def code(self) -> str: ...
    @property
    def request_id(self) -> str: ...
    @property
    def call_id(self) -> str: ...
    @property
    def peer(self) -> str: ...


class Audit:
    """Records events and reads them.

    Args:
        table: With `AuditEvent`'s fields as its columns, `id` its key, made append-only.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._insert = Prepared(insert(table).inline(), _INSERTED)
        self._filters = {
            "event_time": Field(table.c.event_time, Kind.TIMESTAMP),
            "subject": Field(table.c.subject, Kind.TEXT),
            "rpc": Field(table.c.rpc, Kind.TEXT),
            "resource": Field(table.c.resource, Kind.TEXT),
            "code": Field(table.c.code, Kind.TEXT),
            "request_id": Field(table.c.request_id, Kind.TEXT),
            "call_id": Field(table.c.call_id, Kind.TEXT),
        }

    def record(
        self, connection: Connection, mutation: Mutation, rpc: str, resource: str, code: str = "OK"
    ) -> None:
        """Insert an event, in the transaction of the change that it tells of."""
        self._insert.run(connection, **_values(mutation, rpc, resource, code))

    def beside(self, statement: Insert) -> Insert:
        """A statement of PostgreSQL that inserts an event too, which saves a round trip.

        The event's values are `event_values`'.
        """
        values = {
            name: bindparam(f"event_{name}", type_=self._table.c[name].type) for name in _INSERTED
        }
        return statement.add_cte(insert(self._table).values(values).cte("recorded"))

    def event_values(self, mutation: Mutation, rpc: str, resource: str) -> dict[str, Any]:
        """The values that a statement of `beside` has besides its own."""
        given = _values(mutation, rpc, resource, "OK")
        return {f"event_{name}": value for name, value in given.items()}

    def page(
        self, lists: Lists, tenant: str, parent: str, query: Query, *, everyone: bool
    ) -> Page[AuditEvent]:
        """A page of a tenant's events, by default the newest first.

        Args:
            lists: For pages.
            tenant: Of the caller.
            parent: `tenants/{tenant}`, or `EVERY_TENANT`.
            query: As asked.
            everyone: Whether the caller may see the events of every tenant.

        Raises:
            NotFound: another tenant's, without that right.
            InvalidArgument: parent, filter, order, token or size.
        """
        chosen = select(self._table)
        if parent != EVERY_TENANT:
            owner = TenantName.parse(parent, "parent").tenant
            if owner != tenant and not everyone:
                raise _missing(parent)
            chosen = chosen.where(self._table.c.tenant == owner)
        elif not everyone:
            raise _missing(parent)
        return lists.page(
            chosen,
            query,
            Listing(tenant, "ListAuditEvents", parent, query.filter),
            self._filters,
            {"event_time": self._table.c.event_time, "id": self._table.c.id},
            "id desc",
            self._table.c.id,
            _event_of,
        )

    def forget(self, database: Database, retention: timedelta) -> int:
        """Remove events older than the retention; how many there were.

        Raises:
            Unavailable: the database does not answer.
        """
        before = now() - retention
        table = self._table
        oldest = select(table.c.id).order_by(table.c.id).limit(_BATCH).scalar_subquery()
        old = delete(table).where(table.c.id.in_(oldest), table.c.event_time < before)
        total, removed = 0, _BATCH
        while removed == _BATCH:
            removed = database.transact(lambda connection: connection.execute(old).rowcount)
            total += removed
        return total


class AuditTrail:
    """The record of one service: read by whoever may, added to where calls were refused.

    Args:
        database: With the table.
        lists: For pages.
        audit: The record.
        retention: How long events are kept.
    """

    def __init__(
        self, database: Database, lists: Lists, audit: Audit, retention: timedelta
    ) -> None:
        self._database, self._lists, self._audit = database, lists, audit
        self._retention = retention

    def list(self, tenant: str, parent: str, query: Query, *, everyone: bool) -> Page[AuditEvent]:
        """A page of events; see `Audit.page`."""
        return self._audit.page(self._lists, tenant, parent, query, everyone=everyone)

    def record(self, mutation: Mutation, rpc: str, resource: str = "", code: str = "OK") -> None:
        """Record what is no single transaction.

        Raises:
            Unavailable: the database does not answer.
        """
        self._database.transact(
            lambda connection: self._audit.record(connection, mutation, rpc, resource, code)
        )

    def refused(self, call: RefusedCall) -> None:
        """Record that a call was refused; where that fails, the log alone tells of it."""
        mutation = Mutation(
            call.caller.tenant, call.caller.subject, call.request_id, call.call_id, call.peer
        )
        with suppress(PerfuseError):
            self._database.hasten(
                lambda connection: self._audit.record(
                    connection, mutation, call.rpc, call.resource, call.code
                )
            )

    def forget(self) -> int:
        """Remove events older than the retention; how many there were."""
        return self._audit.forget(self._database, self._retention)


def _values(mutation: Mutation, rpc: str, resource: str, code: str) -> dict[str, Any]:
    return {
        "event_time": now(),
        "tenant": mutation.tenant,
        "subject": mutation.mover,
        "rpc": rpc,
        "resource": resource[:_MAX_RESOURCE],
        "code": code,
        "request_id": mutation.request_id,
        "call_id": mutation.call_id,
        "peer": mutation.peer,
    }


def _missing(name: str) -> NotFound:
    refusal = NotFound(f"{name} does not exist, or is not yours to see. Check the name")
    refusal.resource = name
    return refusal


def _event_of(row: AnyRow) -> AuditEvent:
    values: dict[str, Any] = {field: getattr(row, field) for field in _FIELDS}
    return AuditEvent(**values)
