"""A container's first process, which the kernel spares every signal that it has no handler for."""

from __future__ import annotations

import os
import signal
from types import FrameType


def die_of_sigterm() -> None:
    """Let SIGTERM end this process as it would any other, until a server handles it itself.

    Without effect in other processes. In one whose number is 1, a SIGTERM that comes while base
    models are loading would be lost, and the pod killed at the end of its grace.
    """
    if os.getpid() == 1 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _die)


def _die(number: int, frame: FrameType | None) -> None:
    # Nothing is served yet, so there is nothing to finish.
    os._exit(128 + number)
