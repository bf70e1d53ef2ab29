"""What refers to bytes in the store: versions to their adapters, previews to their pictures."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table, exists, or_, select, union_all

from perfuse_registry.tables import PREVIEWS, VERSIONS

HOLDERS = union_all(
    *(
        select(table.c.tenant, table.c.digest, table.c.concept, table.c.number)
        for table in (VERSIONS, PREVIEWS)
    )
).subquery("holders")
"""Each reference: whose, which digest, and the version that it is of."""


def is_referred_to(blobs: Table) -> Any:
    """Whether a version refers to the blob of the outer query's row."""
    return or_(
        *(
            exists()
            .where(table.c.tenant == blobs.c.tenant, table.c.digest == blobs.c.digest)
            .correlate(blobs)
            for table in (VERSIONS, PREVIEWS)
        )
    )
