"""Adapters by digest: in memory, on disk, in the Registry, in that order.

What a name stands for is asked of the Registry with the caller's own credential, and remembered
for `FRESH_SECONDS` from when it was asked, for that caller's tenant alone. If the Registry does not
answer, what was remembered goes on being used for `STALE_SECONDS`: what is cached keeps rendering.
Numbered versions never change, so for them staleness means nothing but a right withdrawn; what is
another tenant's and shared with the caller is used no longer than `STALE_SHARED_SECONDS` without an
answer. What the Registry has refused is forgotten at once.

The likeness of a living person is rendered while the person's consent lasts, by this machine's
clock, and no longer than `STALE_LIKENESS_SECONDS` after the Registry's last word about it.

Bytes are kept by digest, for everyone: a digest is only ever reached through a name that the
Registry has answered for the caller. They are fetched with the caller's own credential, and with
this service's beside it where they are another tenant's (decision 18).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from perfuse.adapter import Adapter
from perfuse.adapter.header import digest as digest_of
from perfuse.client.erased import Erased
from perfuse.client.registry import FoundVersion
from perfuse.errors import (
    ConceptErased,
    ConsentExpired,
    DataLoss,
    DeadlineExceeded,
    PerfuseError,
    Unavailable,
)
from perfuse.names import VersionName
from perfuse_renderer.adapter_disk import AdapterDisk

FRESH_SECONDS = 5.0
STALE_SECONDS = 3600.0
STALE_SHARED_SECONDS = 60.0
STALE_LIKENESS_SECONDS = 60.0

T = TypeVar("T")


class Source(Protocol):
    """Where versions come from: `perfuse.client.registry.RegistryClient`."""

    async def version(self, name: VersionName, authorization: str) -> FoundVersion:
        """What a name stands for."""
        ...

    async def adapter(
        self, name: VersionName, authorization: str, *, shared: bool = False
    ) -> tuple[FoundVersion, bytes]:
        """A version with its bytes; `shared` if it is another tenant's than the caller's."""
        ...


@dataclass(frozen=True, slots=True)
class PooledAdapter:
    """An adapter that is ready to be planned with.

    Attributes:
        version: by number, with its digest.
        adapter: its tensors, on the CPU; never changed.
    """

    version: FoundVersion
    adapter: Adapter


class AdapterPool:
    """Keeps adapters at hand.

    Args:
        source: where they come from.
        directory: where they are kept on disk; None for nowhere.
        max_bytes: of adapters in memory.
        max_disk_bytes: of adapters on disk.
        clock: seconds, for tests.
        wall_clock: the moment, for tests.

    Attributes:
        disk: what keeps adapters on disk; None for nothing.
        hits, misses: adapters looked for in memory so far, found and not.
        stale: names so far that were used as last known, since the Registry did not answer.
        on_forget: told digests of adapters of which nothing may be kept any more.
    """

    def __init__(
        self,
        source: Source,
        directory: Path | None = None,
        *,
        max_bytes: int = 256 << 20,
        max_disk_bytes: int = 4 << 30,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._source = source
        self.disk = AdapterDisk(directory, max_disk_bytes) if directory else None
        self.hits = self.misses = self.stale = 0
        self.on_forget: list[Callable[[frozenset[str]], object]] = []
        self._max_bytes = max_bytes
        self._clock = clock
        self._wall_clock = wall_clock
        self._names: OrderedDict[tuple[str, VersionName], tuple[float, FoundVersion]]
        self._names = OrderedDict()
        self._adapters: OrderedDict[str, tuple[Adapter, int]] = OrderedDict()
        self._bytes = 0
        self._flights: dict[object, asyncio.Task[Any]] = {}
        self._writing: set[asyncio.Future[None]] = set()

    @property
    def count(self) -> int:
        """Adapters in memory."""
        return len(self._adapters)

    @property
    def size_bytes(self) -> int:
        """Their files' size."""
        return self._bytes

    async def get(self, tenant: str, name: VersionName, authorization: str) -> PooledAdapter:
        """The adapter that a name stands for.

        Args:
            tenant: the caller's.
            name: by number, alias or `latest`.
            authorization: the caller's credential, with which the Registry is asked.

        Raises:
            NotFound: the Registry knows no such version, or the caller may not see it.
            Unavailable: the Registry does not answer, and nothing that would do is at hand.
            ConsentMissing, ConsentExpired, ConsentRevoked: a likeness that nobody may render.
            DataLoss, AdapterRefused: what came is not an adapter of its digest.
        """
        version = await self._resolve(tenant, name, authorization)
        if version.likeness:
            await self._require_consent(tenant, version, authorization)
        adapter = self._in_memory(version.digest)
        if adapter is None:
            # Another caller may have another right to the same bytes: each asks with its own.
            adapter = await self._once(
                (version.digest, authorization), lambda: self._load(tenant, version, authorization)
            )
        return PooledAdapter(version, adapter)

    async def _resolve(self, tenant: str, name: VersionName, authorization: str) -> FoundVersion:
        key = (tenant, name)
        known = self._names.get(key)
        asked = self._clock()
        if known is not None and asked - known[0] < FRESH_SECONDS:
            return known[1]
        try:
            # Another caller of the tenant may have another right: each asks with its own.
            found = await self._once(
                (key, authorization), lambda: self._source.version(name, authorization)
            )
        except Unavailable:
            stale = STALE_SECONDS if name.tenant == tenant else STALE_SHARED_SECONDS
            if known is not None and known[1].likeness:
                stale = min(stale, STALE_LIKENESS_SECONDS)
            if known is not None and self._clock() - known[0] < stale:
                self.stale += 1
                return known[1]
            raise
        except PerfuseError as refusal:
            if not isinstance(refusal, DeadlineExceeded):
                # A right withdrawn must not come back when the Registry goes away.
                self._names.pop(key, None)
            if isinstance(refusal, ConceptErased):
                held = frozenset() if known is None else frozenset({known[1].digest})
                await self.forget(Erased(frozenset({name.parent}), held))
            raise
        self._names[key] = (asked, found)
        self._names.move_to_end(key)
        while len(self._names) > 100_000:
            self._names.popitem(last=False)
        return found

    async def _require_consent(
        self, tenant: str, version: FoundVersion, authorization: str
    ) -> None:
        if version.consent_until is None:
            # The Registry gives nothing out without it, and says what exactly is missing.
            await self._source.adapter(
                version.name, authorization, shared=version.name.tenant != tenant
            )
        elif version.consent_until <= self._wall_clock():
            refusal = ConsentExpired(
                f"the consent to rendering {version.name.parent} expired at "
                f"{version.consent_until:%Y-%m-%d %H:%M} UTC. Record the person's consent anew, or "
                "do without"
            )
            refusal.resource = str(version.name.parent)
            raise refusal

    def _in_memory(self, digest: str) -> Adapter | None:
        kept = self._adapters.get(digest)
        if kept is None:
            self.misses += 1
            return None
        self.hits += 1
        self._adapters.move_to_end(digest)
        return kept[0]

    async def _load(self, tenant: str, version: FoundVersion, authorization: str) -> Adapter:
        data = None
        if self.disk is not None and version.digest in self.disk:
            data = await asyncio.to_thread(self.disk.read, version.digest)
        came = data is None
        if data is None:
            _, data = await self._source.adapter(
                version.name, authorization, shared=version.name.tenant != tenant
            )
            if digest_of(data) != version.digest:
                raise DataLoss(
                    f"the bytes that came for {version.name} are not those of {version.digest}. "
                    "Ask the Registry's operator to verify"
                )
        adapter = await asyncio.to_thread(Adapter.from_bytes, data)
        self._keep(version.digest, adapter, len(data))
        if came and self.disk is not None:
            # Nobody waits for the disk: it is for the processes that come after this one.
            loop = asyncio.get_running_loop()
            writing = loop.run_in_executor(None, self.disk.write, version.digest, data)
            self._writing.add(writing)
            writing.add_done_callback(self._writing.discard)
        return adapter

    async def forget(self, erased: Erased) -> None:
        """Keep nothing any more of concepts that were erased, for whomever it was kept.

        Raises:
            OSError: the disk keeps a file.
        """
        named = [
            key for key, (_, found) in self._names.items() if found.name.parent in erased.concepts
        ]
        digests = erased.digests | {self._names.pop(key)[1].digest for key in named}
        for digest in digests:
            if (kept := self._adapters.pop(digest, None)) is not None:
                self._bytes -= kept[1]
        for listener in self.on_forget:
            listener(digests)
        if self.disk is not None and digests:
            await self.written()
            await asyncio.to_thread(self.disk.drop, digests)

    async def written(self) -> None:
        """Wait until everything that came so far is on disk, or was refused by it."""
        await asyncio.gather(*self._writing)

    def _keep(self, digest: str, adapter: Adapter, size: int) -> None:
        self._adapters[digest] = (adapter, size)
        self._bytes += size
        while self._bytes > self._max_bytes and len(self._adapters) > 1:
            _, (_, dropped) = self._adapters.popitem(last=False)
            self._bytes -= dropped

    async def _once(self, key: object, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of `work`, done once for all who ask meanwhile, whoever of them goes away."""
        flight: asyncio.Task[T] | None = self._flights.get(key)
        if flight is None:
            flight = asyncio.ensure_future(work())
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(flight)

    def _landed(self, key: object, flight: asyncio.Task[Any]) -> None:
        del self._flights[key]
        if not flight.cancelled():
            # All who asked may have gone away; then nobody else looks at what went wrong.
            flight.exception()
