"""Quotas, as callers see them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaUsage:
    """How much of a quota is used.

    Attributes:
        quota: `concepts`, `bytes`, `runs_queued`, `runs_running`, `images_per_minute` or
            `step_seconds_per_minute`.
        used: so much; of a quota per minute, within the last one.
        limit: so much is allowed; None where nothing limits it.
    """

    quota: str
    used: float
    limit: float | None = None
