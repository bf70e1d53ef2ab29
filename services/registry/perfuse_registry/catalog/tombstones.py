"""Tombstones: a concept's row emptied, all that hung on it removed, its files noted."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, literal, select, update

from perfuse.errors import InvalidArgument
from perfuse.names import ConceptName
from perfuse.storage.database import AnyRow
from perfuse_registry.catalog.erased import Fate
from perfuse_registry.catalog.ownership import locked_concept
from perfuse_registry.tables import (
    ALIAS_MOVES,
    ALIASES,
    CONCEPTS,
    CONSENTS,
    ERASED_ADAPTERS,
    ERASURES,
    GRANTS,
    PREVIEWS,
    REQUESTS,
    REVOCATIONS,
    VERSIONS,
)


def erase_row(connection: Connection, row: AnyRow, eraser: str, moment: datetime) -> None:
    """Erase the concept of a row that the transaction holds, and note what is to go with it."""
    digests = [
        each
        for table, is_preview in ((VERSIONS, False), (PREVIEWS, True))
        for each in connection.execute(
            select(
                table.c.digest,
                func.max(table.c.size_bytes).label("size_bytes"),
                literal(is_preview).label("preview"),
            )
            .where(table.c.concept == row.id)
            .group_by(table.c.digest)
            .order_by(table.c.digest)
        ).all()
    ]
    consents = select(CONSENTS.c.id).where(CONSENTS.c.concept == row.id)
    connection.execute(delete(REVOCATIONS).where(REVOCATIONS.c.consent.in_(consents)))
    removed = {
        table.name: connection.execute(delete(table).where(table.c.concept == row.id)).rowcount
        for table in (ALIASES, ALIAS_MOVES, GRANTS, CONSENTS, PREVIEWS, VERSIONS)
    }
    # Answers that are remembered for repetitions tell what the concept was.
    told = REQUESTS.c.answer.contains(f'"concept_id":"{row.concept_id}"', autoescape=True)
    connection.execute(delete(REQUESTS).where(REQUESTS.c.tenant == row.tenant, told))
    connection.execute(
        update(CONCEPTS)
        .where(CONCEPTS.c.id == row.id)
        .values(
            display_name="",
            super_category="",
            description="",
            labels={},
            likeness=False,
            latest_number=None,
            size_bytes=0,
            revision=row.revision + 1,
            update_time=moment,
            delete_time=moment,
            purge_time=None,
            erase_time=moment,
        )
    )
    made = connection.execute(
        insert(ERASURES)
        .values(
            tenant=row.tenant,
            concept_id=row.concept_id,
            uid=row.uid,
            eraser=eraser,
            erase_time=moment,
            version_count=removed["versions"],
            alias_count=removed["aliases"],
            grant_count=removed["grants"],
            consent_count=removed["consents"],
            settle_time=None if digests else moment,
        )
        .returning(ERASURES.c.id)
    ).scalar_one()
    if digests:
        connection.execute(
            insert(ERASED_ADAPTERS),
            [
                {
                    "erasure": made,
                    "digest": each.digest,
                    "size_bytes": each.size_bytes,
                    "state": Fate.PENDING.value,
                    "holder_count": 0,
                    "preview": each.preview,
                }
                for each in digests
            ],
        )


def erase_again(connection: Connection, receipt: dict[str, Any]) -> int:
    """Erase what a receipt says was erased; 1 where it was not erased here.

    Raises:
        InvalidArgument: it is no receipt.
    """
    try:
        name, uid = ConceptName.parse(receipt["concept"]), str(receipt["uid"])
        eraser, moment = str(receipt["eraser"]), datetime.fromisoformat(receipt["erase_time"])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidArgument(
            f"{str(receipt)[:80]} is no receipt. Give lines as export-erasures writes them"
        ) from error
    row = locked_concept(connection, name)
    if row is None:
        # Made and erased after the backup: its name is not to be given again all the same.
        row = connection.execute(
            insert(CONCEPTS)
            .values(
                tenant=name.tenant,
                concept_id=name.concept,
                uid=uid,
                display_name="",
                super_category="",
                likeness=False,
                description="",
                labels={},
                next_number=1,
                revision=1,
                create_time=moment,
                update_time=moment,
            )
            .returning(CONCEPTS)
        ).one()
    if row.erase_time is not None:
        return 0
    erase_row(connection, row, eraser, moment)
    return 1
