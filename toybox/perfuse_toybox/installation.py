"""The three services as `perfuse up` runs them, while a context lasts."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perfuse.client import Connection
from perfuse.client.connection import LEFT_BY_UP
from perfuse.errors import FailedPrecondition

DRAIN_SECONDS = 60.0


@contextmanager
def installation(home: Path, base: Path, *options: str) -> Iterator[Connection]:
    """A platform with all that it keeps in one folder, on ports that nobody has.

    Args:
        home: its folder; what an earlier one kept there is found again.
        base: the base model's directory.
        options: further ones of `perfuse up`.

    Raises:
        FailedPrecondition: it did not come up; what it said stands above.
    """
    command = [
        *(str(Path(sys.executable).with_name("perfuse")), "up", "--json"),
        *("--home", str(home), "--base", f"toybox={base}", "--port", str(_free_ports())),
        *options,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise FailedPrecondition(
                    f"`perfuse up` ended with {process.wait()}; see what it said, and {home}/logs"
                )
            yield Connection.find(config=home / LEFT_BY_UP)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(DRAIN_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _free_ports() -> int:
    """The first of three ports in a row that are free at this moment.

    Below those that systems give to outgoing connections, which could have one by the time that
    it is needed.
    """
    while True:
        first = random.SystemRandom().randrange(15_000, 32_000)
        try:
            for port in range(first, first + 3):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
