"""The command line as a caller of one platform has it."""

from __future__ import annotations

import codecs
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from platform_up import PERFUSE

from perfuse.cli import run
from perfuse.client import Connection

SECONDS = 120.0


@dataclass(frozen=True)
class Answer:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on the standard output."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Its lines of JSON."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def refusal(self) -> Any:
        """The one JSON object on the standard error."""
        assert self.out == ""
        return json.loads(self.err)


def environment(connection: Connection) -> dict[str, str]:
    """What says where the services are."""
    return {
        "PERFUSE_REGISTRY": connection.registry,
        "PERFUSE_TRAINER": connection.trainer,
        "PERFUSE_RENDERER": connection.renderer,
        "PERFUSE_TENANT": connection.tenant,
        "PERFUSE_TOKEN": connection.token,
    }


class Shell:
    """Runs commands in this process; `shell("concept", "list")`."""

    def __init__(
        self,
        connection: Connection,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        for name, value in environment(connection).items():
            monkeypatch.setenv(name, value)
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Answer:
        self._capsys.readouterr()
        code = run(arguments)
        seen = self._capsys.readouterr()
        return Answer(int(code), seen.out, seen.err)


def process(connection: Connection, *arguments: str) -> Answer:
    """A command in a process of its own."""
    done = subprocess.run(
        [*PERFUSE, *arguments],
        env={**os.environ, **environment(connection)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


class Terminal:
    """A command in a terminal of 100 columns; all that it printed is `seen`."""

    def __init__(self, process: subprocess.Popen[bytes], controller: int) -> None:
        self.seen = ""
        self._process = process
        self._controller = controller
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def wait_for(self, text: str) -> None:
        """Read until a text was printed."""
        ends = time.monotonic() + SECONDS
        while text not in self.seen:
            assert time.monotonic() < ends, f"{text!r} did not come: {self.seen}"
            assert self._read(), f"it ended before {text!r}: {self.seen}"

    def interrupt(self) -> None:
        """Press Ctrl-C: the terminal sends SIGINT."""
        os.write(self._controller, b"\x03")

    def end(self) -> int:
        """Read to the end; the exit status."""
        while self._read():
            pass
        return self._process.wait(SECONDS)

    def _read(self) -> bool:
        if not select.select([self._controller], [], [], SECONDS)[0]:
            return False
        try:
            data = os.read(self._controller, 1 << 16)
        except OSError:  # How Linux tells that the other side is gone.
            return False
        self.seen += self._decoder.decode(data)
        return bool(data)


@contextmanager
def terminal(
    connection: Connection, *arguments: str, extra: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    """A command in a terminal of its own, where Ctrl-C reaches it and nothing else."""
    controller, terminal_end = pty.openpty()
    environ = {
        **{name: value for name, value in os.environ.items() if name != "TMUX"},
        **environment(connection),
        "TERM": "xterm-256color",
        "COLUMNS": "100",
        "LINES": "40",
        **(extra or {}),
    }
    started = subprocess.Popen(
        [sys.executable, "-c", _IN_A_TERMINAL, *arguments],
        env=environ,
        stdin=terminal_end,
        stdout=terminal_end,
        stderr=terminal_end,
        start_new_session=True,
    )
    os.close(terminal_end)
    try:
        yield Terminal(started, controller)
    finally:
        if started.poll() is None:
            started.send_signal(signal.SIGKILL)
            started.wait()
        os.close(controller)


_IN_A_TERMINAL = """
import fcntl, signal, termios
# What a shell starts in the background ignores Ctrl-C, and so does all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from perfuse.cli import main
main()
"""
