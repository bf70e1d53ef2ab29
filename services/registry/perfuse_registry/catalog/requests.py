"""The Registry's own memory of requests."""

from __future__ import annotations

from perfuse.storage.requests import Requests
from perfuse_registry.tables import REQUESTS

_REQUESTS = Requests(REQUESTS)
once = _REQUESTS.once
recalled = _REQUESTS.recalled
