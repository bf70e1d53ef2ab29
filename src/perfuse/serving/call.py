"""What a method knows of its call beside the request."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from perfuse.serving.identity import Caller
from perfuse.serving.threads import InPlace, Threads

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """What a method knows of the call beside the request.

    Attributes:
        caller: Who calls.
        request_id: Under which the call is logged and answered.
        deadline: When the caller stops waiting, by `time.monotonic()`; None for never.
        threads: Where synchronous code runs.
        authorization: The credential as the call carried it, to ask other services on the
            caller's behalf with it; it is in no representation.
        peer: The address that it came from, as gRPC writes it.
        through_custodian: Whether a service asks on the caller's behalf that vouched for itself as
            one which keeps what it reads to itself.
    """

    caller: Caller
    request_id: str
    deadline: float | None
    threads: Threads | InPlace
    authorization: str = field(default="", repr=False)
    peer: str = ""
    through_custodian: bool = False

    async def in_thread(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What synchronous code returns or raises, run on a thread; see `Threads.run`."""
        return await self.threads.run(function, *args, **kwargs)


def new_request_id() -> str:
    """A random UUID (version 4). It is no secret, so it needs none of the system's randomness."""
    bits = random.getrandbits(128) & ~(0xF << 76 | 0x3 << 62) | 0x4 << 76 | 0x2 << 62
    digits = f"{bits:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
