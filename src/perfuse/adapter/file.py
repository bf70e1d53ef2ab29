"""Files in which adapters lie: read within limits, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import BinaryIO

from perfuse.adapter.errors import FileTooLarge, NotAFile
from perfuse.adapter.limits import MAX_FILE_BYTES, PREFIX_BYTES
from perfuse.errors import NotFound


def read_prefix(path: str | PathLike[str]) -> tuple[bytes, int]:
    """As much of a file as may be its header, and the size of the whole.

    Raises:
        NotFound: nothing is there.
        NotAFile: a directory, device or pipe is there.
        FileTooLarge: more than `MAX_FILE_BYTES` are there.
    """
    with _opened(path) as (file, size):
        return file.read(PREFIX_BYTES), size


def read_whole(path: str | PathLike[str]) -> bytes:
    """All bytes of a file, with the same refusals as `read_prefix`."""
    with _opened(path) as (file, size):
        return file.read(size)


def write_atomically(path: str | PathLike[str], data: bytes) -> None:
    """Puts `data` at `path` so that a reader, or a crash, finds the old file or the new one.

    The bytes go to a new file in the same directory, reach the disk, and only then take the name.
    """
    target = Path(path)
    draft = target.with_name(f".{target.name[:64]}.{secrets.token_hex(8)}.tmp")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    _sync_directory(target.parent)


def _sync_directory(directory: Path) -> None:
    # Without this the new name may be lost with the power, though the bytes are safe.
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened(path: str | PathLike[str]) -> Iterator[tuple[BinaryIO, int]]:
    place = Path(path)
    try:
        # Asked before opening: to open a pipe is to wait for its writer.
        regular = stat.S_ISREG(place.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(f"no adapter file at {place}. Check the path") from None
    if not regular:
        raise NotAFile(f"{place} is not a regular file; an adapter is read from one")
    with place.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise FileTooLarge(f"{place} has {size} bytes; an adapter has at most {MAX_FILE_BYTES}")
        yield file, size
