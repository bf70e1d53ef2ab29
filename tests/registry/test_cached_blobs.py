"""Adapters in memory: the store's own bytes, no more of them than may be, forgotten in time."""

from __future__ import annotations

import ctypes
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from perfuse.adapter import digest
from perfuse.errors import DataLoss, Unavailable
from perfuse.storage.blobs_directory import DirectoryBlobs
from perfuse.v1 import erasure_pb2
from perfuse.v1 import registry_pb2 as wire
from perfuse_registry.cached_blobs import MAX_SECONDS, CachedBlobs
from registry import samples
from registry.served import Tenant, refused

ACME = "acme"
PREVIEWS = samples.previews(samples.picture(1))


class Store(DirectoryBlobs):
    """A directory that counts readings, and has them wait while `open` is not set."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads = 0
        self.open = threading.Event()
        self.open.set()
        self.reading = threading.Event()
        self.fault: Exception | None = None

    def get(self, tenant: str, digest: str) -> bytes:
        self.reads += 1
        fault = self.fault
        try:
            return super().get(tenant, digest)
        finally:
            self.reading.set()
            assert self.open.wait(30)
            if fault is not None:
                raise fault


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def put(store: DirectoryBlobs, data: bytes, tenant: str = ACME) -> str:
    name = digest(data)
    store.put(tenant, name, data)
    return name


def meanwhile(store: Store, cached: CachedBlobs, name: str, act: Callable[[], object]) -> bytes:
    """What a reading gives during which, the store having been read, something else is done."""
    store.open.clear()
    store.reading.clear()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(cached.get, ACME, name)
        assert store.reading.wait(30)
        act()
        store.open.set()
        return answer.result()


class TestReading:
    def test_the_store_is_read_once(self, store: Store) -> None:
        cached = CachedBlobs(store, 100)
        name = put(store, b"tom")
        assert [cached.get(ACME, name) for _ in range(3)] == [b"tom"] * 3
        assert (store.reads, cached.hits, cached.misses) == (1, 2, 1)

    def test_each_tenant_has_its_own(self, store: Store) -> None:
        cached = CachedBlobs(store, 100)
        name = put(store, b"tom")
        cached.get(ACME, name)
        with pytest.raises(DataLoss):
            cached.get("rival", name)

    def test_zero_keeps_nothing(self, store: Store) -> None:
        cached = CachedBlobs(store, 0)
        name = put(store, b"tom")
        assert [cached.get(ACME, name) for _ in range(2)] == [b"tom"] * 2
        assert (store.reads, cached.count) == (2, 0)

    def test_of_many_at_once_one_reads(self, store: Store) -> None:
        cached = CachedBlobs(store, 100)
        name = put(store, b"tom")
        store.open.clear()
        with ThreadPoolExecutor(16) as pool:
            answers = [pool.submit(cached.get, ACME, name) for _ in range(16)]
            while cached.misses < 16:
                pass
            store.open.set()
            assert {answer.result() for answer in answers} == {b"tom"}
        assert store.reads == 1

    def test_what_the_store_refuses_is_refused_to_all_who_wait_and_not_kept(
        self, store: Store
    ) -> None:
        cached = CachedBlobs(store, 100)
        name = put(store, b"tom")
        store.open.clear()
        store.fault = Unavailable("away")
        with ThreadPoolExecutor(4) as pool:
            answers = [pool.submit(cached.get, ACME, name) for _ in range(4)]
            while cached.misses < 4:
                pass
            store.open.set()
            for answer in answers:
                with pytest.raises(Unavailable):
                    answer.result()
        assert store.reads == 1
        store.fault = None
        assert cached.get(ACME, name) == b"tom"

    def test_bytes_put_after_a_reading_began_are_found_by_who_comes_after_them(
        self, store: Store
    ) -> None:
        cached = CachedBlobs(store, 100)
        name = digest(b"tom")
        with ThreadPoolExecutor(1) as pool:

            def late() -> None:
                put(store, b"tom")
                answers.append(pool.submit(cached.get, ACME, name))
                while cached.misses < 2:
                    pass

            answers: list[object] = []
            with pytest.raises(DataLoss):
                meanwhile(store, cached, name, late)
            assert answers[0].result() == b"tom"  # type: ignore[attr-defined]


class TestKeeping:
    def test_there_is_never_more_than_may_be_and_what_is_given_is_right(self, store: Store) -> None:
        draw = random.Random(3)
        contents = {put(store, data): data for data in map(draw.randbytes, range(0, 200, 5))}
        cached = CachedBlobs(store, 300)
        for _ in range(500):
            name = draw.choice(list(contents))
            assert cached.get(ACME, name) == contents[name]
            assert 0 <= cached.size_bytes <= 300
            if draw.random() < 0.1:
                cached.forget(ACME, draw.choice(list(contents)))
        assert cached.hits > 0
        for name in contents:
            cached.forget(ACME, name)
        assert (cached.count, cached.size_bytes) == (0, 0)

    def test_the_longest_unread_go_first(self, store: Store) -> None:
        cached = CachedBlobs(store, 9)
        one, two, three, four = (put(store, data) for data in (b"one", b"two", b"thr", b"fou"))
        for name in (one, two, three, one, four, one, three, four):
            cached.get(ACME, name)
        assert store.reads == 4
        cached.get(ACME, two)
        assert store.reads == 5

    def test_what_is_larger_than_all_that_may_be_kept_pushes_nothing_out(
        self, store: Store
    ) -> None:
        cached = CachedBlobs(store, 5)
        small, large = put(store, b"small"), put(store, b"larger")
        for name in (small, large, small):
            cached.get(ACME, name)
        assert (store.reads, cached.count) == (2, 1)

    def test_bytes_that_rotted_in_memory_are_read_again(self, store: Store) -> None:
        cached = CachedBlobs(store, 100)
        name = put(store, b"t" + b"om" * 9)
        kept = cached.get(ACME, name)
        # The one object that is kept, its last byte turned where it lies.
        ctypes.memset(id(kept) + bytes.__basicsize__ - 1 + len(kept) - 1, 0, 1)
        assert cached.get(ACME, name) == b"t" + b"om" * 9
        assert store.reads == 2


class TestForgetting:
    def test_removed_bytes_are_gone_from_memory(self, store: Store) -> None:
        cached = CachedBlobs(store, 100)
        name = put(store, b"tom")
        cached.get(ACME, name)
        cached.delete(ACME, name)
        assert cached.count == 0
        with pytest.raises(DataLoss):
            cached.get(ACME, name)

    def test_a_reading_that_is_under_way_is_not_kept(self, store: Store) -> None:
        cached = CachedBlobs(store, 100)
        name = put(store, b"tom")
        assert meanwhile(store, cached, name, lambda: cached.delete(ACME, name)) == b"tom"
        assert cached.count == 0

    def test_nothing_is_kept_longer_than_its_time(self, store: Store) -> None:
        moment = 0.0
        cached = CachedBlobs(store, 100, lambda: moment)
        name = put(store, b"tom")
        cached.get(ACME, name)
        moment = MAX_SECONDS - 1
        cached.get(ACME, name)
        cached.expire()
        assert (store.reads, cached.count) == (1, 1)
        moment = MAX_SECONDS
        cached.expire()
        assert (cached.count, cached.size_bytes) == (0, 0)
        cached.get(ACME, name)
        moment = 2 * MAX_SECONDS
        # Also where nobody called it.
        cached.get(ACME, name)
        assert store.reads == 3


class TestThroughTheApi:
    @pytest.fixture
    def kept(self, acme: Tenant) -> wire.Version:
        """A version whose bytes are in memory."""
        acme.concept()
        made = acme.version()
        cached = acme.installation.registry.cached
        before = cached.count
        acme.bytes_of(made.name)
        assert cached.count == before + 1
        return made

    def test_a_deleted_version_is_gone_from_memory(self, acme: Tenant, kept: wire.Version) -> None:
        cached = acme.installation.registry.cached
        before = cached.count
        acme.call.DeleteVersion(wire.DeleteVersionRequest(name=kept.name))
        assert cached.count == before - 1
        with refused("NOT_FOUND"):
            acme.bytes_of(kept.name)

    def test_bytes_in_memory_are_nobody_s_to_read_without_the_row(
        self, acme: Tenant, rival: Tenant, kept: wire.Version
    ) -> None:
        with refused("NOT_FOUND"):
            rival.bytes_of(kept.name)
        acme.call.DeleteConcept(
            wire.DeleteConceptRequest(name=kept.name.partition("/versions/")[0], force=True)
        )
        with refused("FAILED_PRECONDITION", "CONCEPT_DELETED"):
            acme.bytes_of(kept.name)

    def test_an_erased_concept_s_bytes_are_gone_even_if_another_has_them(
        self, acme: Tenant, kept: wire.Version
    ) -> None:
        acme.concept("other")
        acme.version(concept_id="other")
        name = kept.name.partition("/versions/")[0]
        etag = acme.call.GetConcept(wire.GetConceptRequest(name=name)).etag
        cached = acme.installation.registry.cached
        before = cached.count
        acme.admin.EraseConcept(erasure_pb2.EraseConceptRequest(name=name, etag=etag))
        assert cached.count == before - 1

    def test_damage_in_the_store_is_found_by_looking_there(
        self, acme: Tenant, kept: wire.Version
    ) -> None:
        acme.installation.ground.store.delete(acme.id, kept.digest)
        answer = acme.installation.operator.VerifyIntegrity(
            wire.VerifyIntegrityRequest(tenant=acme.id)
        )
        assert [list(each.versions) for each in answer.damaged] == [[kept.name]]

    def test_previews_are_not_kept(self, acme: Tenant) -> None:
        acme.concept()
        sent = samples.upload(f"{acme.name}/concepts/tom", samples.adapter(1), previews=PREVIEWS)
        made = acme.call.CreateVersion(sent)
        cached = acme.installation.registry.cached
        before = cached.count
        for each in made.previews:
            asked = wire.DownloadPreviewRequest(name=made.name, digest=each.digest)
            assert digest(acme.call.DownloadPreview(asked).picture) == each.digest
        assert len(made.previews) == 1
        assert cached.count == before
