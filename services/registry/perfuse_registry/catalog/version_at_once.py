"""On PostgreSQL: a plain version, its event and the memory of its request, in one statement.

A statement is a transaction by itself, which saves three ways there and back of six. It is for
plain uploads: with a `request_id`, for without one nobody could tell whether it was done where a
connection broke; without previews, which have rows of their own; of no living person, whose consent
is looked at once more under the concept's lock; and where no quota bounds the bytes. Whatever is in
its way is left to the transaction of several statements, which finds out what it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Text, bindparam, cast, insert, select

from perfuse.storage.database import Database
from perfuse.storage.mutation import Mutation
from perfuse.storage.prepared import Prepared
from perfuse_registry.catalog.leases import Lease
from perfuse_registry.catalog.requests import AUDIT, kept_values
from perfuse_registry.catalog.resources import Version
from perfuse_registry.catalog.version_rows import insert_at_once, version_values
from perfuse_registry.tables import AUDIT_EVENTS, REQUESTS

_METHOD = "CreateVersion"
# In an answer that is to be remembered; before it there are ids alone, which have no quotes.
_NUMBER = '"number":'


def may_be_at_once(database: Database, mutation: Mutation, version: Version) -> bool:
    """Whether a version can be made in one statement, as far as it is known here."""
    return (
        database.dialect == "postgresql"
        and bool(mutation.request_id)
        and not version.likeness
        and not version.attachments.previews
    )


def create_at_once(
    database: Database,
    mutation: Mutation,
    content: object,
    version: Version,
    concept: int,
    base: int,
    lease: Lease,
) -> Version | None:
    """Insert the version under the concept's next number, and drop the lease; durably.

    Args:
        database: PostgreSQL.
        mutation: Who makes it; with a `request_id`.
        content: What was asked for, as `once` takes it.
        version: Everything but its number.
        concept, base: Keys of its concept's row and of its base model's.
        lease: On the version's bytes, under which they were put.

    Returns:
        The version; None where something was in its way, and nothing or all of it was done.

    Raises:
        Unavailable: the database does not answer.
    """
    kept = kept_values(mutation, _METHOD, content, Version, version)
    head, _, rest = kept["answer"].partition(f"{_NUMBER}0")
    kept["answer"] = head + _NUMBER
    values = {
        **version_values(version, concept, base),
        **{f"kept_{name}": value for name, value in kept.items()},
        **AUDIT.event_values(mutation, _METHOD, str(version.name).removesuffix("0")),
        "kept_rest": rest,
        "lease": lease.id,
    }
    is_first = True

    def work(connection: Connection) -> int | None:
        nonlocal is_first
        if not is_first:
            # It failed, perhaps by what was done; that is for the caller to find out.
            return None
        is_first = False
        row = _AT_ONCE.first(connection, **values)
        return None if row is None else int(row.number)

    number = database.transact_alone(work)
    return None if number is None else replace(version, number=number)


def _at_once() -> Prepared:
    made, counted = insert_at_once()
    number = cast(counted.c.latest_number, Text)
    event: dict[str, Any] = {
        name: bindparam(f"event_{name}", type_=column.type)
        for name, column in AUDIT_EVENTS.c.items()
        if name != "id"
    }
    event["resource"] += number
    kept: dict[str, Any] = {
        name: bindparam(f"kept_{name}", type_=column.type) for name, column in REQUESTS.c.items()
    }
    kept["answer"] += number + bindparam("kept_rest", type_=Text())
    for table, row in ((AUDIT_EVENTS, event), (REQUESTS, kept)):
        of_number = select(*row.values()).select_from(counted)
        made = made.add_cte(insert(table).from_select(list(row), of_number).cte(f"to_{table.name}"))
    return Prepared(made)


_AT_ONCE = _at_once()
