"""The Registry's own memory of requests, and its record of what they did."""

from __future__ import annotations

from perfuse.storage.audit import Audit
from perfuse.storage.requests import Requests
from perfuse_registry.tables import AUDIT_EVENTS, REQUESTS

AUDIT = Audit(AUDIT_EVENTS)
_REQUESTS = Requests(REQUESTS, AUDIT)
once = _REQUESTS.once
recalled = _REQUESTS.recalled
kept_values = _REQUESTS.kept_values
