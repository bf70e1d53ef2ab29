"""Rules for aliases: names that move between a concept's versions, and never to nothing."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Select, delete, insert, select, update

from perfuse.errors import AlreadyExists, EtagMismatch, InvalidArgument
from perfuse.names import LATEST, AliasName, ConceptName, VersionName
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.listing import Lists, Page, Query
from perfuse.storage.moments import now
from perfuse.storage.paging import Listing
from perfuse.storage.requests import Mutation
from perfuse_registry.catalog.access import access_to
from perfuse_registry.catalog.ownership import (
    locked_concept,
    missing,
    require_etag,
    require_live,
    require_own,
    require_unerased,
)
from perfuse_registry.catalog.requests import once
from perfuse_registry.catalog.resources import Alias, AliasMove
from perfuse_registry.failpoints import reach
from perfuse_registry.tables import ALIAS_MOVES, ALIASES, CONCEPTS, VERSIONS


class Aliases:
    """Aliases of every concept, and where they ever pointed."""

    def __init__(self, database: Database, lists: Lists) -> None:
        self._database = database
        self._lists = lists

    def create(self, mutation: Mutation, name: AliasName, version: VersionName) -> Alias:
        """A new alias that points at `version`.

        Raises:
            NotFound, ConceptDeleted: the concept or the version.
            AlreadyExists: the alias.
            InvalidArgument: `latest`, or a version of another concept.
        """
        require_own(mutation.tenant, name.parent)

        def work(connection: Connection) -> Alias:
            concept = require_live(locked_concept(connection, name.parent), name.parent)
            if name.alias == LATEST:
                raise InvalidArgument.in_field(
                    "alias_id", "'latest' always means the highest number; choose another name"
                )
            number = _number(name, version)
            if _row(connection, name) is not None:
                refusal = AlreadyExists(f"{name} exists already. Move it with UpdateAlias")
                refusal.resource = str(name)
                raise refusal
            _require_version(connection, concept.id, name.parent.version(number))
            moment = now()
            connection.execute(
                insert(ALIASES).values(
                    concept=concept.id,
                    alias_id=name.alias,
                    number=number,
                    uid=str(uuid4()),
                    revision=1,
                    create_time=moment,
                    update_time=moment,
                )
            )
            _record(connection, mutation, concept.id, name.alias, None, number)
            reach("alias_create.uncommitted")
            return _found(connection, name)

        made: Alias = self._once(mutation, "CreateAlias", [str(name), str(version)], work)
        reach("alias_create.committed")
        return made

    def get(self, tenant: str, name: AliasName) -> Alias:
        """One alias; the tenant's own, or of a concept granted to it.

        Raises:
            NotFound, ConceptDeleted: as their names say.
        """

        def work(connection: Connection) -> Alias:
            access_to(connection, tenant, name)
            return _found(connection, name)

        return self._database.read(work)

    def list(self, tenant: str, parent: ConceptName, query: Query) -> Page[Alias]:
        """A page of a concept's aliases, by name; of one granted to be read too.

        Raises:
            NotFound, ConceptDeleted: as their names say.
            InvalidArgument: token or size.
        """

        def work(connection: Connection) -> AnyRow:
            access_to(connection, tenant, parent, whole=True)
            return _concept(connection, parent)

        concept = self._database.read(work)
        return self._lists.page(
            _SELECT.where(ALIASES.c.concept == concept.id),
            query,
            Listing(tenant, "ListAliases", str(parent)),
            {},
            {"alias_id": ALIASES.c.alias_id},
            "alias_id",
            ALIASES.c.alias_id,
            _alias_of,
        )

    def move(self, mutation: Mutation, name: AliasName, version: VersionName, etag: str) -> Alias:
        """Point the alias at another version, if it is still what was read.

        Raises:
            NotFound, ConceptDeleted: the alias, its concept or the version.
            InvalidArgument: no etag, or a version of another concept.
            EtagMismatch: another move came first.
        """
        require_own(mutation.tenant, name.parent)

        def work(connection: Connection) -> Alias:
            require_live(locked_concept(connection, name.parent), name.parent)
            row = _row(connection, name)
            if row is None:
                raise missing(name)
            number = _number(name, version)
            if not etag:
                raise InvalidArgument.in_field(
                    "alias.etag", "it is empty; read the alias first and send the etag that it has"
                )
            require_etag(etag, _alias_of(row).etag, name)
            _require_version(connection, row.concept, name.parent.version(number))
            changed = connection.execute(
                update(ALIASES)
                # The concept's lock makes this hold; the database would refuse all the same.
                .where(ALIASES.c.id == row.id, ALIASES.c.revision == row.revision)
                .values(number=number, revision=row.revision + 1, update_time=now())
            )
            if changed.rowcount != 1:
                raise EtagMismatch(f"{name} moved meanwhile. Read it again and decide anew")
            reach("alias_move.changed")
            _record(connection, mutation, row.concept, name.alias, row.number, number)
            reach("alias_move.uncommitted")
            return _found(connection, name)

        moved: Alias = self._once(mutation, "UpdateAlias", [str(name), str(version), etag], work)
        reach("alias_move.committed")
        return moved

    def delete(self, mutation: Mutation, name: AliasName, etag: str) -> None:
        """Remove an alias; its history stays.

        Raises:
            NotFound, ConceptDeleted, EtagMismatch: as their names say.
        """
        require_own(mutation.tenant, name.parent)

        def work(connection: Connection) -> None:
            require_live(locked_concept(connection, name.parent), name.parent)
            row = _row(connection, name)
            if row is None:
                raise missing(name)
            require_etag(etag, _alias_of(row).etag, name)
            connection.execute(delete(ALIASES).where(ALIASES.c.id == row.id))
            _record(connection, mutation, row.concept, name.alias, row.number, None)
            reach("alias_delete.uncommitted")

        self._once(mutation, "DeleteAlias", [str(name), etag], work, type(None))
        reach("alias_delete.committed")

    def moves(self, tenant: str, name: AliasName, query: Query) -> Page[AliasMove]:
        """A page of an alias's history, newest first, also after its deletion.

        Raises:
            NotFound, ConceptDeleted: the concept.
            NotFound: there never was such an alias.
            InvalidArgument: token or size.
        """
        require_own(tenant, name.parent)
        concept = self._database.read(lambda connection: _concept(connection, name.parent))
        chosen = select(ALIAS_MOVES).where(
            ALIAS_MOVES.c.concept == concept.id,
            ALIAS_MOVES.c.alias_id == name.alias,
        )
        page = self._lists.page(
            chosen,
            query,
            Listing(tenant, "ListAliasMoves", str(name)),
            {},
            {"id": ALIAS_MOVES.c.id},
            "id desc",
            ALIAS_MOVES.c.id,
            lambda row: AliasMove(
                from_number=row.from_number,
                to_number=row.to_number,
                mover=row.mover,
                move_time=row.move_time,
            ),
        )
        if not page.items:  # Its creation is a move too.
            raise missing(name)
        return page

    def _once(
        self, mutation: Mutation, method: str, content: object, work: Any, kind: Any = Alias
    ) -> Any:
        return once(self._database, mutation, method, content, kind, work)


_SELECT: Select[Any] = select(
    ALIASES, CONCEPTS.c.tenant, CONCEPTS.c.concept_id, CONCEPTS.c.delete_time
).join(CONCEPTS, CONCEPTS.c.id == ALIASES.c.concept)
_COLUMNS = tuple(Alias.__dataclass_fields__)


def _alias_of(row: AnyRow) -> Alias:
    return Alias(**{key: getattr(row, key) for key in _COLUMNS})


def _row(connection: Connection, name: AliasName) -> AnyRow | None:
    return connection.execute(
        _SELECT.where(
            CONCEPTS.c.tenant == name.tenant,
            CONCEPTS.c.concept_id == name.concept,
            ALIASES.c.alias_id == name.alias,
        )
    ).first()


def _found(connection: Connection, name: AliasName) -> Alias:
    row = _row(connection, name)
    if row is None:
        require_unerased(connection, name.parent)
        raise missing(name)
    require_live(row, name.parent)
    return _alias_of(row)


def _concept(connection: Connection, name: ConceptName) -> AnyRow:
    row = connection.execute(
        select(CONCEPTS.c.id, CONCEPTS.c.delete_time, CONCEPTS.c.erase_time).where(
            CONCEPTS.c.tenant == name.tenant, CONCEPTS.c.concept_id == name.concept
        )
    ).first()
    return require_live(row, name)


def _number(name: AliasName, version: VersionName) -> int:
    if version.parent != name.parent or version.number is None:
        raise InvalidArgument.in_field(
            "alias.version",
            f"{version} is not a numbered version of {name.parent}; an alias points at one of "
            "its own concept's versions, by number",
        )
    return version.number


def _require_version(connection: Connection, concept: int, version: VersionName) -> None:
    found = connection.execute(
        select(VERSIONS.c.id).where(
            VERSIONS.c.concept == concept, VERSIONS.c.number == version.number
        )
    ).first()
    if found is None:
        raise missing(version)


def _record(
    connection: Connection,
    mutation: Mutation,
    concept: int,
    alias_id: str,
    before: int | None,
    after: int | None,
) -> None:
    connection.execute(
        insert(ALIAS_MOVES).values(
            concept=concept,
            alias_id=alias_id,
            from_number=before,
            to_number=after,
            mover=mutation.mover,
            move_time=now(),
        )
    )
