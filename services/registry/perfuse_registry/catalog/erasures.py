"""Rules for erasures: a concept goes for good, and what is left says that it went.

The concept's row stays, emptied, so that its name is never given again and whoever holds the row's
lock finds it erased. All that hung on it is removed in the same transaction; its adapters' bytes
are noted there and removed afterwards (`perfuse_registry.erased_bytes`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from perfuse.errors import InvalidArgument
from perfuse.names import ConceptName, ErasureName, TenantName
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.listing import Lists, Page, Query
from perfuse.storage.moments import now
from perfuse.storage.paging import Listing
from perfuse.storage.requests import Mutation
from perfuse_registry.catalog.erased import ErasedAdapter, Erasure, Fate, TrainerCounts
from perfuse_registry.catalog.ownership import (
    erased,
    locked_concept,
    missing,
    require_etag,
    require_own,
)
from perfuse_registry.catalog.requests import once
from perfuse_registry.catalog.resources import etag_of
from perfuse_registry.erased_bytes import ErasedBytes
from perfuse_registry.failpoints import reach
from perfuse_registry.tables import (
    ALIAS_MOVES,
    ALIASES,
    CONCEPTS,
    CONSENTS,
    ERASED_ADAPTERS,
    ERASURES,
    GRANTS,
    REQUESTS,
    REVOCATIONS,
    VERSIONS,
)

EVERY_TENANT = "tenants/-"
"""The parent under which operators and services list the erasures of all tenants (AIP-159)."""


class Erasures:
    """Erasures of every tenant's concepts.

    Args:
        database: With the Registry's tables.
        lists: For pages.
        bytes_: Removes what erasures noted.
        key: Under which receipts are signed.
    """

    def __init__(self, database: Database, lists: Lists, bytes_: ErasedBytes, key: bytes) -> None:
        self._database, self._lists = database, lists
        self._bytes, self._key = bytes_, key

    def erase(self, mutation: Mutation, name: ConceptName, etag: str) -> Erasure:
        """Erase a concept, deleted or not; what it had in the store goes as soon as it can.

        Raises:
            NotFound, EtagMismatch: as their names say.
            ConceptErased: it was erased before.
            InvalidArgument: no etag.
        """
        require_own(mutation.tenant, name)
        if not etag:
            raise InvalidArgument.in_field(
                "etag", "it is empty; read the concept first and send the etag that it has"
            )

        def work(connection: Connection) -> Erasure:
            row = locked_concept(connection, name)
            if row is None:
                raise missing(name)
            if row.erase_time is not None:
                raise erased(name)
            require_etag(etag, etag_of(row.uid, row.revision), name)
            made = erase_row(connection, row, mutation.mover, now())
            reach("erasure.uncommitted")
            return made

        done = once(self._database, mutation, "EraseConcept", [str(name), etag], Erasure, work)
        reach("erasure.committed")
        self._bytes.go_on()
        return done

    def get(self, tenant: str, name: ErasureName) -> Erasure:
        """One erasure as it is at the moment.

        Raises:
            NotFound: there is none, or it is another tenant's.
        """
        require_own(tenant, name)
        return self._database.read(lambda connection: _found(connection, name))

    def list(
        self,
        tenant: str,
        parent: str,
        query: Query,
        *,
        everyone: bool,
        unconfirmed_only: bool = False,
        with_adapters: bool = False,
        after: datetime | None = None,
    ) -> Page[Erasure]:
        """A page of erasures, the newest first.

        Args:
            tenant: Of the caller.
            parent: `tenants/{tenant}`, or `EVERY_TENANT`.
            query: As asked.
            everyone: Whether the caller may see the erasures of every tenant.
            unconfirmed_only: Only those of which the Trainer has said nothing yet.
            with_adapters: Whether adapters are to be told too.
            after: Only those of later than that.

        Raises:
            NotFound: another tenant's, without that right.
            InvalidArgument: parent, token or size.
        """
        chosen = select(ERASURES)
        if parent != EVERY_TENANT:
            owner = TenantName.parse(parent, "parent")
            if not everyone:
                require_own(tenant, owner)
            chosen = chosen.where(ERASURES.c.tenant == owner.tenant)
        elif not everyone:
            raise missing(parent)
        if unconfirmed_only:
            chosen = chosen.where(ERASURES.c.trainer_time.is_(None))
        if after is not None:
            chosen = chosen.where(ERASURES.c.erase_time > after)
        asked = f"{unconfirmed_only} {'' if after is None else after.isoformat()}"
        page = self._lists.page(
            chosen,
            query,
            Listing(tenant, "ListErasures", parent, asked),
            {},
            {"id": ERASURES.c.id},
            "id desc",
            ERASURES.c.id,
            _erasure_of,
        )
        if not with_adapters:
            return page
        whole = [self.get(each.tenant, each.name) for each in page.items]
        return Page(whole, page.next_page_token)

    def confirm(self, mutation: Mutation, name: ErasureName, counts: TrainerCounts) -> Erasure:
        """Take down what the Trainer removed; what it said first stays.

        Raises:
            NotFound: there is no such erasure.
        """
        require_own(mutation.tenant, name)
        known = self.get(mutation.tenant, name)
        if known.trainer is not None:
            return known

        def work(connection: Connection) -> Erasure:
            told = update(ERASURES).where(*_named(name), ERASURES.c.trainer_time.is_(None))
            connection.execute(told.values(trainer=counts.to_json(), trainer_time=now()))
            return _found(connection, name)

        return once(self._database, mutation, "ConfirmErasure", [str(name)], Erasure, work)

    def every(self) -> Iterator[Erasure]:
        """All erasures of the installation, the oldest first, with their adapters.

        Raises:
            Unavailable: the database does not answer.
        """
        named = select(ERASURES.c.tenant, ERASURES.c.concept_id).order_by(ERASURES.c.id)
        for row in self._database.read(lambda connection: connection.execute(named).all()):
            yield self.get(row.tenant, ErasureName(row.tenant, row.concept_id))

    def receipt(self, erasure: Erasure) -> tuple[str, str]:
        """An erasure as canonical JSON, and its HMAC-SHA256 in hexadecimal."""
        text = canonical(erasure)
        return text, hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()

    def again(self, receipts: Sequence[dict[str, Any]]) -> int:
        """Erase once more what receipts say was erased: after a restore of an older backup.

        Returns:
            How many of them were not erased here.

        Raises:
            Unavailable: database or store do not answer; what was done until then stays done.
            InvalidArgument: something that is no receipt.
        """
        count = 0
        for receipt in receipts:
            count += self._database.transact(partial(_again, receipt=receipt))
        self._bytes.go_on()
        return count


def read_receipts(text: str) -> list[dict[str, Any]]:
    """Receipts, one a line.

    Raises:
        InvalidArgument: a line is none.
    """
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError as error:
        raise InvalidArgument(
            f"a line is no receipt: {error}. Give lines as export-erasures writes them"
        ) from error


def canonical(erasure: Erasure) -> str:
    """What is signed: keys sorted, no spaces, moments in ISO 8601 and UTC."""
    told = {
        "adapters": [
            {
                "digest": each.digest,
                "holders": each.holder_count,
                "size_bytes": each.size_bytes,
                "state": each.state.value,
            }
            for each in erasure.adapters
        ],
        "aliases": erasure.alias_count,
        "complete_time": _told(erasure.complete_time),
        "concept": str(ConceptName(erasure.tenant, erasure.concept_id)),
        "consents": erasure.consent_count,
        "erase_time": _told(erasure.erase_time),
        "eraser": erasure.eraser,
        "grants": erasure.grant_count,
        "name": str(erasure.name),
        "state": "COMPLETE" if erasure.complete_time else "ERASING",
        "trainer": None
        if erasure.trainer is None
        else {**erasure.trainer.to_json(), "confirm_time": _told(erasure.trainer_time)},
        "uid": erasure.uid,
        "versions": erasure.version_count,
    }
    return json.dumps(told, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def erase_row(connection: Connection, row: AnyRow, eraser: str, moment: datetime) -> Erasure:
    """Erase the concept of a row that the transaction holds, and note what is to go with it."""
    digests = connection.execute(
        select(VERSIONS.c.digest, func.max(VERSIONS.c.size_bytes).label("size_bytes"))
        .where(VERSIONS.c.concept == row.id)
        .group_by(VERSIONS.c.digest)
        .order_by(VERSIONS.c.digest)
    ).all()
    consents = select(CONSENTS.c.id).where(CONSENTS.c.concept == row.id)
    connection.execute(delete(REVOCATIONS).where(REVOCATIONS.c.consent.in_(consents)))
    removed = {
        table.name: connection.execute(delete(table).where(table.c.concept == row.id)).rowcount
        for table in (ALIASES, ALIAS_MOVES, GRANTS, CONSENTS, VERSIONS)
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
                }
                for each in digests
            ],
        )
    return _found(connection, ErasureName(row.tenant, row.concept_id))


def _again(connection: Connection, receipt: dict[str, Any]) -> int:
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


def _named(name: ErasureName) -> tuple[Any, ...]:
    return ERASURES.c.tenant == name.tenant, ERASURES.c.concept_id == name.concept


def _found(connection: Connection, name: ErasureName) -> Erasure:
    row = connection.execute(select(ERASURES).where(*_named(name))).first()
    if row is None:
        raise missing(name)
    adapters = connection.execute(
        select(ERASED_ADAPTERS)
        .where(ERASED_ADAPTERS.c.erasure == row.id)
        .order_by(ERASED_ADAPTERS.c.digest)
    ).all()
    return _erasure_of(row, adapters)


def _erasure_of(row: AnyRow, adapters: Sequence[AnyRow] = ()) -> Erasure:
    return Erasure(
        tenant=row.tenant,
        concept_id=row.concept_id,
        uid=row.uid,
        eraser=row.eraser,
        erase_time=row.erase_time,
        version_count=row.version_count,
        alias_count=row.alias_count,
        grant_count=row.grant_count,
        consent_count=row.consent_count,
        settle_time=row.settle_time,
        trainer=None if row.trainer is None else TrainerCounts(**row.trainer),
        trainer_time=row.trainer_time,
        adapters=tuple(
            ErasedAdapter(each.digest, each.size_bytes, Fate(each.state), each.holder_count)
            for each in adapters
        ),
    )


def _told(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
