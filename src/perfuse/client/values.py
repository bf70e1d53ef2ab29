"""Values that messages of every service carry, as callers see them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from perfuse.client.resources import StoredLock
from perfuse.v1 import registry_pb2


def key_lock(number: int) -> StoredLock:
    """A lock of keys, by its name."""
    name: Any = short_name(registry_pb2.KeyLock.Name, number, "KEY_LOCK_")
    # Unspecified means LOCAL wherever an adapter's lock is told.
    return "LOCAL" if name == "UNSPECIFIED" else name


def short_name(name_of: Callable[[Any], str], number: int, prefix: str) -> Any:
    """A value's name without its prefix; the number, where a later release named it."""
    try:
        return name_of(number).removeprefix(prefix)
    except ValueError:
        return str(number)


def moment(message: Any, field: str) -> datetime | None:
    """A time, None where it is unset."""
    if not message.HasField(field):
        return None
    found: datetime = getattr(message, field).ToDatetime(tzinfo=UTC)
    return found
