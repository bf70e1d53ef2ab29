"""Ports for servers that a test starts as processes.

Not those that the kernel gives to outgoing connections: one of these could have a port by the time
that the server binds it.
"""

from __future__ import annotations

import random
import socket

_LOWEST, _HIGHEST = 15_000, 32_000
_lot = random.SystemRandom()


def free_ports(count: int = 1) -> int:
    """The first of so many ports in a row that nobody has at this moment."""
    while True:
        first = _lot.randrange(_LOWEST, _HIGHEST)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
