"""The threads on which synchronous code runs, so that the event loop never waits for it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from perfuse.errors import ResourceExhausted

P = ParamSpec("P")
T = TypeVar("T")

RETRY_SECONDS = 1.0


class Threads:
    """A bounded number of threads with a bounded queue before them.

    Args:
        count: Threads.
        backlog: Pieces of work that may wait for a thread; the next one is refused.
    """

    def __init__(self, count: int, backlog: int = 1024) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="perfuse")
        self._most = count + backlog
        self._begun = 0

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns or raises, run on a thread in this context's variables.

        Cancelling gives up work that still waits. Work that has begun runs to its end, and what
        it returns is dropped: synchronous code cannot be interrupted.

        Raises:
            ResourceExhausted: too much work waits already; it carries `retry_after`.
        """
        if self._begun >= self._most:
            raise too_much_work(self._begun)
        work = partial(contextvars.copy_context().run, function, *args, **kwargs)
        future: Future[T] = self._pool.submit(work)
        self._begun += 1
        loop = asyncio.get_running_loop()
        waiter = asyncio.wrap_future(future, loop=loop)
        waiter.add_done_callback(self._ended)
        return await waiter

    def _ended(self, _: object) -> None:
        self._begun -= 1

    async def close(self) -> None:
        """Give up what waits, and wait for what runs."""
        await asyncio.to_thread(self._pool.shutdown, wait=True, cancel_futures=True)


class InPlace:
    """Stands in for `Threads` where every call has a thread already."""

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What the function returns or raises, run here and now."""
        return function(*args, **kwargs)

    async def close(self) -> None:
        """Nothing."""


def too_much_work(begun: int) -> ResourceExhausted:
    """The refusal of a call when so many are at work or waiting."""
    error = ResourceExhausted(
        f"{begun} calls are at work or waiting, which is the limit; wait, then call again"
    )
    error.retry_after = RETRY_SECONDS
    return error
