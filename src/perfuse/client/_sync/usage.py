"""What the caller's tenant uses of its quotas."""

from __future__ import annotations

from perfuse.client import reading_quotas as reading
from perfuse.client._sync.calls import Calls
from perfuse.client.quotas import QuotaUsage
from perfuse.v1 import registry_pb2, trainer_pb2


class Usage:
    """Quotas of the services that keep things; the Renderer's are in its status."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def storage(self) -> tuple[QuotaUsage, ...]:
        """The Registry's: concepts, and bytes of their versions."""
        request = registry_pb2.GetStorageUsageRequest(name=self._calls.names.parent)
        found = self._calls.call("registry", "GetStorageUsage", request)
        return tuple(map(reading.quota_usage, found.quotas))

    def training(self) -> tuple[QuotaUsage, ...]:
        """The Trainer's: runs that wait, and runs that are trained."""
        request = trainer_pb2.GetTrainingUsageRequest(name=self._calls.names.parent)
        found = self._calls.call("trainer", "GetTrainingUsage", request)
        return tuple(map(reading.quota_usage, found.quotas))
