"""Versions as rows: read with their concept and base model, inserted under the next number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Select, bindparam, insert, select, update

from perfuse.names import LATEST, ConceptName, VersionName
from perfuse.storage.database import AnyRow
from perfuse.storage.prepared import Prepared
from perfuse_registry.catalog.ownership import concept_row, missing, require_live
from perfuse_registry.catalog.resources import Version
from perfuse_registry.failpoints import reach
from perfuse_registry.tables import ALIASES, BASE_MODELS, CONCEPTS, VERSIONS

_COLUMNS = tuple(Version.__dataclass_fields__)
_STORED = tuple(key for key in _COLUMNS if key in VERSIONS.c)
_ELSEWHERE = {
    "concept_id": CONCEPTS.c.concept_id,
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
_COUNT_UP = Prepared(
    update(CONCEPTS)
    .where(CONCEPTS.c.id == bindparam("concept"), CONCEPTS.c.delete_time.is_(None))
    .values(next_number=CONCEPTS.c.next_number + 1, latest_number=CONCEPTS.c.next_number)
    .returning(CONCEPTS.c.latest_number)
)
_INSERT = Prepared(insert(VERSIONS).inline(), ("concept", "base_model", *_STORED))


def version_of(row: AnyRow) -> Version:
    """The version in a row of `WITH_PARENTS`."""
    return Version(**dict(zip(_COLUMNS, row, strict=False)))


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


def insert_numbered(
    connection: Connection, parent: ConceptName, version: Version, concept: int, base: int
) -> Version:
    """Insert the version under the concept's next number, in a transaction.

    Args:
        connection: In the transaction.
        parent: Name of the concept.
        version: Everything but its number.
        concept: Key of the concept's row when the adapter was judged.
        base: Key of the base model's row.

    Raises:
        NotFound, ConceptDeleted: the concept went meanwhile.
    """
    counted = _COUNT_UP.first(connection, concept=concept)
    if counted is None:
        require_live(concept_row(connection, parent), parent)
        raise missing(parent)  # Purged, and made anew under its name.
    made = replace(version, number=counted.latest_number)
    reach("version.numbered")
    values = {key: getattr(made, key) for key in _STORED}
    _INSERT.run(connection, concept=concept, base_model=base, **values)
    return made
