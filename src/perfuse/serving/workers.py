"""Several processes on one address, for services that one process's interpreter lock holds back.

The first process serves nothing: it keeps the address, so that strangers who want it are refused
as ever, starts workers that share it among them (SO_REUSEPORT; the kernel gives each connection to
one), starts one again that died, and on SIGTERM or SIGINT ends when all of them have drained.
Workers know by the environment that they are, and drain when their parent is gone.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import structlog

from perfuse.errors import FailedPrecondition
from perfuse.serving.settings import host_port

VARIABLE = "PERFUSE_WORKER"
# One that ends by itself so soon was refused something, and would be again.
_START_SECONDS = 10.0
# Between the death of a worker and its successor.
_PAUSE_SECONDS = 1.0
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}


@dataclass(frozen=True, slots=True)
class Worker:
    """What a worker knows of itself: its number, from 0, and the address that it shares."""

    index: int
    bind: str


def this_worker() -> Worker | None:
    """What this process is told by its parent; None in a process that has none."""
    told = os.environ.get(VARIABLE)
    if told is None:
        return None
    index, _, bind = told.partition(" ")
    return Worker(int(index), bind)


def supervise(command: Sequence[str], count: int, bind: str) -> int:
    """Run a command in so many workers until SIGTERM or SIGINT; a second signal is passed on too.

    To be called on the main thread of a process that has no others.

    Args:
        command: That serves; its `Server.from_settings` finds what it must share.
        count: Of workers.
        bind: Address, `host:port`; port 0 takes a free one.

    Returns:
        The exit status: 0 if every worker drained, 1 if one could not start or ended otherwise.

    Raises:
        FailedPrecondition: the address cannot be had.
    """
    with _reserved(bind) as address:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            return _Family(command, count, address, before).run()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Family:
    """The workers, and when to start those again that died."""

    def __init__(
        self, command: Sequence[str], count: int, bind: str, mask: set[int | signal.Signals]
    ) -> None:
        self._command, self._bind, self._mask = list(command), bind, mask
        self._running: dict[int, tuple[subprocess.Popen[bytes], float]] = {}
        self._due = dict.fromkeys(range(count), 0.0)
        self._status, self._ending = 0, False
        self._log = structlog.get_logger("perfuse.serving")

    def run(self) -> int:
        while self._running or not self._ending:
            self._start_due()
            told = signal.sigtimedwait(_SIGNALS, _PAUSE_SECONDS)
            if told is not None and told.si_signo != signal.SIGCHLD:
                self._log.info("signalled", signal=signal.Signals(told.si_signo).name)
                self._end()
            self._reap()
        return self._status

    def _start_due(self) -> None:
        now = time.monotonic()
        for index, due in list(self._due.items()):
            if now < due:
                continue
            del self._due[index]
            worker = subprocess.Popen(
                self._command,
                # It ends when we do, however that comes about.
                stdin=subprocess.PIPE,
                env={**os.environ, VARIABLE: f"{index} {self._bind}"},
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, self._mask),
            )
            self._running[index] = worker, now
            self._log.info("worker_started", worker=index, pid=worker.pid)

    def _end(self) -> None:
        self._ending = True
        self._due.clear()
        for worker, _ in self._running.values():
            worker.terminate()

    def _reap(self) -> None:
        for index, (worker, began) in list(self._running.items()):
            status = worker.poll()
            if status is None:
                continue
            del self._running[index]
            if worker.stdin is not None:
                worker.stdin.close()
            if self._ending:
                self._status = self._status or int(status != 0)
            elif status >= 0 and time.monotonic() - began < _START_SECONDS:
                self._log.error("worker_refused", worker=index, status=status)
                self._status = 1
                self._end()
            else:
                self._log.error("worker_died", worker=index, status=status)
                self._due[index] = time.monotonic() + _PAUSE_SECONDS


@contextmanager
def _reserved(bind: str) -> Iterator[str]:
    """Hold an address without listening, so that only those we start can share it."""
    host, port = host_port(bind)
    with ExitStack() as held:
        try:
            places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            for family, kind, protocol, _, place in places:
                one = held.enter_context(socket.socket(family, kind, protocol))
                # Bound alone, which shows that nobody else has it; open to sharing only then.
                one.bind((place[0], port, *place[2:]))
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                port = one.getsockname()[1]
        except OSError as error:
            raise FailedPrecondition(
                f"{bind} cannot be bound ({error.strerror}): another process has the port, or the "
                "host has no such address; choose another"
            ) from None
        yield f"{bind.rpartition(':')[0]}:{port}"
