"""Aliases of concepts, as callers use them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from perfuse.client import reading_registry as reading
from perfuse.client._async.calls import Calls
from perfuse.client.resources import Alias, AliasMove
from perfuse.client.writing import request_id_or_new
from perfuse.errors import AlreadyExists, NotFound
from perfuse.v1 import registry_pb2 as wire


class Aliases:
    """Aliases of the Registry: names such as `prod` that point at a version and move."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def create(
        self, concept: str, alias: str, version: str, *, request_id: str = ""
    ) -> Alias:
        """Point a new alias at a version.

        Args:
            concept: id or name.
            alias: its id to be.
            version: `tom@7`, or the whole name.

        Raises:
            AlreadyExists: there is such an alias; `move` it.
        """
        request = wire.CreateAliasRequest(
            parent=str(self._calls.names.concept(concept)),
            alias_id=alias,
            alias=wire.Alias(version=str(self._calls.names.version(version))),
            request_id=request_id_or_new(request_id),
        )
        return reading.alias(await self._calls.call("registry", "CreateAlias", request))

    async def get(self, concept: str, alias: str) -> Alias:
        """An alias.

        Raises:
            NotFound: there is none that the caller may see.
        """
        request = wire.GetAliasRequest(name=str(self._calls.names.alias(concept, alias)))
        return reading.alias(await self._calls.call("registry", "GetAlias", request))

    async def list(self, concept: str, *, page_size: int = 0) -> AsyncIterator[Alias]:
        """A concept's aliases by name."""
        parent = str(self._calls.names.concept(concept))
        request = wire.ListAliasesRequest(parent=parent, page_size=page_size)
        async for each in self._calls.pages("registry", "ListAliases", request, "aliases"):
            yield reading.alias(each)

    async def move(self, alias: Alias, version: str) -> Alias:
        """Move an alias, as it was read, to another version.

        Raises:
            EtagMismatch: someone moved it meanwhile; read it again and decide anew.
        """
        request = wire.UpdateAliasRequest(
            alias=wire.Alias(
                name=alias.name,
                version=str(self._calls.names.version(version)),
                etag=alias.etag,
            ),
            request_id=request_id_or_new(""),
        )
        return reading.alias(await self._calls.call("registry", "UpdateAlias", request))

    async def point(self, concept: str, alias: str, version: str) -> Alias:
        """Have an alias point at a version, whether or not it is there.

        Raises:
            EtagMismatch: someone moved it at the same time.
        """
        try:
            found = await self.get(concept, alias)
        except NotFound:
            try:
                return await self.create(concept, alias, version)
            except AlreadyExists:
                found = await self.get(concept, alias)
        return await self.move(found, version)

    async def delete(self, concept: str, alias: str, *, etag: str = "") -> None:
        """Remove an alias; its history stays."""
        request = wire.DeleteAliasRequest(
            name=str(self._calls.names.alias(concept, alias)),
            etag=etag,
            request_id=request_id_or_new(""),
        )
        await self._calls.call("registry", "DeleteAlias", request)

    async def moves(
        self, concept: str, alias: str, *, page_size: int = 0
    ) -> AsyncIterator[AliasMove]:
        """Everything that ever happened to an alias, newest first; also to a deleted one."""
        name = str(self._calls.names.alias(concept, alias))
        request = wire.ListAliasMovesRequest(parent=name, page_size=page_size)
        async for each in self._calls.pages("registry", "ListAliasMoves", request, "moves"):
            yield reading.alias_move(each)
