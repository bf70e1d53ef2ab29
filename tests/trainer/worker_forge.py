"""The process from which `forging` forks workers: it imports all that a worker needs, and waits.

It reads one JSON object a line, {"worker": "id", "base_model": "tiny", "environment": {...}},
answers each with {"worker": "id", "pid": 123}, and tells of each end with {"pid": 123}. When its
standard input closes, it kills whatever still runs.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import threading
import traceback
from contextlib import suppress

import torch

# All that a worker imports on its way; a fork must find them done.
import perfuse_trainer.working.working
from perfuse.attach import silence_loading


def _say(**news: object) -> None:
    os.write(1, json.dumps(news).encode() + b"\n")


def _work_as_child(order: dict[str, object]) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(2, 1)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    os.environ.update(order["environment"])  # type: ignore[arg-type]
    perfuse_trainer.working.working.work(str(order["base_model"]), str(order["worker"]), stop)


def _forge_for_ever() -> None:
    torch.set_num_threads(1)
    silence_loading()
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    children: set[int] = set()
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
                        _work_as_child(order)
                        code = 0
                    except BaseException:
                        traceback.print_exc()
                    finally:
                        os._exit(code)
                children.add(pid)
                _say(worker=order["worker"], pid=pid)
        if woken in ready:
            with suppress(BlockingIOError):
                os.read(woken, 1 << 16)
        while children:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            children.discard(pid)
            _say(pid=pid)
    for pid in children:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    _forge_for_ever()
