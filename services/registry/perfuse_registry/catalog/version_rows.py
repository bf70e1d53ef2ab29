"""Versions as rows: read with their concept and base model, inserted under the next number."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Select, insert, select, update

from perfuse.names import LATEST, ConceptName, VersionName
from perfuse_registry.catalog.ownership import locked_concept, missing, require_live
from perfuse_registry.catalog.resources import Version
from perfuse_registry.database import AnyRow
from perfuse_registry.failpoints import reach
from perfuse_registry.tables import ALIASES, BASE_MODELS, CONCEPTS, VERSIONS

WITH_PARENTS: Select[Any] = (
    select(
        VERSIONS,
        CONCEPTS.c.concept_id,
        CONCEPTS.c.delete_time,
        BASE_MODELS.c.base_model_id,
        BASE_MODELS.c.fingerprint,
    )
    .join(CONCEPTS, CONCEPTS.c.id == VERSIONS.c.concept)
    .join(BASE_MODELS, BASE_MODELS.c.id == VERSIONS.c.base_model)
)


def version_of(row: AnyRow) -> Version:
    """The version in a row of `WITH_PARENTS`."""
    return Version(**{key: getattr(row, key) for key in _COLUMNS})


_COLUMNS = tuple(Version.__dataclass_fields__)
_STORED = tuple(key for key in _COLUMNS if key in VERSIONS.c)


def named(name: VersionName) -> Select[Any]:
    """The query for one version, by number, alias or `latest`."""
    chosen = WITH_PARENTS.where(
        CONCEPTS.c.tenant == name.tenant, CONCEPTS.c.concept_id == name.concept
    )
    if name.number is not None:
        return chosen.where(VERSIONS.c.number == name.number)
    if name.version == LATEST:
        return chosen.where(VERSIONS.c.number == CONCEPTS.c.latest_number)
    return chosen.join(
        ALIASES,
        (ALIASES.c.concept == VERSIONS.c.concept) & (ALIASES.c.number == VERSIONS.c.number),
    ).where(ALIASES.c.alias_id == name.version)


def found(row: AnyRow | None, name: VersionName) -> Version:
    """The version in the row that `named` gave.

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
    connection.execute(
        update(CONCEPTS)
        .where(CONCEPTS.c.id == concept)
        .values(next_number=row.next_number + 1, latest_number=row.next_number)
    )
    reach("version.numbered")
    values = {key: getattr(made, key) for key in _STORED}
    connection.execute(insert(VERSIONS).values(concept=concept, base_model=base, **values))
    return made
