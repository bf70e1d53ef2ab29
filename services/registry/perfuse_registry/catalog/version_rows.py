"""Versions as rows: read with their concept and base model, inserted under the next number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    Connection,
    Select,
    bindparam,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.sql.dml import ReturningInsert

from perfuse.names import LATEST, ConceptName, VersionName
from perfuse.storage.database import AnyRow
from perfuse.storage.moments import now
from perfuse.storage.prepared import Prepared
from perfuse_registry.catalog.attachments import insert_previews, points_json, remove_previews
from perfuse_registry.catalog.leases import outlasted
from perfuse_registry.catalog.ownership import concept_row, missing, require_live
from perfuse_registry.catalog.resources import Version
from perfuse_registry.catalog.uploads import HeldFiles
from perfuse_registry.catalog.usage import hold, require_bytes
from perfuse_registry.failpoints import reach
from perfuse_registry.tables import (
    ALIASES,
    BASE_MODELS,
    BLOBS,
    CONCEPTS,
    LEASES,
    VERSIONS,
)

_COLUMNS = tuple(
    key for key in Version.__dataclass_fields__ if key not in ("attachments", "render_until")
)
_STORED = tuple(key for key in _COLUMNS if key in VERSIONS.c)
_ELSEWHERE = {
    "concept_id": CONCEPTS.c.concept_id,
    "likeness": CONCEPTS.c.likeness,
    "base_model_id": BASE_MODELS.c.base_model_id,
    "fingerprint": BASE_MODELS.c.fingerprint,
}

WITH_PARENTS: Select[Any] = (
    select(
        # A version's fields in their order, so that a row becomes one without looking up names.
        *(_ELSEWHERE[key] if key in _ELSEWHERE else VERSIONS.c[key] for key in _COLUMNS),
        VERSIONS.c.id,
        VERSIONS.c.concept,
        CONCEPTS.c.delete_time,
    )
    .join(CONCEPTS, CONCEPTS.c.id == VERSIONS.c.concept)
    .join(BASE_MODELS, BASE_MODELS.c.id == VERSIONS.c.base_model)
)

_OF_CONCEPT = WITH_PARENTS.where(
    CONCEPTS.c.tenant == bindparam("tenant"), CONCEPTS.c.concept_id == bindparam("concept")
)
_NUMBERED = Prepared(_OF_CONCEPT.where(VERSIONS.c.number == bindparam("version")))
_LATEST = Prepared(_OF_CONCEPT.where(VERSIONS.c.number == CONCEPTS.c.latest_number))
_ALIASED = Prepared(
    _OF_CONCEPT.join(
        ALIASES,
        (ALIASES.c.concept == VERSIONS.c.concept) & (ALIASES.c.number == VERSIONS.c.number),
    ).where(ALIASES.c.alias_id == bindparam("version"))
)

# Locks the concept's row; after it no one else has the number that it gives.
_count_up = (
    update(CONCEPTS)
    .where(CONCEPTS.c.id == bindparam("concept"), CONCEPTS.c.delete_time.is_(None))
    .values(
        next_number=CONCEPTS.c.next_number + 1,
        latest_number=CONCEPTS.c.next_number,
        size_bytes=CONCEPTS.c.size_bytes + bindparam("counted_bytes", type_=BigInteger),
    )
    .returning(CONCEPTS.c.latest_number)
)
_COUNT_UP = Prepared(_count_up)
_INSERT = Prepared(insert(VERSIONS).inline(), ("concept", "base_model", "curve", *_STORED))
# In the order in which a collection locks them.
_HOLD_BLOBS = (
    select(BLOBS.c.digest)
    .where(
        BLOBS.c.tenant == bindparam("tenant"),
        BLOBS.c.digest.in_(bindparam("digests", expanding=True)),
    )
    .order_by(BLOBS.c.digest)
    .with_for_update(read=True, key_share=True)
)


def insert_at_once() -> tuple[ReturningInsert[tuple[int]], CTE]:
    """A statement of PostgreSQL: the lease dropped, number and bytes counted up, the version
    inserted; or nothing. With it the part of it that gives the number, as `latest_number`.

    The blob's row is locked first, as a collection does, which condemns it and then drops its
    leases: so neither waits for what the other has and keeps.
    """
    blob = (
        select(BLOBS.c.digest)
        .where(BLOBS.c.tenant == bindparam("tenant"), BLOBS.c.digest == bindparam("digest"))
        .with_for_update(read=True, key_share=True)
        .cte("blob")
    )
    dropped = (
        delete(LEASES)
        .where(LEASES.c.id == bindparam("lease"), exists(select(blob.c.digest)))
        .returning(LEASES.c.id)
        .cte("dropped")
    )
    counted = _count_up.where(exists(select(dropped.c.id))).cte("counted")
    given = ("concept", "base_model", "curve", *(key for key in _STORED if key != "number"))
    values = [bindparam(key, type_=VERSIONS.c[key].type) for key in given]
    made = insert(VERSIONS).from_select(
        [*given, "number"], select(*values, counted.c.latest_number)
    )
    return made.returning(VERSIONS.c.number), counted


_AT_ONCE = Prepared(insert_at_once()[0])


def version_of(row: AnyRow) -> Version:
    """The version in a row of `WITH_PARENTS`."""
    return Version(*row[: len(_COLUMNS)])


def version_row(connection: Connection, name: VersionName) -> AnyRow | None:
    """The row of one version, by number, alias or `latest`."""
    asked: dict[str, Any] = {"tenant": name.tenant, "concept": name.concept}
    number = name.number
    if number is not None:
        return _NUMBERED.first(connection, version=number, **asked)
    if name.version == LATEST:
        return _LATEST.first(connection, **asked)
    return _ALIASED.first(connection, version=name.version, **asked)


def found(row: AnyRow | None, name: VersionName) -> Version:
    """The version in a row of `WITH_PARENTS`.

    Raises:
        NotFound, ConceptDeleted: as their names say.
    """
    if row is None:
        raise missing(name)
    require_live(row, name.parent)
    return version_of(row)


def version_values(version: Version, concept: int, base: int) -> dict[str, Any]:
    """The values of a new version's row but for its number, and bytes to be counted with it.

    Args:
        version: Everything but its number.
        concept, base: Keys of its concept's row and of its base model's.
    """
    values = {key: getattr(version, key) for key in _STORED if key != "number"}
    return values | {
        "concept": concept,
        "base_model": base,
        "curve": points_json(version.attachments.curve) or None,
        "counted_bytes": version.size_bytes + version.attachment_bytes,
    }


def insert_numbered(
    connection: Connection,
    parent: ConceptName,
    version: Version,
    concept: int,
    base: int,
    files: HeldFiles,
    most_bytes: int | None,
) -> Version:
    """Insert the version under the concept's next number, in a transaction, and drop the leases.

    Args:
        connection: In the transaction.
        parent: Name of the concept.
        version: Everything but its number; previews and curve come with it.
        concept: Key of the concept's row when the adapter was judged.
        base: Key of the base model's row.
        files: Leases on the bytes, under which they were put.
        most_bytes: That its tenant may keep; None for any.

    Raises:
        QuotaExceeded: with it the tenant would keep more.
        NotFound, ConceptDeleted: the concept went meanwhile.
        Unavailable: a lease expired and a collection has condemned the bytes.
    """
    previews = version.attachments.previews
    values = version_values(version, concept, base)
    counted = values.pop("counted_bytes")
    if most_bytes is not None:
        hold(connection, version.tenant)
        require_bytes(connection, version.tenant, counted, most_bytes)
    if files.previews:
        digests = {version.digest, *(each.digest for each in previews)}
        connection.execute(_HOLD_BLOBS, {"tenant": version.tenant, "digests": sorted(digests)})
    if not all(each.drop(connection) for each in files.previews):
        number = None
    elif connection.dialect.name == "postgresql":
        row = _AT_ONCE.first(connection, lease=files.adapter.id, counted_bytes=counted, **values)
        number = None if row is None else row.number
    else:
        row = (
            _COUNT_UP.first(connection, concept=concept, counted_bytes=counted)
            if files.adapter.drop(connection)
            else None
        )
        number = None if row is None else row.latest_number
        if number is not None:
            reach("version.numbered")
            _INSERT.run(connection, number=number, **values)
    if number is None:
        now_there = require_live(concept_row(connection, parent), parent)
        if now_there.id != concept:
            raise missing(parent)  # Purged, and made anew under its name.
        raise outlasted()
    if previews:
        insert_previews(connection, version.tenant, concept, number, previews)
        reach("preview.inserted")
    return replace(version, number=number)


def remove_version(connection: Connection, row: AnyRow) -> None:
    """Remove a version's row and what hangs on it, in a transaction that holds its concept."""
    if row.attachment_bytes:
        remove_previews(connection, row.tenant, row.concept, row.number)
    connection.execute(delete(VERSIONS).where(VERSIONS.c.id == row.id))
    reach("version_delete.unlisted")
    highest = select(func.max(VERSIONS.c.number)).where(VERSIONS.c.concept == row.concept)
    connection.execute(
        update(CONCEPTS)
        .where(CONCEPTS.c.id == row.concept)
        .values(
            latest_number=highest.scalar_subquery(),
            size_bytes=CONCEPTS.c.size_bytes - row.size_bytes - row.attachment_bytes,
        )
    )
    # The grace period of bytes that nothing refers to begins now.
    connection.execute(
        update(BLOBS)
        .where(BLOBS.c.tenant == row.tenant, BLOBS.c.digest == row.digest)
        .values(touch_time=now())
    )
