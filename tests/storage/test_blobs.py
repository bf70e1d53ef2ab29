"""What every store of blobs promises, on each kind of store."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perfuse.adapter import digest
from perfuse.adapter.limits import MAX_FILE_BYTES
from perfuse.errors import DataLoss, DigestMismatch, InvalidArgument
from perfuse.storage.blobs import BlobStore, key_of, parse_key
from storage.stores import KINDS, Ground, fresh_store

BYTES = b"an adapter's bytes"
DIGEST = digest(BYTES)
FAR = datetime(9999, 1, 1, tzinfo=UTC)


@pytest.fixture(params=KINDS)
def ground(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    with fresh_store(request.param, tmp_path) as ground:
        yield ground


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def digests(store: BlobStore, tenant: str) -> list[str]:
    return [blob.digest for blob in store.listing(tenant)]


class TestBytes:
    @given(data=st.binary(max_size=3000))
    @settings(
        max_examples=15,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    def test_what_was_put_is_got(self, ground: Ground, data: bytes) -> None:
        ground.store.put(ground.tenant, digest(data), data)
        assert ground.store.get(ground.tenant, digest(data)) == data
        assert ground.store.stat(ground.tenant, digest(data)) == len(data)

    def test_the_largest_adapter_fits_and_nothing_larger(self, ground: Ground) -> None:
        largest = random.Random(1).randbytes(MAX_FILE_BYTES)
        ground.store.put(ground.tenant, digest(largest), largest)
        assert ground.store.get(ground.tenant, digest(largest)) == largest
        larger = largest + b"x"
        with pytest.raises(InvalidArgument, match=str(MAX_FILE_BYTES)):
            ground.store.put(ground.tenant, digest(larger), larger)
        assert digests(ground.store, ground.tenant) == [digest(largest)]

    def test_bytes_of_another_digest_are_refused(self, ground: Ground) -> None:
        with pytest.raises(DigestMismatch, match=f"{digest(b'others')}, not {DIGEST}"):
            ground.store.put(ground.tenant, DIGEST, b"others")
        assert ground.store.stat(ground.tenant, DIGEST) is None

    @pytest.mark.parametrize("at", [0, len(BYTES) // 2, len(BYTES) - 1])
    def test_a_flipped_bit_is_data_loss_until_put_again(self, ground: Ground, at: int) -> None:
        ground.store.put(ground.tenant, DIGEST, BYTES)
        ground.overwrite(key_of(ground.tenant, DIGEST), flipped(BYTES, at))
        for _ in range(2):
            with pytest.raises(DataLoss, match=f"{DIGEST}.*restore from backup"):
                ground.store.get(ground.tenant, DIGEST)
        ground.store.put(ground.tenant, DIGEST, BYTES)
        assert ground.store.get(ground.tenant, DIGEST) == BYTES

    @pytest.mark.parametrize("size", [0, len(BYTES) - 1, MAX_FILE_BYTES + 1, MAX_FILE_BYTES * 2])
    def test_another_size_is_data_loss(self, ground: Ground, size: int) -> None:
        ground.overwrite(key_of(ground.tenant, DIGEST), (BYTES + bytes(size))[:size])
        with pytest.raises(DataLoss, match=DIGEST):
            ground.store.get(ground.tenant, DIGEST)
        assert ground.store.stat(ground.tenant, DIGEST) == size

    def test_missing_bytes_are_data_loss_that_names_no_tenant(self, ground: Ground) -> None:
        assert ground.store.stat(ground.tenant, DIGEST) is None
        with pytest.raises(DataLoss, match=f"{DIGEST}.*restore from backup") as caught:
            ground.store.get(ground.tenant, DIGEST)
        assert ground.tenant not in str(caught.value)

    def test_another_tenant_has_nothing_of_it(self, ground: Ground) -> None:
        other = ground.tenant + "-other"
        ground.store.put(ground.tenant, DIGEST, BYTES)
        assert ground.store.stat(other, DIGEST) is None
        with pytest.raises(DataLoss):
            ground.store.get(other, DIGEST)
        ground.store.delete(other, DIGEST)
        assert digests(ground.store, other) == []
        assert ground.store.get(ground.tenant, DIGEST) == BYTES

    def test_put_and_delete_may_be_repeated(self, ground: Ground) -> None:
        for _ in range(2):
            ground.store.put(ground.tenant, DIGEST, BYTES)
            assert digests(ground.store, ground.tenant) == [DIGEST]
        for _ in range(2):
            ground.store.delete(ground.tenant, DIGEST)
            assert ground.store.stat(ground.tenant, DIGEST) is None
            assert digests(ground.store, ground.tenant) == []
        ground.store.put(ground.tenant, DIGEST, BYTES)
        assert ground.store.get(ground.tenant, DIGEST) == BYTES

    def test_many_threads_put_the_same_and_others(self, ground: Ground) -> None:
        contents = [b"%d" % (turn % 5) * 1000 for turn in range(40)]
        with ThreadPoolExecutor(8) as pool:
            list(
                pool.map(lambda data: ground.store.put(ground.tenant, digest(data), data), contents)
            )
            read = pool.map(lambda data: ground.store.get(ground.tenant, digest(data)), contents)
            assert list(read) == contents
        assert digests(ground.store, ground.tenant) == sorted({digest(data) for data in contents})


class TestNames:
    @pytest.mark.parametrize(
        "tenant",
        ["", ".", "..", "../t", "t/..", "t/u", "/t", "T", "1t", "t-", "-t", "_incoming",
         "_self-test", "t\n", "t\0", "t.u", "t%2f", "ť", "t" * 64],
    )  # fmt: skip
    def test_what_is_no_tenant_is_refused(self, ground: Ground, tenant: str) -> None:
        with pytest.raises(InvalidArgument, match="tenant"):
            ground.store.listing(tenant)
        self.refused(ground, tenant, DIGEST)

    @pytest.mark.parametrize(
        "text",
        ["", "sha256:", DIGEST[7:], DIGEST.upper(), DIGEST[:-1], DIGEST + "0", DIGEST + "\n",
         "sha512:" + DIGEST[7:], "sha256:" + "../" * 21 + "a", "sha256:" + DIGEST[7:-1] + "٣"],
    )  # fmt: skip
    def test_what_is_no_digest_is_refused(self, ground: Ground, text: str) -> None:
        self.refused(ground, ground.tenant, text)

    @staticmethod
    def refused(ground: Ground, tenant: str, text: str) -> None:
        for call in (ground.store.get, ground.store.stat, ground.store.delete):
            with pytest.raises(InvalidArgument):
                call(tenant, text)
        with pytest.raises(InvalidArgument) as caught:
            ground.store.put(tenant, text, BYTES)
        assert not isinstance(caught.value, DigestMismatch)
        if ground.root is not None:
            assert os.listdir(ground.root.parent) == ["blobs"]
            assert os.listdir(ground.root) == []

    @given(tenant=st.from_regex("[a-z0-9./-]{0,5}", fullmatch=True), data=st.binary(max_size=4))
    @settings(max_examples=200, deadline=None, derandomize=True)
    def test_a_key_has_four_parts_and_leads_back(self, tenant: str, data: bytes) -> None:
        try:
            key = key_of(tenant, digest(data))
        except InvalidArgument:
            assert not re.fullmatch("[a-z]|[a-z][a-z0-9-]*[a-z0-9]", tenant)
        else:
            assert key.split("/") == [tenant, "sha256", digest(data)[7:9], digest(data)[7:]]
            assert parse_key(key) == (tenant, digest(data))

    @pytest.mark.parametrize(
        "key",
        ["", "t", f"t/sha256/{DIGEST[7:]}", f"t/sha256/00/{DIGEST[7:]}",
         f"t/sha256/../{DIGEST[7:]}", f"T/sha256/{DIGEST[7:9]}/{DIGEST[7:]}",
         f"t/sha256/{DIGEST[7:9]}/{DIGEST[7:]}\n"],
    )  # fmt: skip
    def test_other_keys_are_no_blobs(self, key: str) -> None:
        assert not DIGEST[7:].startswith("00")
        assert parse_key(key) is None


class TestListing:
    def test_keys_come_in_order_and_a_listing_goes_on_behind_any(self, ground: Ground) -> None:
        # As keys, "t-b/" comes before "t/", which comes before "t0/".
        tenants = [ground.tenant, ground.tenant + "-b", ground.tenant + "0"]
        contents = [b"%d" % turn for turn in range(12)]
        start = datetime.now(UTC)
        for tenant in tenants:
            for data in contents:
                ground.store.put(tenant, digest(data), data)

        mine = [b for b in ground.store.listing() if b.tenant.startswith(ground.tenant)]
        keys = [blob.key for blob in mine]
        assert keys == sorted(key_of(t, digest(data)) for t in tenants for data in contents)
        assert [blob.size for blob in mine] == [
            len(ground.store.get(b.tenant, b.digest)) for b in mine
        ]
        for blob in mine:
            # A store gives whole seconds, by a clock of its own.
            assert abs(blob.modified - start) < timedelta(minutes=5)
            assert blob.modified.utcoffset() == timedelta(0)
        for tenant in tenants:
            assert [b.key for b in ground.store.listing(tenant)] == [
                key for key in keys if key.startswith(tenant + "/")
            ]
        for place in (0, 5, 11, 12, 20, 35):
            after = keys[place]
            behind = [b.key for b in ground.store.listing(after=after) if b.key in keys]
            assert behind == keys[place + 1 :]
            assert [b.key for b in ground.store.listing(tenants[0], after)] == [
                key for key in behind if key.startswith(tenants[0] + "/")
            ]

    def test_a_deleted_key_still_marks_a_place(self, ground: Ground) -> None:
        for data in (b"1", b"2", b"3"):
            ground.store.put(ground.tenant, digest(data), data)
        first, second, third = ground.store.listing(ground.tenant)
        ground.store.delete(ground.tenant, second.digest)
        assert list(ground.store.listing(ground.tenant, second.key)) == [third]
        assert list(ground.store.listing(ground.tenant)) == [first, third]

    @pytest.mark.parametrize("after", ["", "t", DIGEST, f"../sha256/{DIGEST[7:9]}/{DIGEST[7:]}"])
    def test_only_a_key_marks_a_place(self, ground: Ground, after: str) -> None:
        with pytest.raises(InvalidArgument, match="after"):
            ground.store.listing(after=after)


class TestStrays:
    def test_foreign_files_are_told_apart_and_left_alone(self, ground: Ground) -> None:
        tenant, digits = ground.tenant, DIGEST[7:]
        ground.store.put(tenant, DIGEST, BYTES)
        foreign = {
            f"{tenant}/notes.txt",
            f"{tenant}/sha256/{digits[:2]}/{digits}.old",
            f"{tenant}/sha256/{digits[:2]}/{digits.upper()}",
            f"{tenant}/sha256/ff/{digits}",
            f"{tenant.upper()}/sha256/{digits[:2]}/{digits}",
        }
        for key in foreign:
            ground.overwrite(key, BYTES)
        assert digests(ground.store, tenant) == [DIGEST]
        assert DIGEST in {blob.digest for blob in ground.store.listing()}
        strays = [entry for entry in ground.store.strays() if tenant in entry.key.lower()]
        assert {entry.key for entry in strays} == foreign
        assert {entry.size for entry in strays} == {len(BYTES)}
        ground.store.sweep_strays(FAR)
        assert {entry.key for entry in ground.store.strays()} >= foreign

    def test_what_a_dead_self_test_left_is_swept_in_time(self, ground: Ground) -> None:
        left = f"_self-test/sha256/{DIGEST[7:9]}/{DIGEST[7:]}"
        ground.overwrite(left, BYTES)
        assert left in {entry.key for entry in ground.store.strays()}
        assert ground.store.sweep_strays(datetime.now(UTC) - timedelta(hours=1)) == 0
        assert ground.store.sweep_strays(FAR) == 1
        assert left not in {entry.key for entry in ground.store.strays()}

    def test_a_time_without_zone_is_refused(self, ground: Ground) -> None:
        with pytest.raises(InvalidArgument, match="time zone"):
            ground.store.sweep_strays(datetime(2026, 1, 1))


class TestReadiness:
    def test_a_good_store_passes_and_keeps_nothing(self, ground: Ground) -> None:
        ground.store.check()
        ground.store.self_test()
        assert not [e for e in ground.store.strays() if e.key.startswith("_") and e.plain]
        assert digests(ground.store, ground.tenant) == []
