"""A whole platform as `perfuse up` runs it: three processes, one folder, ports of its own.

    with running(tmp_path / "home") as platform:
        with Client(platform.connection) as perfuse:
            ...

The fixture `platform` is one that the whole session shares.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ports
import psutil

from perfuse.client import Connection
from perfuse.client.connection import LEFT_BY_UP

SECONDS = 240.0
"""For a start, or an end, on a machine that is busy with other tests."""

PERFUSE = (sys.executable, "-c", "from perfuse.cli import main; main()")


_described: dict[str, str] = {}
"""What earlier platforms of this process kept of their base models, to describe which takes a
process that loads torch: later ones find it, as at a second start in one folder."""


@dataclass(frozen=True)
class Platform:
    """A running platform.

    Attributes:
        home: its folder.
        connection: to it, as its owner.
        process: `perfuse up`.
        told: what it said when it was ready.
    """

    home: Path
    connection: Connection
    process: subprocess.Popen[str]
    told: dict[str, Any]

    @property
    def services(self) -> dict[str, psutil.Process]:
        """`registry`, `trainer`, `renderer` → its process."""
        found = {}
        for child in psutil.Process(self.process.pid).children():
            module = child.cmdline()[2]
            found[module.removeprefix("perfuse_")] = child
        return found

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Signal it and wait; its exit status, and what it said besides."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        """Wait for its end; its exit status, and what it said besides."""
        _, said = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, said


def free_ports() -> int:
    """The first of three ports in a row that nobody has."""
    return ports.free_ports(3)


def without_perfuse() -> dict[str, str]:
    """This environment, as if nobody had said where a platform is."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PERFUSE_")}


def start(
    home: Path, *options: str, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """`perfuse up --json` with its data in `home`, not yet ready."""
    ports = () if "--port" in options else ("--port", str(free_ports()))
    return subprocess.Popen(
        [*PERFUSE, "up", "--json", "--home", str(home), *ports, *options],
        env=without_perfuse() | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def refused(home: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit status and the refusal of a platform that does not come up."""
    with start(home, *options) as process:
        said, refusal = process.communicate(timeout=SECONDS)
    assert said == ""
    return process.returncode, json.loads(refusal)


@contextmanager
def running(
    home: Path, *options: str, environment: dict[str, str] | None = None
) -> Iterator[Platform]:
    """A platform that is ready; killed at the end with all that it started."""
    bases = home / "bases"
    for folder in (home, bases) if _described else ():
        folder.mkdir(mode=0o700, exist_ok=True)
    for name, text in _described.items():
        if not (bases / name).exists():
            (bases / name).write_text(text)
    with start(home, *options, environment=environment) as process:
        watchdog = threading.Timer(SECONDS, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            watchdog.cancel()
            if not line:
                _, said = process.communicate(timeout=SECONDS)
                raise AssertionError(f"`perfuse up` ended with {process.returncode}: {said}")
            _described.update({each.name: each.read_text() for each in bases.glob("*.json")})
            connection = Connection.find(config=home / LEFT_BY_UP)
            yield Platform(home, connection, process, json.loads(line))
        finally:
            watchdog.cancel()
            if process.poll() is None:
                # The first drains, the second ends at once.
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
