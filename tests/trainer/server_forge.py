"""The forge of Trainers on Ray; an order is {"environment": {...}, "log": "path"}."""

from __future__ import annotations

import asyncio
import os
from typing import Any

# All that a server imports on its way; a fork must find them done.
import perfuse_trainer.runners.ray_actors
import perfuse_trainer.serving
from perfuse_trainer.service_settings import TrainerSettings
from trainer.forge import fork_for_ever


def _serve(order: dict[str, Any]) -> None:
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.environ.update(order["environment"])
    asyncio.run(perfuse_trainer.serving.serve(TrainerSettings.load()))


if __name__ == "__main__":
    fork_for_ever(_serve)
