"""Rules for consents: recorded, read, revoked; never changed otherwise.

A revocation is a row of its own, so that no row of either table ever changes; triggers see to it.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Select, insert, select

from perfuse.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from perfuse.names import ConceptName, ConsentName
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.listing import Lists, Page, Query
from perfuse.storage.moments import now
from perfuse.storage.paging import Listing
from perfuse.storage.requests import Mutation
from perfuse_registry.catalog.ownership import (
    concept_row,
    locked_concept,
    missing,
    require_etag,
    require_live,
    require_own,
)
from perfuse_registry.catalog.requests import once
from perfuse_registry.catalog.resources import Consent, Scope
from perfuse_registry.tables import CONCEPTS, CONSENTS, REVOCATIONS


class Consents:
    """Consents to the use of every tenant's likenesses."""

    def __init__(self, database: Database, lists: Lists) -> None:
        self._database = database
        self._lists = lists

    def create(
        self,
        mutation: Mutation,
        parent: ConceptName,
        consent_id: str,
        *,
        giver: str,
        scopes: Collection[Scope],
        start_time: datetime | None,
        expire_time: datetime | None,
    ) -> Consent:
        """Record a consent.

        Args:
            mutation: Who records it.
            parent: The concept.
            consent_id: Drawn where it is empty.
            giver: Who consented, or where that is written.
            scopes: To what.
            start_time: None for at once.
            expire_time: Until when.

        Raises:
            NotFound, ConceptDeleted: the concept.
            FailedPrecondition: it is no likeness.
            InvalidArgument: no giver, no scope, no end, or an end that is over.
            AlreadyExists: the id is taken.
        """
        require_own(mutation.tenant, parent)
        moment = now()
        if not giver.strip():
            raise InvalidArgument.in_field(
                "consent.giver", "it is empty; say who consented, or where that is written"
            )
        if not scopes:
            raise InvalidArgument.in_field(
                "consent.scopes", "there is none; choose CONSENT_SCOPE_TRAIN, _RENDER or both"
            )
        start = start_time or moment
        if expire_time is None or expire_time <= max(start, moment):
            raise InvalidArgument.in_field(
                "consent.expire_time",
                "it is missing, over already, or before the start; say until when the consent "
                "counts",
            )
        name = parent.consent(consent_id or f"consent-{uuid4().hex[:12]}")

        def work(connection: Connection) -> Consent:
            concept = require_live(locked_concept(connection, parent), parent)
            if not concept.likeness:
                raise FailedPrecondition(
                    f"{parent} is not marked as a likeness, so that it needs no consent. Only a "
                    "new concept can be"
                )
            if _row(connection, name) is not None:
                refusal = AlreadyExists(f"{name} exists already. Choose another id, or none")
                refusal.resource = str(name)
                raise refusal
            connection.execute(
                insert(CONSENTS).values(
                    concept=concept.id,
                    consent_id=name.consent,
                    uid=str(uuid4()),
                    giver=giver,
                    train=Scope.TRAIN in scopes,
                    render=Scope.RENDER in scopes,
                    start_time=start,
                    expire_time=expire_time,
                    recorder=mutation.mover,
                    create_time=moment,
                )
            )
            return _found(connection, name)

        content = [
            str(parent),
            consent_id,
            giver,
            sorted(scopes),
            None if start_time is None else start_time.isoformat(),
            expire_time.isoformat(),
        ]
        return once(self._database, mutation, "CreateConsent", content, Consent, work)

    def get(self, tenant: str, name: ConsentName) -> Consent:
        """One consent.

        Raises:
            NotFound, ConceptDeleted: as their names say.
        """
        require_own(tenant, name)

        def work(connection: Connection) -> Consent:
            concept = concept_row(connection, name.parent)
            if concept is None:
                raise missing(name)
            require_live(concept, name.parent)
            return _found(connection, name)

        return self._database.read(work)

    def list(self, tenant: str, parent: ConceptName, query: Query) -> Page[Consent]:
        """A page of a concept's consents, the newest first.

        Raises:
            NotFound, ConceptDeleted: the concept.
            InvalidArgument: token or size.
        """
        require_own(tenant, parent)
        concept = require_live(
            self._database.read(lambda connection: concept_row(connection, parent)), parent
        )
        return self._lists.page(
            _SELECT.where(CONSENTS.c.concept == concept.id),
            query,
            Listing(tenant, "ListConsents", str(parent)),
            {},
            {"id": CONSENTS.c.id},
            "id desc",
            CONSENTS.c.id,
            _consent_of,
        )

    def revoke(self, mutation: Mutation, name: ConsentName, etag: str) -> Consent:
        """Take a consent back; one that was revoked stays as it is.

        Raises:
            NotFound, ConceptDeleted, EtagMismatch: as their names say.
        """
        require_own(mutation.tenant, name)

        def work(connection: Connection) -> Consent:
            # Whoever makes a version under the consent holds the same row.
            concept = locked_concept(connection, name.parent)
            if concept is None:
                raise missing(name)
            require_live(concept, name.parent)
            row = _row(connection, name)
            if row is None:
                raise missing(name)
            consent = _consent_of(row)
            require_etag(etag, consent.etag, name)
            if consent.revoke_time is None:
                connection.execute(
                    insert(REVOCATIONS).values(
                        consent=row.id, revoker=mutation.mover, revoke_time=now()
                    )
                )
            return _found(connection, name)

        return once(self._database, mutation, "RevokeConsent", [str(name), etag], Consent, work)


_SELECT: Select[Any] = (
    select(
        CONSENTS,
        CONCEPTS.c.tenant,
        CONCEPTS.c.concept_id,
        REVOCATIONS.c.revoke_time,
        REVOCATIONS.c.revoker,
    )
    .join(CONCEPTS, CONCEPTS.c.id == CONSENTS.c.concept)
    .outerjoin(REVOCATIONS, REVOCATIONS.c.consent == CONSENTS.c.id)
)


def _row(connection: Connection, name: ConsentName) -> AnyRow | None:
    return connection.execute(
        _SELECT.where(
            CONCEPTS.c.tenant == name.tenant,
            CONCEPTS.c.concept_id == name.concept,
            CONSENTS.c.consent_id == name.consent,
        )
    ).first()


def _found(connection: Connection, name: ConsentName) -> Consent:
    row = _row(connection, name)
    if row is None:
        raise missing(name)
    return _consent_of(row)


def _consent_of(row: AnyRow) -> Consent:
    return Consent(
        tenant=row.tenant,
        concept_id=row.concept_id,
        consent_id=row.consent_id,
        uid=row.uid,
        giver=row.giver,
        train=row.train,
        render=row.render,
        start_time=row.start_time,
        expire_time=row.expire_time,
        recorder=row.recorder,
        create_time=row.create_time,
        revoke_time=row.revoke_time,
        revoker=row.revoker or "",
    )
