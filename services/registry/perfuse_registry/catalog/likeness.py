"""Likenesses: what may be done with the concept of a living person, and until when.

Whether a use is consented to is looked up whenever it is asked for, and never remembered here.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, bindparam, select

from perfuse.errors import ConsentExpired, ConsentMissing, ConsentRevoked, FailedPrecondition
from perfuse.names import ConceptName
from perfuse.storage.database import AnyRow
from perfuse.storage.moments import now
from perfuse.storage.prepared import Prepared
from perfuse_registry.catalog.resources import Scope
from perfuse_registry.tables import CONSENTS, REVOCATIONS

_USES = {Scope.TRAIN: "training", Scope.RENDER: "rendering"}
_OF_CONCEPT = Prepared(
    select(
        CONSENTS.c.id,
        CONSENTS.c.train,
        CONSENTS.c.render,
        CONSENTS.c.start_time,
        CONSENTS.c.expire_time,
        REVOCATIONS.c.revoke_time,
    )
    .outerjoin(REVOCATIONS, REVOCATIONS.c.consent == CONSENTS.c.id)
    .where(CONSENTS.c.concept == bindparam("concept"))
)


def consented_until(connection: Connection, concept: int, scope: Scope) -> datetime | None:
    """Until when a use is consented to at the moment; None where it is not.

    Args:
        connection: For reading.
        concept: Key of the concept's row.
        scope: The use.
    """
    return _live(_consents(connection, concept, scope), now())


def require_consent(
    connection: Connection, concept: int, name: ConceptName, scope: Scope
) -> datetime:
    """Until when a use of a likeness is consented to.

    Args:
        connection: For reading, or in the transaction that is to depend on it.
        concept: Key of the concept's row.
        name: Of the concept.
        scope: The use.

    Raises:
        ConsentMissing, ConsentExpired, ConsentRevoked: it is not, as their names say.
    """
    moment = now()
    consents = _consents(connection, concept, scope)
    until = _live(consents, moment)
    if until is None:
        raise _refusal(consents, moment, name, _USES[scope])
    return until


def _consents(connection: Connection, concept: int, scope: Scope) -> list[AnyRow]:
    rows = _OF_CONCEPT.all(connection, concept=concept)
    return [row for row in rows if (row.train if scope is Scope.TRAIN else row.render)]


def _live(consents: list[AnyRow], moment: datetime) -> datetime | None:
    return max(
        (
            row.expire_time
            for row in consents
            if row.revoke_time is None and row.start_time <= moment < row.expire_time
        ),
        default=None,
    )


def _refusal(
    consents: list[AnyRow], moment: datetime, name: ConceptName, use: str
) -> FailedPrecondition:
    remedy = "Record the person's consent with CreateConsent, or do without"
    refusal: FailedPrecondition
    if not consents:
        refusal = ConsentMissing(
            f"{name} is a living person's likeness, and nobody has consented to {use} it. {remedy}"
        )
    else:
        last = max(consents, key=lambda row: int(row.id))
        if last.revoke_time is not None:
            refusal = ConsentRevoked(f"the consent to {use} {name} was revoked. {remedy}")
        elif last.start_time > moment:
            refusal = ConsentMissing(
                f"the consent to {use} {name} counts from {last.start_time:%Y-%m-%d %H:%M} UTC "
                f"on, not yet. Wait until then. {remedy}"
            )
        else:
            refusal = ConsentExpired(
                f"the consent to {use} {name} expired at {last.expire_time:%Y-%m-%d %H:%M} UTC. "
                f"{remedy}"
            )
    refusal.resource = str(name)
    return refusal
