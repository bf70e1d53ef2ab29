"""A process that `perfuse up` starts: out of the terminal's reach, and ending with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["ChildProcess"]

_PR_SET_PDEATHSIG = 1


class ChildProcess:
    """A process in a session of its own, so that a terminal's Ctrl-C reaches its parent alone.

    To be made on the main thread before there are others. On Linux it gets SIGTERM when its parent
    is gone, however that came about; elsewhere a parent that is killed leaves it behind.

    Args:
        name: for people.
        command: of Python, as `-m perfuse_registry serve`.
        log: where it writes what it says.
        environment: the whole of it, but that Python's modules never come from the folder it is
            started in.
        keeps: a descriptor that it holds open while it lives.

    Attributes:
        name, log: as given.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str],
        keeps: int,
    ) -> None:
        self.name, self.log = name, log
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                # Or a file in the folder where a person stands would be imported for a module.
                env={**environment, "PYTHONSAFEPATH": "1"},
                start_new_session=True,
                pass_fds=(keeps,),
                preexec_fn=_tied_to(os.getpid()),
            )
        finally:
            os.close(descriptor)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal's number; None while it lives."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def kill(self) -> None:
        """End it and what it started in its own session."""
        if self.status is None:
            os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()

    def ending(self) -> str:
        """How it ended, as the end of a sentence."""
        status = self.status
        if status is not None and status < 0:
            return f"was ended by {signal.Signals(-status).name}"
        return f"ended with status {status}"

    def last_lines(self, count: int = 8) -> list[str]:
        """Of its log, without empty ones."""
        with self.log.open(errors="replace") as file:
            return list(deque((line.rstrip() for line in file if line.strip()), count))


def _tied_to(parent: int) -> Callable[[], None]:
    """What a child does before it becomes the command."""
    library = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def tie() -> None:
        os.umask(0o077)
        if library is not None:
            library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:  # It was gone before we asked.
                os._exit(1)

    return tie
