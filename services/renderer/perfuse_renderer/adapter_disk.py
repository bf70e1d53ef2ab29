"""Adapters on this machine's disk, for the processes that come after this one."""

from __future__ import annotations

import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from perfuse.adapter.header import digest as digest_of


class AdapterDisk:
    """Files by digest, up to a number of bytes; the longest unused go first. For any thread.

    What lies in the folder is counted once, at the start: a folder of a hundred thousand adapters
    is not looked through for each one that comes.

    Args:
        directory: made if it is not there.
        max_bytes: of all files.

    Attributes:
        hits, misses: adapters looked for so far, found and not.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        files = [(path.stat(), path.stem) for path in directory.glob("*.safetensors")]
        files.sort(key=lambda entry: entry[0].st_mtime)
        self._sizes = OrderedDict((f"sha256:{stem}", stat.st_size) for stat, stem in files)
        self._bytes = sum(self._sizes.values())
        self.hits = self.misses = 0

    @property
    def count(self) -> int:
        """Files."""
        return len(self._sizes)

    @property
    def size_bytes(self) -> int:
        """Their size."""
        return self._bytes

    def __contains__(self, digest: str) -> bool:
        """Whether it should be there."""
        with self._lock:
            there = digest in self._sizes
            self.hits += there
            self.misses += not there
            return there

    def read(self, digest: str) -> bytes | None:
        """The bytes of a digest, if they are there and still its own."""
        path = self._path(digest)
        try:
            data = path.read_bytes()
            if digest_of(data) == digest:
                os.utime(path)
                with self._lock:
                    if digest in self._sizes:
                        self._sizes.move_to_end(digest)
                return data
            path.unlink(missing_ok=True)
        except OSError:
            pass
        with self._lock:
            self._forget(digest)
        return None

    def write(self, digest: str, data: bytes) -> None:
        """Keep the bytes if the disk will have them; a cache that cannot is still a cache."""
        draft = self._directory / f".{secrets.token_hex(8)}.tmp"
        try:
            draft.write_bytes(data)
            draft.replace(self._path(digest))
            for dropped in self._count(digest, len(data)):
                self._path(dropped).unlink(missing_ok=True)
        except OSError:
            with suppress(OSError):
                draft.unlink()

    def drop(self, digests: Iterable[str]) -> None:
        """Remove files, also such as another process has written since.

        Raises:
            OSError: the disk keeps one.
        """
        for digest in digests:
            self._path(digest).unlink(missing_ok=True)
            with self._lock:
                self._forget(digest)

    def _count(self, digest: str, size: int) -> list[str]:
        """Count a file in; the digests of those that have to go for it."""
        dropped = []
        with self._lock:
            self._forget(digest)
            self._sizes[digest] = size
            self._bytes += size
            while self._bytes > self._max_bytes and self._sizes:
                dropped.append(next(iter(self._sizes)))
                self._forget(dropped[-1])
        return dropped

    def _forget(self, digest: str) -> None:
        self._bytes -= self._sizes.pop(digest, 0)

    def _path(self, digest: str) -> Path:
        return self._directory / f"{digest.removeprefix('sha256:')}.safetensors"
