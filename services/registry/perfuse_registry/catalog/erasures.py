"""Rules for erasures: a concept goes for good, and what is left says that it went.

The concept's row stays, emptied, so that its name is never given again and whoever holds the row's
lock finds it erased. All that hung on it is removed in the same transaction; its adapters' bytes
are noted there and removed afterwards (`perfuse_registry.erased_bytes`).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import Connection, select, update

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
from perfuse_registry.catalog.receipts import canonical
from perfuse_registry.catalog.requests import once
from perfuse_registry.catalog.resources import etag_of
from perfuse_registry.catalog.tombstones import erase_again, erase_row
from perfuse_registry.erased_bytes import ErasedBytes
from perfuse_registry.failpoints import reach
from perfuse_registry.tables import ERASED_ADAPTERS, ERASURES

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
            erase_row(connection, row, mutation.mover, now())
            reach("erasure.uncommitted")
            return _found(connection, name.erasure)

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
            count += self._database.transact(partial(erase_again, receipt=receipt))
        self._bytes.go_on()
        return count


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
            ErasedAdapter(
                each.digest, each.size_bytes, Fate(each.state), each.holder_count, each.preview
            )
            for each in adapters
        ),
    )
