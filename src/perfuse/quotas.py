"""What a tenant may use: limits by quota, from a file of the operator's.

    [defaults]
    concepts = 1000
    bytes = 10_000_000_000

    [tenants.acme]
    concepts = inf            # TOML's own word for no limit
    images_per_minute = 60

A quota that neither the tenant nor the defaults name is not limited, and without a file nothing is.
All services may read one file; each looks for its own quotas in it.
"""

from __future__ import annotations

import logging
import math
import threading
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perfuse.errors import FailedPrecondition, QuotaExceeded
from perfuse.names import ID

QUOTAS = (
    "concepts",
    "bytes",
    "runs_queued",
    "runs_running",
    "images_per_minute",
    "step_seconds_per_minute",
)
"""Every quota; see `perfuse/v1/quotas.proto` and the usage rpcs of the services."""

_log = logging.getLogger(__name__)
_Limits = Mapping[str, float]


class Quotas:
    """Limits that change when their file does, from the next question on.

    A file that becomes unreadable while it is watched changes nothing: the limits that it had stay,
    and the log says once what is wrong.

    Args:
        path: The file; None limits nothing.

    Raises:
        FailedPrecondition: it cannot be read, or breaks a rule.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._reloading = threading.Lock()
        self._stamp = _stamp(path)
        self._defaults, self._tenants = _read(path) if path else ({}, {})

    def limit(self, tenant: str, quota: str) -> float | None:
        """What the tenant may use, None where it is not limited."""
        if self._path is not None and _stamp(self._path) != self._stamp:
            with self._reloading:
                self._reload(self._path)
        limits = self._tenants.get(tenant, {})
        limit = limits.get(quota, self._defaults.get(quota, math.inf))
        return None if limit == math.inf else limit

    def _reload(self, path: Path) -> None:
        stamp = _stamp(path)
        if stamp == self._stamp:
            return
        # Taken before reading: what is written meanwhile is read the next time.
        self._stamp = stamp
        try:
            self._defaults, self._tenants = _read(path)
        except FailedPrecondition as error:
            _log.error("the limits stay as they were: %s", error)
        else:
            _log.info("quotas were read again from %s", path)


def exceeded(
    tenant: str, quota: str, limit: float, remedy: str, retry_after: float | None = None
) -> QuotaExceeded:
    """The refusal of what goes beyond a quota.

    Args:
        tenant: Whose quota.
        quota: Its name.
        limit: What is allowed.
        remedy: A sentence on what to do.
        retry_after: Seconds after which the same call may succeed, where time mends it.
    """
    refusal = QuotaExceeded(f"the quota {quota} of {tenant} is {limit:g} and used up. {remedy}")
    refusal.quota, refusal.limit = quota, math.floor(limit)
    refusal.resource = f"tenants/{tenant}"
    refusal.retry_after = retry_after
    return refusal


def _stamp(path: Path | None) -> tuple[int, ...] | None:
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return None if status is None else (status.st_mtime_ns, status.st_size, status.st_ino)


def _read(path: Path) -> tuple[_Limits, Mapping[str, _Limits]]:
    try:
        told = tomllib.loads(path.read_text())
    except OSError as error:
        raise FailedPrecondition(
            f"the quota file {path} cannot be read ({error.strerror}). Put it there, or set none"
        ) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FailedPrecondition(f"the quota file {path} is not TOML: {error}") from None
    unknown = set(told) - {"defaults", "tenants"}
    tenants = told.get("tenants", {})
    if unknown or not isinstance(tenants, dict):
        raise FailedPrecondition(
            f"the quota file {path} may have the tables [defaults] and [tenants.ID] alone, not "
            f"{', '.join(sorted(unknown)) or 'tenants as a value'}"
        )
    for tenant in tenants:
        if not ID.fullmatch(tenant):
            raise FailedPrecondition(f"the quota file {path} names {tenant!r}, which is no id")
    return (
        _limits(path, "defaults", told.get("defaults", {})),
        {tenant: _limits(path, f"tenants.{tenant}", said) for tenant, said in tenants.items()},
    )


def _limits(path: Path, table: str, said: Any) -> _Limits:
    for quota, limit in said.items() if isinstance(said, dict) else [("", said)]:
        plain = isinstance(limit, (int, float)) and not isinstance(limit, bool)
        if quota not in QUOTAS or not plain or not limit >= 0:
            raise FailedPrecondition(
                f"the quota file {path} has {quota or table} = {limit!r} in [{table}]; it may have "
                f"numbers from 0 on, or inf, for {', '.join(QUOTAS)}"
            )
    return {quota: float(limit) for quota, limit in said.items()}
