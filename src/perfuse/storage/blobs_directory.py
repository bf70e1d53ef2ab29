"""Blobs in a local directory: the embedded default, durable against a loss of power.

A put writes a new file in `_incoming`, syncs it, renames it into place and syncs the folder, so a
blob is there whole or not at all. Below the root every folder is opened by its name in the folder
above it and no link is followed, so that nothing planted in the store leads out of it.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from perfuse.adapter.limits import MAX_FILE_BYTES
from perfuse.errors import Unavailable
from perfuse.storage.blobs import INCOMING, CheckedBlobs, Entry

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC  # the root itself may be a link: its owner's
_FOLDER = _ROOT | os.O_NOFOLLOW
# Without O_NONBLOCK, a pipe planted in the store would hold its reader for ever.
_OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_FOLDER_MODE = 0o700
_FILE_MODE = 0o600
_FOLDERS_OF_A_KEY = 3  # tenant, "sha256", two digits
_MAX_REMEMBERED = 65_536

_NOTHING_OF_OURS = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class DirectoryBlobs(CheckedBlobs):
    """A `BlobStore` in one directory, which nobody else should write to.

    Several processes may share it. Folders are made for their owner alone and stay when they are
    empty. A root that goes away later (a disk that is no longer mounted) is not made again.

    Args:
        root: the directory; made, with its parents, if it is not there.
        reach: called with the name of each fail point as a put comes by it.

    Raises:
        Unavailable: the directory cannot be made.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        max_bytes: int = MAX_FILE_BYTES,
        reach: Callable[[str], None] = lambda name: None,
    ):
        super().__init__(max_bytes)
        self._root = Path(root).absolute()
        self._reach = reach
        self._remembered: set[str] = set()
        with _faults("made"):
            _make(self._root)

    def check(self) -> None:
        with self._folder(()) as root:
            # The call says no on a file system that is mounted read-only, even to root.
            if not os.access(".", os.W_OK | os.X_OK, dir_fd=root):
                raise Unavailable("the store's directory cannot be written to; see its mount")

    def _write(self, key: str, data: bytes) -> None:
        *parts, name = key.split("/")
        temporary = f"{name}.{secrets.token_hex(8)}"
        with (
            _faults("written"),
            self._folder(parts, make=True) as folder,
            self._folder((INCOMING,), make=True) as incoming,
        ):
            try:
                descriptor = os.open(temporary, _NEW_FILE, _FILE_MODE, dir_fd=incoming)
                with _closing(descriptor):
                    _write_all(descriptor, data)
                    os.fsync(descriptor)
                self._reach("blob.put.written")
                os.replace(temporary, name, src_dir_fd=incoming, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=incoming)
                raise
            self._reach("blob.put.renamed")
            os.fsync(folder)

    def _read(self, key: str) -> bytes | None:
        *parts, name = key.split("/")
        with _faults("read"), self._folder_or_none(parts) as folder:
            if folder is None:
                return None
            try:
                descriptor = os.open(name, _OLD_FILE, dir_fd=folder)
            except OSError as error:
                if error.errno in _NOTHING_OF_OURS:
                    return None
                raise
            with _closing(descriptor):
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return None
                return _read_at_most(descriptor, self._max_bytes + 1)

    def _size(self, key: str) -> int | None:
        *parts, name = key.split("/")
        with _faults("read"), self._folder_or_none(parts) as folder:
            if folder is None:
                return None
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                return None
            return status.st_size if stat.S_ISREG(status.st_mode) else None

    def _remove(self, key: str) -> None:
        *parts, name = key.split("/")
        with _faults("written"), self._folder_or_none(parts) as folder:
            if folder is None:
                return
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            # Also where the file was gone: the delete before may have died ahead of its sync.
            os.fsync(folder)

    def _entries(self, prefix: str, after: str | None) -> Iterator[Entry]:
        return self._walk(tuple(prefix.split("/")[:-1]), after)

    def _walk(self, folder: tuple[str, ...], after: str | None) -> Iterator[Entry]:
        for name, status in self._scan(folder):
            key = "/".join((*folder, name))
            if stat.S_ISDIR(status.st_mode):
                key += "/"
                # Each key in the folder starts with its own, so it is done with as a whole.
                if after is not None and after > key and not after.startswith(key):
                    continue
                if len(folder) < _FOLDERS_OF_A_KEY:
                    yield from self._walk((*folder, name), after)
                    continue
            elif after is not None and key <= after:
                continue
            modified = datetime.fromtimestamp(status.st_mtime, UTC)
            yield Entry(key, status.st_size, modified, plain=stat.S_ISREG(status.st_mode))

    def _scan(self, parts: Sequence[str]) -> list[tuple[str, os.stat_result]]:
        """A folder's content in the order of keys, in which a folder's name ends in a slash."""
        found = []
        with _faults("read"), self._folder_or_none(parts) as folder:
            if folder is None:
                return []
            with os.scandir(folder) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # deleted since
                        found.append((entry.name, entry.stat(follow_symlinks=False)))
        found.sort(key=lambda pair: pair[0] + "/" * stat.S_ISDIR(pair[1].st_mode))
        return found

    @contextmanager
    def _folder_or_none(self, parts: Sequence[str]) -> Iterator[int | None]:
        """`_folder`, or None where it is missing or something else has its name."""
        opened = None
        try:
            opened = self._open(parts, make=False)
        except OSError as error:
            if error.errno not in _NOTHING_OF_OURS:
                raise
        if opened is None:
            yield None
            return
        with _closing(opened):
            yield opened

    @contextmanager
    def _folder(self, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """A descriptor of the folder below the root, reached without following a link."""
        opened = self._open(parts, make=make)
        with _closing(opened):
            yield opened

    def _open(self, parts: Sequence[str], *, make: bool) -> int:
        try:
            opened = os.open(self._root, _ROOT)
        except OSError as error:
            raise Unavailable(
                f"the store's directory cannot be opened ({error.strerror}); see that its disk "
                "is mounted and that it is the server's to read"
            ) from error
        for depth, name in enumerate(parts, start=1):
            above = opened
            try:
                opened = self._enter(above, name, "/".join(parts[:depth]), make=make)
            finally:
                os.close(above)
        return opened

    def _enter(self, above: int, name: str, key: str, *, make: bool) -> int:
        try:
            opened = os.open(name, _FOLDER, dir_fd=above)
        except FileNotFoundError:
            if not make:
                raise
            self._remembered.discard(key)
            with suppress(FileExistsError):
                os.mkdir(name, _FOLDER_MODE, dir_fd=above)
            opened = os.open(name, _FOLDER, dir_fd=above)
        # A folder that was there may be another writer's, dead or not yet come to its sync. So the
        # first put of this process to come by a folder syncs the one above it, whoever made it.
        if make and key not in self._remembered:
            try:
                os.fsync(above)
            except OSError:
                os.close(opened)
                raise
            if len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered.add(key)
        return opened


def _make(root: Path) -> None:
    missing = []
    path = root
    while not path.exists():
        missing.append(path)
        path = path.parent
    for path in reversed(missing):
        path.mkdir(_FOLDER_MODE, exist_ok=True)
        above = os.open(path.parent, _ROOT)
        with _closing(above):
            os.fsync(above)
    os.close(os.open(root, _ROOT))  # which says so where it is no directory


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _read_at_most(descriptor: int, limit: int) -> bytes:
    pieces = []
    while limit > 0 and (piece := os.read(descriptor, limit)):
        pieces.append(piece)
        limit -= len(piece)
    return b"".join(pieces)


@contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _faults(done: str) -> Iterator[None]:
    """Faults of the disk as `Unavailable`; the path stays out of the text, which may travel."""
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"the store's directory could not be {done} ({error.strerror}); see to its disk, its "
            "space and its permissions, then try again"
        ) from error
