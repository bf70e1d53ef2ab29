"""Readiness: whether the services can be asked now, told to health again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from perfuse.errors import PerfuseError
from perfuse.serving.health import Health

Ready = Callable[[], Awaitable[None]]
_TIMEOUT = 10.0


class Readiness:
    """What is asked, and how often.

    Args:
        ready: Raises while the services cannot be asked; None: they always can.
        seconds: Between two askings.
    """

    def __init__(self, ready: Ready | None, seconds: float) -> None:
        self._ready, self._seconds = ready, seconds
        self._log = structlog.get_logger("perfuse.serving")

    async def tell(self, health: Health) -> None:
        """Ask for ever; the log tells of changes and not of every asking."""
        known: str | None = ""
        while True:
            problem = await self.problem()
            health.set_ready(problem is None)
            if problem != known:
                if problem is None:
                    self._log.info("ready")
                else:
                    self._log.warning("not_ready", problem=problem)
                known = problem
            await asyncio.sleep(self._seconds)

    async def problem(self) -> str | None:
        """Why the services cannot be asked; None if they can."""
        if self._ready is None:
            return None
        try:
            async with asyncio.timeout(_TIMEOUT):
                await self._ready()
        except TimeoutError:
            return f"no answer within {_TIMEOUT:g} seconds"
        except PerfuseError as error:
            return str(error)
        except Exception as error:
            # Its text may hold what a log should not, such as a database's address.
            return type(error).__name__
        return None
