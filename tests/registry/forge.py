"""The process from which `processes` forks servers: it imports a Registry once, and then waits.

It reads one JSON object a line, {"number": 1, "environment": {...}, "log": "path"}, answers each
with {"number": 1, "pid": 123}, and tells of each end with {"pid": 123, "status": -9}. When its
standard input closes, it kills whatever still runs.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import select
import signal
import traceback
from contextlib import suppress

# All that a server imports on its way; a fork must find them done.
import perfuse.serving.run
import perfuse.serving.tracing
import perfuse.serving.validation  # noqa: F401
import perfuse_registry.servicer  # noqa: F401
from perfuse_registry import failpoints
from perfuse_registry.__main__ import _serve
from perfuse_registry.settings import RegistrySettings


def _say(**news: int) -> None:
    os.write(1, json.dumps(news).encode() + b"\n")


def _serve_as_child(environment: dict[str, str], log: str) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(environment)
    failpoints.arm(environment[failpoints.VARIABLE])
    asyncio.run(_serve(RegistrySettings.load()))


def _forge_for_ever() -> None:
    """Fork a server for each line on standard input, and tell of each that ended."""
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
                    code = 1
                    try:
                        os.close(woken)
                        _serve_as_child(order["environment"], order["log"])
                        code = 0
                    except BaseException:
                        traceback.print_exc()
                    finally:
                        os._exit(code)
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


if __name__ == "__main__":
    _forge_for_ever()
