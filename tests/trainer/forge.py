"""A process that has imported all that its children need, and forks them in a moment.

The forge reads one JSON object a line, its order, and answers each with {"number": 1, "pid": 123};
it tells of each end with {"pid": 123, "status": -9}. When its standard input closes, it kills
whatever still runs. `Forge` is the side of the tests, `fork_for_ever` that of the process.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

SECONDS = 60.0
_TESTS = str(Path(__file__).parent.parent)


class Forge:
    """A forge, and what became of its children.

    Args:
        module: that ends in `fork_for_ever`.
        environment: of the forge and so of all children.

    Attributes:
        deaths: of children, so far.
    """

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        path = os.pathsep.join(filter(None, [_TESTS, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path} | dict(environment or {}),
            start_new_session=True,
        )
        self._news = threading.Condition()
        self._started: dict[int, int] = {}
        self._statuses: dict[int, int] = {}
        self._asked = 0
        self.deaths = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def fork(self, **order: Any) -> int:
        """The process id of a new child, which got the order."""
        assert self._process.stdin is not None
        with self._news:
            self._asked += 1
            number = self._asked
            self._process.stdin.write(json.dumps({"number": number, **order}).encode() + b"\n")
            self._process.stdin.flush()
            assert self._news.wait_for(lambda: number in self._started, SECONDS)
            return self._started.pop(number)

    def status(self, pid: int) -> int | None:
        """How a child ended, negative for a signal; None while it runs."""
        with self._news:
            return self._statuses.get(pid)

    def wait(self, pid: int, seconds: float = SECONDS) -> int:
        """How a child ended, as soon as it did."""
        with self._news:
            assert self._news.wait_for(lambda: pid in self._statuses, seconds), "it still runs"
            return self._statuses[pid]

    def close(self) -> None:
        """End the forge and every child."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            news = json.loads(line)
            with self._news:
                if "number" in news:
                    self._started[news["number"]] = news["pid"]
                    # An id that the kernel gave once more.
                    self._statuses.pop(news["pid"], None)
                else:
                    self.deaths += 1
                    self._statuses[news["pid"]] = news["status"]
                self._news.notify_all()


def fork_for_ever(child: Callable[[dict[str, Any]], None]) -> None:
    """Fork for each order a process in which `child` is called with it, until no more come."""
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    children: set[int] = set()
    # What is there now stays; a child that looked through it all would have to copy it.
    gc.freeze()
    buffered = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if 0 in ready:
            received = os.read(0, 1 << 16)
            if not received:
                break
            *lines, buffered = (buffered + received).split(b"\n")
            for line in lines:
                order = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    _become(child, order, woken)
                children.add(pid)
                _say(number=order["number"], pid=pid)
        if woken in ready:
            with suppress(BlockingIOError):
                os.read(woken, 1 << 16)
        while children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            children.discard(pid)
            _say(pid=pid, status=os.waitstatus_to_exitcode(status))
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _become(child: Callable[[dict[str, Any]], None], order: dict[str, Any], woken: int) -> None:
    code = 1
    try:
        os.close(woken)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        child(order)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _say(**news: int) -> None:
    os.write(1, json.dumps(news).encode() + b"\n")
