"""The Trainer's own memory of requests."""

from __future__ import annotations

from perfuse.storage.requests import Requests
from perfuse_trainer.tables import REQUESTS

_REQUESTS = Requests(REQUESTS)
once = _REQUESTS.once
replayed = _REQUESTS.replayed
