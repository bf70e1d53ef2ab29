"""From the messages about quotas to what callers see."""

from __future__ import annotations

from perfuse.client.quotas import QuotaUsage
from perfuse.v1 import quotas_pb2


def quota_usage(sent: quotas_pb2.QuotaUsage) -> QuotaUsage:
    """How much of a quota is used."""
    limit = sent.limit if sent.HasField("limit") else None
    return QuotaUsage(quota=sent.quota, used=sent.used, limit=limit)
