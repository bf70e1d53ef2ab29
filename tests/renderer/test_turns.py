"""Who waits behind a crowd waits for one of them."""

from __future__ import annotations

import asyncio

from perfuse_renderer.turns import Turns


def test_tenants_take_turns_however_many_of_one_wait() -> None:
    async def work() -> None:
        turns, order = Turns(), []

        async def one(tenant: str, number: int) -> None:
            async with turns.turn(tenant):
                order.append(f"{tenant}{number}")
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(one("flood", number))
            await asyncio.sleep(0)
            group.create_task(one("light", 0))
            group.create_task(one("light", 1))
        assert order == ["flood0", "flood1", "light0", "flood2", "light1"]

    asyncio.run(work())


def test_whoever_goes_away_loses_nobody_s_turn() -> None:
    async def work() -> None:
        turns, done = Turns(), []

        async def one(number: int) -> None:
            async with turns.turn("t"):
                await asyncio.sleep(0)
                done.append(number)

        async def fail() -> None:
            async with turns.turn("t"):
                raise RuntimeError

        for gone in range(6):
            done.clear()
            tasks = [asyncio.create_task(one(number)) for number in range(5)]
            broken = asyncio.create_task(fail())
            for _ in range(gone):
                await asyncio.sleep(0)
            # At every moment of its waiting, that in which its turn has just come among them.
            tasks[1].cancel()
            await asyncio.gather(*tasks, broken, return_exceptions=True)
            assert {0, 2, 3, 4} <= set(done)
            async with asyncio.timeout(5), turns.turn("u"):
                pass

    asyncio.run(work())
