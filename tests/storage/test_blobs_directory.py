"""The directory store: durable in the right order, private, and blind to links."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from perfuse.adapter import digest
from perfuse.errors import DataLoss, Unavailable
from perfuse.storage.blobs import key_of
from perfuse.storage.blobs_directory import DirectoryBlobs

BYTES = b"an adapter's bytes"
DIGEST = digest(BYTES)
KEY = key_of("t", DIGEST)
FOLDER = KEY.rpartition("/")[0]

SOURCE = """
import os, signal, sys
from perfuse.storage.blobs_directory import DirectoryBlobs
root, point, digest, data = sys.argv[1:]
def reach(name):
    if name == point:
        os.kill(os.getpid(), signal.SIGKILL)
DirectoryBlobs(root, reach=reach).put("t", digest, data.encode())
"""

UNPRIVILEGED = """
import os, sys
from perfuse.errors import Unavailable
from perfuse.storage.blobs_directory import DirectoryBlobs
root = sys.argv[1]
store = DirectoryBlobs(root)
store.check()
os.chmod(root, 0o555)
if os.geteuid() == 0:
    os.setuid(65534)
try:
    store.check()
except Unavailable as refusal:
    print(refusal)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def events(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and renamed, in order, by path below the root; all of it really happens."""
    seen: list[str] = []
    fsync, replace = os.fsync, os.replace

    def path(descriptor: int) -> str:
        return os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), root)

    def recorded_fsync(descriptor: int) -> None:
        seen.append(f"sync {path(descriptor)}")
        fsync(descriptor)

    def recorded_replace(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        seen.append(f"rename {path(src_dir_fd)}/{old} {path(dst_dir_fd)}/{new}")
        replace(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    return seen


def killed_at(point: str, root: Path) -> None:
    command = [sys.executable, "-c", SOURCE, str(root), point, DIGEST, BYTES.decode()]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL


class TestDurability:
    def test_the_file_is_synced_before_and_its_folder_after_the_rename(
        self, root: Path, events: list[str]
    ) -> None:
        store = DirectoryBlobs(root, reach=lambda name: events.append(name))
        assert events == ["sync .."]
        store.put("t", DIGEST, BYTES)
        rename = next(event for event in events if event.startswith("rename"))
        temporary = rename.split()[1]
        assert temporary.startswith("_incoming/")
        assert rename == f"rename {temporary} {KEY}"
        assert events[1:] == [
            "sync .",
            "sync t",
            "sync t/sha256",
            "sync .",  # for _incoming
            f"sync {temporary}",
            "blob.put.written",
            rename,
            "blob.put.renamed",
            f"sync {FOLDER}",
        ]

    def test_folders_are_synced_once_by_each_process_whoever_made_them(
        self, root: Path, events: list[str]
    ) -> None:
        for _ in range(2):
            store = DirectoryBlobs(root)
            store.put("t", DIGEST, BYTES)
            assert {"sync .", "sync t", "sync t/sha256"} < set(events)
            events.clear()
            store.put("t", DIGEST, BYTES)
            assert [event.split("/")[0] for event in events] == [
                "sync _incoming", "rename _incoming", "sync t",
            ]  # fmt: skip
            events.clear()

    def test_a_folder_that_vanished_is_made_and_synced_again(
        self, root: Path, events: list[str]
    ) -> None:
        store = DirectoryBlobs(root)
        store.put("t", DIGEST, BYTES)
        (root / KEY).unlink()
        (root / FOLDER).rmdir()
        events.clear()
        store.put("t", DIGEST, BYTES)
        assert events[0] == "sync t/sha256"
        assert store.get("t", DIGEST) == BYTES

    def test_the_parents_of_a_new_root_are_synced(self, root: Path, events: list[str]) -> None:
        DirectoryBlobs(root / "a" / "b")
        assert events == ["sync ..", "sync .", "sync a"]

    def test_a_delete_is_synced_also_when_repeated(self, root: Path, events: list[str]) -> None:
        store = DirectoryBlobs(root)
        store.put("t", DIGEST, BYTES)
        for _ in range(2):
            events.clear()
            store.delete("t", DIGEST)
            assert events == [f"sync {FOLDER}"]

    @pytest.mark.parametrize("which", [0, 1, 4, 5])
    def test_a_failed_sync_is_no_success_and_the_next_put_writes_anew(
        self, root: Path, which: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = DirectoryBlobs(root)
        fsync, calls = os.fsync, iter(range(99))

        def failing(descriptor: int) -> None:
            if next(calls) == which:
                raise OSError(5, "Input/output error")
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", failing)
        with pytest.raises(Unavailable, match="Input/output error") as caught:
            store.put("t", DIGEST, BYTES)
        assert str(root) not in str(caught.value)
        assert (store.stat("t", DIGEST) is None) == (which != 5)  # 5 is the folder's, after all
        assert not [entry for entry in store.strays() if entry.plain]
        before = next(calls)
        store.put("t", DIGEST, BYTES)
        assert next(calls) - before - 1 >= 2
        assert store.get("t", DIGEST) == BYTES


class TestCrashes:
    def test_killed_before_the_rename_nothing_shows_and_the_rest_is_swept(self, root: Path) -> None:
        killed_at("blob.put.written", root)
        store = DirectoryBlobs(root)
        assert store.stat("t", DIGEST) is None
        assert list(store.listing()) == []
        (left,) = store.strays()
        assert left.key.startswith(f"_incoming/{DIGEST[7:]}.")
        assert left.size == len(BYTES)
        assert store.sweep_strays(datetime.now(UTC) - timedelta(hours=1)) == 0
        assert store.sweep_strays(datetime.now(UTC) + timedelta(seconds=1)) == 1
        assert list(store.strays()) == []
        store.put("t", DIGEST, BYTES)
        assert store.get("t", DIGEST) == BYTES

    def test_killed_after_the_rename_the_bytes_are_whole(self, root: Path) -> None:
        killed_at("blob.put.renamed", root)
        store = DirectoryBlobs(root)
        assert store.get("t", DIGEST) == BYTES
        assert list(store.strays()) == []

    def test_an_exception_in_a_put_leaves_nothing(self, root: Path) -> None:
        def reach(name: str) -> None:
            raise KeyboardInterrupt(name)

        store = DirectoryBlobs(root, reach=reach)
        with pytest.raises(KeyboardInterrupt, match="written"):
            store.put("t", DIGEST, BYTES)
        assert store.stat("t", DIGEST) is None
        assert list(store.strays()) == []


class TestPrivacy:
    def test_nobody_else_may_read(self, root: Path) -> None:
        before = os.umask(0)
        try:
            DirectoryBlobs(root / "deep").put("t", DIGEST, BYTES)
        finally:
            os.umask(before)
        made = [root, *root.rglob("*")]
        assert len(made) == 7
        for path in made:
            expected = 0o700 if path.is_dir() else 0o600
            assert stat.S_IMODE(path.stat().st_mode) == expected, path

    def test_a_link_in_place_of_a_blob_is_not_followed(self, root: Path, tmp_path: Path) -> None:
        store = DirectoryBlobs(root)
        store.put("t", DIGEST, BYTES)
        outside = tmp_path / "outside"
        outside.write_bytes(BYTES)
        (root / KEY).unlink()
        (root / KEY).symlink_to(outside)
        with pytest.raises(DataLoss, match="not in the store"):
            store.get("t", DIGEST)
        assert store.stat("t", DIGEST) is None
        assert list(store.listing()) == []
        assert [(entry.key, entry.plain) for entry in store.strays()] == [(KEY, False)]
        store.put("t", DIGEST, BYTES)
        assert not (root / KEY).is_symlink()
        assert store.get("t", DIGEST) == outside.read_bytes() == BYTES

    @pytest.mark.parametrize("link", ["t", "t/sha256", FOLDER, "_incoming"])
    def test_a_link_in_place_of_a_folder_is_not_followed(
        self, root: Path, tmp_path: Path, link: str
    ) -> None:
        store, other = DirectoryBlobs(root), tmp_path / "other"
        for one in (store, DirectoryBlobs(other)):
            one.put("t", DIGEST, BYTES)
        (root / link).rename(tmp_path / "moved")
        (root / link).symlink_to(other / link)
        before = sorted(other.rglob("*"))
        with pytest.raises(Unavailable, match="could not be written"):
            store.put("t", DIGEST, BYTES)
        if link != "_incoming":
            with pytest.raises(DataLoss):
                store.get("t", DIGEST)
            assert list(store.listing()) == list(store.listing("t")) == []
            store.delete("t", DIGEST)
        assert link in {entry.key for entry in store.strays() if not entry.plain}
        store.sweep_strays(datetime(9999, 1, 1, tzinfo=UTC))
        assert sorted(other.rglob("*")) == before

    def test_the_root_itself_may_be_a_link(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "disk").mkdir()
        root.symlink_to(tmp_path / "disk")
        DirectoryBlobs(root).put("t", DIGEST, BYTES)
        assert (tmp_path / "disk" / KEY).read_bytes() == BYTES

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
    def test_a_pipe_or_folder_in_place_of_a_blob_holds_nobody(
        self, root: Path, make: Callable[[Path], None]
    ) -> None:
        store = DirectoryBlobs(root)
        store.put("t", DIGEST, BYTES)
        (root / KEY).unlink()
        make(root / KEY)
        with pytest.raises(DataLoss):
            store.get("t", DIGEST)
        assert store.stat("t", DIGEST) is None
        assert list(store.listing()) == []
        assert [entry.key.rstrip("/") for entry in store.strays()] == [KEY]

    def test_no_descriptor_stays_open(self, root: Path) -> None:
        store = DirectoryBlobs(root)
        before = os.listdir("/proc/self/fd")
        for _ in range(2):
            store.put("t", DIGEST, BYTES)
            store.get("t", DIGEST)
            next(store.listing())
            store.self_test()
            with suppress(DataLoss):
                store.get("u", DIGEST)
            store.delete("t", DIGEST)
        assert len(os.listdir("/proc/self/fd")) == len(before)


class TestReadiness:
    def test_a_root_that_went_away_is_unavailable_and_not_made_again(self, root: Path) -> None:
        store = DirectoryBlobs(root)
        root.rmdir()
        for call in (
            store.check,
            store.self_test,
            lambda: store.put("t", DIGEST, BYTES),
            lambda: store.get("t", DIGEST),
            lambda: store.stat("t", DIGEST),
            lambda: store.delete("t", DIGEST),
            lambda: list(store.listing()),
            lambda: list(store.strays()),
        ):
            with pytest.raises(Unavailable, match="mounted"):
                call()
        assert not root.exists()

    def test_a_root_that_is_a_file_is_refused(self, root: Path) -> None:
        root.write_bytes(b"")
        with pytest.raises(Unavailable, match="Not a directory"):
            DirectoryBlobs(root)
        with pytest.raises(Unavailable, match="Not a directory"):
            DirectoryBlobs(root / "below")

    def test_a_root_that_cannot_be_written_to_is_not_ready(self) -> None:
        # In a process of its own, which gives up being root, who may write to any directory; not
        # under pytest's folder, which nobody else may walk through.
        with tempfile.TemporaryDirectory(prefix="perfuse-store-") as home:
            os.chmod(home, 0o755)
            checked = subprocess.run(
                [sys.executable, "-c", UNPRIVILEGED, f"{home}/store"],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
        assert checked.stderr == ""
        assert "cannot be written" in checked.stdout

    def test_a_store_that_keeps_what_it_deletes_fails_its_self_test(self, root: Path) -> None:
        class Hoarder(DirectoryBlobs):
            def _remove(self, key: str) -> None:
                pass

        with pytest.raises(DataLoss, match="deleted"):
            Hoarder(root).self_test()
