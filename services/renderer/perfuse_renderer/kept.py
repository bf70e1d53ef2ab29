"""What was computed and may be wanted again, up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Kept(Generic[K, V]):
    """Values by key; the longest unused go first. For any thread.

    Args:
        max_bytes: of all values; the last one put in is kept whatever its size.
        size: bytes of a value.

    Attributes:
        hits, misses: lookups so far that found something, and that did not.
    """

    def __init__(self, max_bytes: int, size: Callable[[V], int]) -> None:
        self._max_bytes = max_bytes
        self._size = size
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self.hits = self.misses = 0

    @property
    def count(self) -> int:
        """Values that are kept."""
        return len(self._values)

    @property
    def size_bytes(self) -> int:
        """Their size."""
        return self._bytes

    def get(self, key: K, /) -> V | None:
        """The value of a key, used now."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._values.move_to_end(key)
            return found[0]

    def drop(self, chosen: Callable[[K], bool], /) -> list[V]:
        """Keep those no longer whose keys are chosen; their values."""
        with self._lock:
            dropped = [key for key in self._values if chosen(key)]
            values = [self._values.pop(key) for key in dropped]
            self._bytes -= sum(size for _, size in values)
            return [value for value, _ in values]

    def put(self, key: K, value: V, /) -> None:
        """Keep a value; of several that were computed at once, the first."""
        with self._lock:
            if key in self._values:
                return
            size = self._size(value)
            self._values[key] = (value, size)
            self._bytes += size
            while self._bytes > self._max_bytes and len(self._values) > 1:
                _, (_, dropped) = self._values.popitem(last=False)
                self._bytes -= dropped
