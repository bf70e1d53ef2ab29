"""The forge of `perfuse-trainer learn`; an order is {"words": [...], "log": "path"}."""

from __future__ import annotations

import os
from typing import Any

import torch

# All that the command imports on its way; a fork must find them done.
from perfuse_trainer.__main__ import app
from trainer.forge import fork_for_ever


def _learn(order: dict[str, Any]) -> None:
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    try:
        app(order["words"])
    except SystemExit as end:
        os._exit(int(end.code or 0))


if __name__ == "__main__":
    torch.set_num_threads(1)
    fork_for_ever(_learn)
