"""Versions as rows: read with their concept and base model, inserted under the next number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Select, bindparam, insert, select, update

from perfuse.names import LATEST, ConceptName, VersionName
from perfuse.storage.database import AnyRow
from perfuse_registry.catalog.ownership import locked_concept, missing, require_live
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

# Made once: to build such a query costs as much as to run it.
_OF_CONCEPT = WITH_PARENTS.where(
    CONCEPTS.c.tenant == bindparam("tenant"), CONCEPTS.c.concept_id == bindparam("concept")
)
_NUMBERED = _OF_CONCEPT.where(VERSIONS.c.number == bindparam("version"))
_LATEST = _OF_CONCEPT.where(VERSIONS.c.number == CONCEPTS.c.latest_number)
_ALIASED = _OF_CONCEPT.join(
    ALIASES, (ALIASES.c.concept == VERSIONS.c.concept) & (ALIASES.c.number == VERSIONS.c.number)
).where(ALIASES.c.alias_id == bindparam("version"))

_COUNT_UP = (
    update(CONCEPTS)
    .where(CONCEPTS.c.id == bindparam("concept"))
    .values(next_number=bindparam("number") + 1, latest_number=bindparam("number"))
)
_INSERT = insert(VERSIONS)


def version_of(row: AnyRow) -> Version:
    """The version in a row of `WITH_PARENTS`."""
    return Version(**dict(zip(_COLUMNS, row, strict=False)))


def version_row(connection: Connection, name: VersionName) -> AnyRow | None:
    """The row of one version, by number, alias or `latest`."""
    asked: dict[str, Any] = {"tenant": name.tenant, "concept": name.concept}
    number = name.number
    if number is not None:
        return connection.execute(_NUMBERED, asked | {"version": number}).first()
    if name.version == LATEST:
        return connection.execute(_LATEST, asked).first()
    return connection.execute(_ALIASED, asked | {"version": name.version}).first()


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
    row = require_live(locked_concept(connection, parent), parent)
    if row.id != concept:
        raise missing(parent)
    made = replace(version, number=row.next_number)
    connection.execute(_COUNT_UP, {"concept": concept, "number": row.next_number})
    reach("version.numbered")
    values = {key: getattr(made, key) for key in _STORED}
    connection.execute(_INSERT, {"concept": concept, "base_model": base, **values})
    return made
