"""What an upload meets: the answer that it had before, its concept, its base model.

Each may be missing. One statement reads them, for each is a way to PostgreSQL and back.
"""

from __future__ import annotations

from sqlalchemy import Connection, and_, bindparam, literal, select

from perfuse.names import ConceptName
from perfuse.storage.database import AnyRow
from perfuse.storage.prepared import Prepared
from perfuse.storage.requests import Mutation
from perfuse_registry.tables import BASE_MODELS, CONCEPTS, REQUESTS

_nothing = select(literal(1).label("one")).subquery()
_STANDING = Prepared(
    select(
        REQUESTS.c.fingerprint,
        REQUESTS.c.answer,
        CONCEPTS.c.id.label("concept"),
        CONCEPTS.c.super_category,
        CONCEPTS.c.likeness,
        CONCEPTS.c.delete_time,
        CONCEPTS.c.erase_time,
        BASE_MODELS.c.id.label("base_model"),
        BASE_MODELS.c.base_model_id,
        BASE_MODELS.c.architecture,
        BASE_MODELS.c.conditioning_width,
        BASE_MODELS.c.layers,
        BASE_MODELS.c.encoders,
    )
    .select_from(_nothing)
    .outerjoin(
        REQUESTS,
        and_(
            REQUESTS.c.tenant == bindparam("tenant"),
            REQUESTS.c.method == bindparam("method"),
            REQUESTS.c.request_id == bindparam("request_id"),
        ),
    )
    .outerjoin(
        CONCEPTS,
        and_(
            CONCEPTS.c.tenant == bindparam("tenant"),
            CONCEPTS.c.concept_id == bindparam("concept"),
        ),
    )
    .outerjoin(BASE_MODELS, BASE_MODELS.c.fingerprint == bindparam("base"))
)


def standing(
    connection: Connection, mutation: Mutation, method: str, parent: ConceptName, fingerprint: str
) -> AnyRow:
    """The row of all three; `fingerprint` and `answer` of the request, if it was made before.

    Args:
        connection: For reading.
        mutation: Whose request.
        method: Of the API.
        parent: The concept; its key is `concept`, None where there is none.
        fingerprint: Of the base model; its key is `base_model`, None where there is none.
    """
    (row,) = _STANDING.all(
        connection,
        tenant=mutation.tenant,
        method=method,
        request_id=mutation.request_id,
        concept=parent.concept,
        base=fingerprint,
    )
    found: AnyRow = row
    return found
