"""Rules for base models: what versions stand on, the same for all tenants."""

from __future__ import annotations

from dataclasses import asdict, replace
from uuid import uuid4

from sqlalchemy import Connection, delete, insert, or_, select

from perfuse.errors import AlreadyExists, BaseModelInUse
from perfuse.names import BaseModelName
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.filters import Field, Kind
from perfuse.storage.listing import Lists, Page, Query
from perfuse.storage.moments import now
from perfuse.storage.paging import Listing
from perfuse.storage.requests import Mutation
from perfuse_registry.catalog.ownership import missing, require_etag
from perfuse_registry.catalog.requests import once
from perfuse_registry.catalog.resources import BaseModel
from perfuse_registry.tables import BASE_MODELS, VERSIONS

FILTERS = {
    "base_model_id": Field(BASE_MODELS.c.base_model_id, Kind.TEXT),
    "fingerprint": Field(BASE_MODELS.c.fingerprint, Kind.TEXT),
    "architecture": Field(BASE_MODELS.c.architecture, Kind.TEXT),
    "create_time": Field(BASE_MODELS.c.create_time, Kind.TIMESTAMP),
    "labels": Field(BASE_MODELS.c.labels, Kind.LABELS),
}


class BaseModels:
    """The base models of this installation."""

    def __init__(self, database: Database, lists: Lists) -> None:
        self._database = database
        self._lists = lists

    def create(self, mutation: Mutation, described: BaseModel) -> BaseModel:
        """Make a base model known; uid, revision and times are given here.

        Raises:
            AlreadyExists: its id or its fingerprint.
        """
        moment = now()
        base = replace(
            described, uid=str(uuid4()), revision=1, create_time=moment, update_time=moment
        )

        def work(connection: Connection) -> BaseModel:
            taken = connection.execute(
                select(BASE_MODELS).where(
                    or_(
                        BASE_MODELS.c.base_model_id == base.base_model_id,
                        BASE_MODELS.c.fingerprint == base.fingerprint,
                    )
                )
            ).first()
            if taken is not None:
                refusal = AlreadyExists(
                    f"baseModels/{taken.base_model_id} exists already, with fingerprint "
                    f"{taken.fingerprint}. Use it, or choose another id for other weights"
                )
                refusal.resource = f"baseModels/{taken.base_model_id}"
                raise refusal
            connection.execute(insert(BASE_MODELS).values(**asdict(base)))
            return base

        content = [value for key, value in asdict(described).items() if not key.endswith("_time")]
        return once(self._database, mutation, "CreateBaseModel", content, BaseModel, work)

    def get(self, name: BaseModelName) -> BaseModel:
        """One base model.

        Raises:
            NotFound: there is none of this name.
        """
        row = self._database.read(lambda connection: _row(connection, name))
        if row is None:
            raise missing(name)
        return _base_model_of(row)

    def list(self, tenant: str, query: Query) -> Page[BaseModel]:
        """A page of base models, by name.

        Raises:
            InvalidArgument: filter, token or size.
        """
        return self._lists.page(
            select(BASE_MODELS),
            query,
            Listing(tenant, "ListBaseModels", "", query.filter),
            FILTERS,
            {"base_model_id": BASE_MODELS.c.base_model_id},
            "base_model_id",
            BASE_MODELS.c.base_model_id,
            _base_model_of,
        )

    def delete(self, mutation: Mutation, name: BaseModelName, etag: str) -> None:
        """Forget a base model that no version stands on.

        Raises:
            NotFound, EtagMismatch: as their names say.
            BaseModelInUse: versions stand on it.
        """

        def work(connection: Connection) -> None:
            row = _row(connection, name)
            if row is None:
                raise missing(name)
            require_etag(etag, _base_model_of(row).etag, name)
            standing = select(VERSIONS.c.id).where(VERSIONS.c.base_model == row.id).limit(1)
            if connection.execute(standing).first() is not None:
                raise BaseModelInUse(
                    f"versions stand on {name}. Delete them first, deleted concepts' included"
                )
            connection.execute(delete(BASE_MODELS).where(BASE_MODELS.c.id == row.id))

        once(self._database, mutation, "DeleteBaseModel", [str(name), etag], type(None), work)


_COLUMNS = tuple(BaseModel.__dataclass_fields__)


def _base_model_of(row: AnyRow) -> BaseModel:
    values = {key: getattr(row, key) for key in _COLUMNS}
    for pairs in ("layers", "encoders"):
        values[pairs] = tuple((name, width) for name, width in values[pairs])
    return BaseModel(**values)


def _row(connection: Connection, name: BaseModelName) -> AnyRow | None:
    return connection.execute(
        select(BASE_MODELS).where(BASE_MODELS.c.base_model_id == name.base_model)
    ).first()
