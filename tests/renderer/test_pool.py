"""Adapters come once, stay verified, and outlast a Registry that is away."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from perfuse.attach import BaseModel
from perfuse.client.registry import FoundVersion
from perfuse.errors import (
    ConsentExpired,
    ConsentRevoked,
    DataLoss,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from perfuse.names import VersionName
from perfuse_renderer.pool import (
    FRESH_SECONDS,
    STALE_LIKENESS_SECONDS,
    STALE_SECONDS,
    STALE_SHARED_SECONDS,
    AdapterPool,
)

from .shelf import TOKEN, TOM, Shelf


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def shelf(base: BaseModel) -> Shelf:
    return Shelf(base)


@pytest.fixture
def clock() -> Clock:
    return Clock()


Made = Callable[..., AdapterPool]


@pytest.fixture
def pool(shelf: Shelf, clock: Clock, tmp_path: Path) -> AdapterPool:
    return AdapterPool(shelf, tmp_path / "disk", clock=clock)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_an_adapter_comes_once_and_is_that_of_its_digest(pool: AdapterPool, shelf: Shelf) -> None:
    async def work() -> None:
        for _ in range(3):
            found = await pool.get("acme", TOM.version("prod"), TOKEN)
            assert found.version.name == TOM.version(1)
            assert found.adapter.digest == shelf.digests[0]
        assert (shelf.asked, shelf.downloads, pool.count) == (1, 1, 1)
        assert pool.size_bytes == len(shelf.files[0])

    run(work())


def test_many_who_ask_at_once_wait_for_one_download(pool: AdapterPool, shelf: Shelf) -> None:
    async def work() -> None:
        shelf.gate = asyncio.Event()
        asking = [asyncio.create_task(pool.get("acme", TOM.version(2), TOKEN)) for _ in range(20)]
        await asyncio.sleep(0.05)
        # Whoever asked first goes away; the others must not lose their adapter by it.
        asking[0].cancel()
        await asyncio.sleep(0)
        shelf.gate.set()
        found = await asyncio.gather(*asking[1:])
        assert {each.adapter.digest for each in found} == {shelf.digests[1]}
        assert shelf.downloads == 1

    run(work())


def test_an_alias_that_moves_is_followed_within_the_stated_time(
    pool: AdapterPool, shelf: Shelf, clock: Clock
) -> None:
    async def work() -> None:
        prod = TOM.version("prod")
        assert (await pool.get("acme", prod, TOKEN)).version.name == TOM.version(1)
        shelf.prod = 3
        assert (await pool.get("acme", prod, TOKEN)).version.name == TOM.version(1)
        clock.now += FRESH_SECONDS
        assert (await pool.get("acme", prod, TOKEN)).version.name == TOM.version(3)

    run(work())


def test_what_is_cached_renders_on_while_the_registry_is_away(
    pool: AdapterPool, shelf: Shelf, clock: Clock
) -> None:
    async def work() -> None:
        await pool.get("acme", TOM.version("prod"), TOKEN)
        shelf.away = True
        clock.now += STALE_SECONDS - 1
        assert (await pool.get("acme", TOM.version("prod"), TOKEN)).version.name.number == 1
        with pytest.raises(Unavailable):
            await pool.get("acme", TOM.version(2), TOKEN)
        clock.now += 2
        with pytest.raises(Unavailable):
            await pool.get("acme", TOM.version("prod"), TOKEN)

    run(work())


def test_one_tenant_s_answer_is_not_another_s(pool: AdapterPool, shelf: Shelf) -> None:
    async def work() -> None:
        await pool.get("acme", TOM.version(1), TOKEN)
        asked = shelf.asked
        shelf.away = True
        with pytest.raises(Unavailable):
            await pool.get("globex", TOM.version(1), "Bearer g")
        assert shelf.asked == asked + 1

    run(work())


def test_a_refusal_is_not_remembered(pool: AdapterPool, shelf: Shelf) -> None:
    async def work() -> None:
        for _ in range(2):
            with pytest.raises(NotFound):
                await pool.get("acme", TOM.version(9), TOKEN)
        assert shelf.asked == 2

    run(work())


GUEST = "Bearer g"
PROD = TOM.version("prod")


def test_a_right_withdrawn_is_gone_within_the_stated_time_though_bytes_are_kept(
    pool: AdapterPool, shelf: Shelf, clock: Clock
) -> None:
    async def work() -> None:
        await pool.get("globex", PROD, GUEST)
        shelf.revoked.add(GUEST)
        clock.now += FRESH_SECONDS - 0.1
        await pool.get("globex", PROD, GUEST)
        clock.now += 0.1
        for _ in range(2):
            with pytest.raises(NotFound):
                await pool.get("globex", PROD, GUEST)
        # It does not come back when the Registry goes away.
        shelf.away = True
        with pytest.raises(Unavailable):
            await pool.get("globex", PROD, GUEST)
        shelf.away = False
        # The owner's own is as it was, and its bytes came once.
        await pool.get("acme", PROD, TOKEN)
        assert shelf.downloads == 1

    run(work())


def test_the_time_begins_when_the_registry_was_asked(
    pool: AdapterPool, shelf: Shelf, clock: Clock
) -> None:
    """An answer that was long on its way may have been withdrawn meanwhile."""

    class Slow(Shelf):
        async def version(self, name: VersionName, authorization: str) -> FoundVersion:
            found = await super().version(name, authorization)
            clock.now += 3
            return found

    async def work(slow: Slow) -> None:
        pool = AdapterPool(slow, clock=clock)
        await pool.get("globex", PROD, GUEST)
        slow.revoked.add(GUEST)
        clock.now += FRESH_SECONDS - 3
        with pytest.raises(NotFound):
            await pool.get("globex", PROD, GUEST)

    run(work(Slow(shelf.base)))


def test_what_is_shared_renders_on_for_a_minute_while_the_registry_is_away(
    pool: AdapterPool, shelf: Shelf, clock: Clock
) -> None:
    async def work() -> None:
        await pool.get("globex", PROD, GUEST)
        await pool.get("acme", PROD, TOKEN)
        shelf.away = True
        clock.now += STALE_SHARED_SECONDS - 1
        assert (await pool.get("globex", PROD, GUEST)).version.name == TOM.version(1)
        clock.now += 1
        with pytest.raises(Unavailable):
            await pool.get("globex", PROD, GUEST)
        # One's own renders on for longer.
        await pool.get("acme", PROD, TOKEN)

    run(work())


def test_the_service_vouches_for_itself_for_others_concepts_alone(
    pool: AdapterPool, shelf: Shelf
) -> None:
    async def work() -> None:
        await pool.get("acme", TOM.version(1), TOKEN)
        await pool.get("globex", TOM.version(2), GUEST)
        assert shelf.shared == [False, True]

    run(work())


def test_one_caller_s_refusal_is_not_another_s(pool: AdapterPool, shelf: Shelf) -> None:
    """They ask for the same bytes at once, and only one of them may have them."""

    class Strict(Shelf):
        async def adapter(
            self, name: VersionName, authorization: str, *, shared: bool = False
        ) -> tuple[FoundVersion, bytes]:
            found = await super().adapter(name, authorization, shared=shared)
            if shared:
                raise PermissionDenied("for rendering alone")
            return found

    async def work(strict: Strict) -> None:
        pool = AdapterPool(strict)
        asked = [pool.get("globex", PROD, GUEST), pool.get("acme", PROD, TOKEN)]
        refused, given = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(refused, PermissionDenied)
        assert not isinstance(given, BaseException)
        assert given.version.name == TOM.version(1)

    run(work(Strict(shelf.base)))


def test_a_new_process_finds_its_adapters_on_disk(
    shelf: Shelf, clock: Clock, tmp_path: Path, pool: AdapterPool
) -> None:
    async def work() -> None:
        await pool.get("acme", TOM.version(1), TOKEN)
        await pool.written()
        again = AdapterPool(shelf, tmp_path / "disk", clock=clock)
        assert (await again.get("acme", TOM.version(1), TOKEN)).adapter.digest == shelf.digests[0]
        assert shelf.downloads == 1
        (file,) = (tmp_path / "disk").iterdir()
        file.write_bytes(b"x" + file.read_bytes()[1:])
        third = AdapterPool(shelf, tmp_path / "disk", clock=clock)
        assert (await third.get("acme", TOM.version(1), TOKEN)).adapter.digest == shelf.digests[0]
        assert shelf.downloads == 2

    run(work())


def test_memory_and_disk_are_bounded(shelf: Shelf, clock: Clock, tmp_path: Path) -> None:
    async def work() -> None:
        room = 2 * len(shelf.files[0]) + 10
        pool = AdapterPool(
            shelf, tmp_path / "disk", max_bytes=room, max_disk_bytes=room, clock=clock
        )
        for number in (1, 2, 3, 4):
            await pool.get("acme", TOM.version(number), TOKEN)
            await pool.written()
        assert pool.count == 2
        assert pool.size_bytes <= room
        assert len(list((tmp_path / "disk").iterdir())) == 2

    run(work())


def test_the_longest_unused_leave_the_disk_whoever_put_them_there(
    shelf: Shelf, clock: Clock, tmp_path: Path
) -> None:
    async def work() -> None:
        home, room = tmp_path / "disk", 3 * len(shelf.files[0]) + 10

        def pool() -> AdapterPool:
            return AdapterPool(shelf, home, max_bytes=1, max_disk_bytes=room, clock=clock)

        first = pool()
        for number in (1, 2, 3):
            await first.get("acme", TOM.version(number), TOKEN)
            await first.written()
            file = home / f"{shelf.digests[number - 1].removeprefix('sha256:')}.safetensors"
            os.utime(file, (number, number))
        second = pool()
        # Used again, and so no longer the oldest.
        await second.get("acme", TOM.version(1), TOKEN)
        await second.get("acme", TOM.version(4), TOKEN)
        await second.written()
        left = {f"sha256:{file.stem}" for file in home.iterdir()}
        assert left == {shelf.digests[index] for index in (0, 2, 3)}

    run(work())


def test_a_disk_that_takes_nothing_holds_nobody_up(
    shelf: Shelf, clock: Clock, tmp_path: Path
) -> None:
    async def work() -> None:
        pool = AdapterPool(shelf, tmp_path / "disk", clock=clock)
        (tmp_path / "disk").rmdir()
        (tmp_path / "disk").write_text("a file where the folder was")
        assert (await pool.get("acme", TOM.version(1), TOKEN)).adapter.digest == shelf.digests[0]
        await pool.written()
        assert pool.count == 1

    run(work())


def test_bytes_of_another_digest_are_never_used(shelf: Shelf, clock: Clock) -> None:
    class Liar(Shelf):
        async def adapter(
            self, name: VersionName, authorization: str, *, shared: bool = False
        ) -> tuple[FoundVersion, bytes]:
            found = self.found(name)
            return found, self.files[-1]

    async def work(liar: Liar) -> None:
        with pytest.raises(DataLoss):
            await AdapterPool(liar, clock=clock).get("acme", TOM.version(1), TOKEN)

    run(work(Liar(shelf.base)))


class TestLikeness:
    """Nothing of a living person's is rendered without consent, whatever is cached."""

    async def asked(self, pool: AdapterPool) -> str:
        try:
            await pool.get("acme", TOM.version(1), TOKEN)
        except (ConsentExpired, ConsentRevoked, Unavailable) as refusal:
            return refusal.reason
        return "given"

    def test_when_the_consent_is_over_though_all_is_cached(
        self, shelf: Shelf, clock: Clock
    ) -> None:
        moment = [datetime(2030, 1, 1, tzinfo=UTC)]
        shelf.likeness, shelf.consent_until = True, moment[0] + timedelta(seconds=2)
        pool = AdapterPool(shelf, clock=clock, wall_clock=lambda: moment[0])

        async def work() -> list[str]:
            told = [await self.asked(pool)]
            moment[0] += timedelta(seconds=2)
            told.append(await self.asked(pool))  # Of what is fresh.
            shelf.away = True
            clock.now += FRESH_SECONDS
            told.append(await self.asked(pool))  # Of what is stale.
            return told

        assert run(work()) == ["given", "CONSENT_EXPIRED", "CONSENT_EXPIRED"]
        assert shelf.asked == 2

    def test_when_it_was_revoked(self, pool: AdapterPool, shelf: Shelf, clock: Clock) -> None:
        shelf.likeness, shelf.consent_until = True, datetime.max.replace(tzinfo=UTC)

        async def work() -> list[str]:
            told = [await self.asked(pool)]
            shelf.consent_until = None
            clock.now += FRESH_SECONDS
            told.append(await self.asked(pool))
            return told

        assert run(work()) == ["given", "CONSENT_REVOKED"]

    def test_when_the_registry_is_away_for_longer_than_is_said(
        self, pool: AdapterPool, shelf: Shelf, clock: Clock
    ) -> None:
        shelf.likeness, shelf.consent_until = True, datetime.max.replace(tzinfo=UTC)

        async def work() -> list[str]:
            told = [await self.asked(pool)]
            shelf.away = True
            for seconds in (STALE_LIKENESS_SECONDS - 1, 1):
                clock.now += seconds
                told.append(await self.asked(pool))
            return told

        assert run(work()) == ["given", "given", "UNAVAILABLE"]
