"""The forge of workers: an order names `worker`, `base_model` and the `environment` to work in.

With `hang` the worker's first step never ends.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import torch

# All that a worker imports on its way; a fork must find them done.
import perfuse_trainer.working.working
from perfuse.attach import silence_loading
from perfuse_trainer.learning.pack import Pack
from trainer.forge import fork_for_ever


def _work(order: dict[str, Any]) -> None:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    os.environ.update(order["environment"])
    if order["hang"]:
        Pack.step = lambda *_: time.sleep(3600)  # type: ignore[method-assign]
    perfuse_trainer.working.working.work(order["base_model"], order["worker"], stop)


if __name__ == "__main__":
    torch.set_num_threads(1)
    silence_loading()
    fork_for_ever(_work)
