"""Upkeep: damage is found and named, garbage goes in two phases, what is referred to never."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from perfuse.adapter import digest
from perfuse.v1 import registry_pb2 as wire
from perfuse_registry.tables import ALIAS_MOVES, ALIASES, BLOBS, CONCEPTS, REQUESTS, VERSIONS
from registry import samples
from registry.served import OWN_BACKENDS, Installation, Tenant, installed, refused

NOTHING = wire.CollectGarbageResponse()


@contextmanager
def registry(backend: str, folder: Path, **durations: timedelta) -> Iterator[Installation]:
    """One that nothing else uses; bytes are garbage at once unless told otherwise."""
    times = {"garbage_grace": timedelta(0)} | durations
    with installed(backend, folder, **times) as installation:
        yield installation


def verify(installation: Installation, tenant: str = "") -> wire.VerifyIntegrityResponse:
    request = wire.VerifyIntegrityRequest(tenant=tenant)
    answer: wire.VerifyIntegrityResponse = installation.operator.VerifyIntegrity(request)
    return answer


def collect(installation: Installation, **fields: bool) -> wire.CollectGarbageResponse:
    request = wire.CollectGarbageRequest(**fields)
    done: wire.CollectGarbageResponse = installation.operator.CollectGarbage(request)
    return done


def key_of(tenant: Tenant, version: wire.Version) -> str:
    digits = version.digest.removeprefix("sha256:")
    return f"{tenant.id}/sha256/{digits[:2]}/{digits}"


def delete_version(tenant: Tenant, version: wire.Version) -> None:
    tenant.call.DeleteVersion(wire.DeleteVersionRequest(name=version.name))


def delete_concept(tenant: Tenant) -> None:
    name = f"{tenant.name}/concepts/tom"
    tenant.call.DeleteConcept(wire.DeleteConceptRequest(name=name, force=True))


def snapshot(installation: Installation, *tenants: Tenant) -> list[Any]:
    """All that a collection could change."""
    tables = (CONCEPTS, VERSIONS, ALIASES, ALIAS_MOVES, BLOBS, REQUESTS)
    rows = [installation.rows(table) for table in tables]
    return [*rows, *(installation.stored(tenant) for tenant in tenants)]


class TestIntegrity:
    def test_damage_is_found_and_every_version_named(self, backend: str, tmp_path: Path) -> None:
        with registry(backend, tmp_path) as installation:
            acme, rival = installation.tenant(), installation.tenant()
            for tenant in (acme, rival):
                tenant.concept()
                tenant.concept("tim")
                made = [tenant.version(seed) for seed in (1, 2, 3)]
                tenant.version(1, "tim")
            healthy = verify(installation)
            assert healthy == wire.VerifyIntegrityResponse(checked_count=6)

            # One byte flipped in what two of acme's versions have; rival's third is gone.
            flipped = bytearray(samples.adapter(1))
            flipped[len(flipped) // 2] ^= 0x10
            first = acme.call.GetVersion(
                wire.GetVersionRequest(name=f"{acme.name}/concepts/tim/versions/1")
            )
            installation.ground.overwrite(key_of(acme, first), bytes(flipped))
            installation.ground.store.delete(rival.id, made[2].digest)
            # What nobody refers to is no damage.
            stranger = samples.adapter(9)
            installation.ground.store.put(acme.id, digest(stranger), stranger)

            report = verify(installation)
            assert (report.checked_count, report.damaged_count) == (6, 2)
            assert (report.unreferenced_count, report.unreferenced_bytes) == (1, len(stranger))
            by_tenant = {damage.tenant: damage for damage in report.damaged}
            mine, theirs = by_tenant[acme.id], by_tenant[rival.id]
            assert mine.digest == first.digest
            assert list(mine.versions) == [
                f"{acme.name}/concepts/tim/versions/1",
                f"{acme.name}/concepts/tom/versions/1",
            ]
            assert digest(bytes(flipped)) in mine.problem
            assert list(theirs.versions) == [made[2].name]
            assert "not in the store" in theirs.problem

            for tenant, found in ((acme, mine), (rival, theirs)):
                report = verify(installation, tenant.id)
                assert (report.checked_count, list(report.damaged)) == (3, [found])
            assert verify(installation, "nobody") == wire.VerifyIntegrityResponse()
            assert verify(installation).damaged_count == 2  # to look is not to mend

    def test_any_change_is_found(self, backend: str, tmp_path: Path) -> None:
        with registry(backend, tmp_path) as installation:
            acme = installation.tenant()
            acme.concept()
            made = acme.version(1)
            data = samples.adapter(1)
            for changed in (data[:-1], data + b"\0", b"", samples.adapter(2)):
                installation.ground.overwrite(key_of(acme, made), changed)
                assert verify(installation).damaged_count == 1
                with refused("DATA_LOSS"):
                    acme.bytes_of(made.name)
            installation.ground.overwrite(key_of(acme, made), data)
            assert verify(installation).damaged_count == 0
            assert acme.bytes_of(made.name) == data


@pytest.fixture(scope="module", params=OWN_BACKENDS)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    durations = {"concept_retention": timedelta(0)}
    with registry(request.param, tmp_path_factory.mktemp("upkeep"), **durations) as installation:
        yield installation


@pytest.fixture
def clean(shared: Installation) -> Iterator[Installation]:
    """A Registry without garbage, left so; deleted concepts may be purged at once."""
    yield shared
    for _ in range(4):
        done = collect(shared)
    assert done == NOTHING


class TestGarbage:
    def test_bytes_go_in_two_phases(self, clean: Installation) -> None:
        acme = clean.tenant()
        acme.concept()
        kept, gone = acme.version(1), acme.version(2)
        size = gone.size_bytes
        assert collect(clean) == NOTHING
        delete_version(acme, gone)

        before = snapshot(clean, acme)
        planned = collect(clean, dry_run=True)
        assert planned == wire.CollectGarbageResponse(condemned_count=1)
        assert snapshot(clean, acme) == before

        assert collect(clean) == planned
        assert len(clean.stored(acme)) == 2  # condemned is not removed
        before = snapshot(clean, acme)
        planned = collect(clean, dry_run=True)
        assert planned == wire.CollectGarbageResponse(removed_count=1, removed_bytes=size)
        assert snapshot(clean, acme) == before

        assert collect(clean) == planned
        assert clean.stored(acme) == [kept.digest]
        assert [row.digest for row in clean.rows(BLOBS, tenant=acme.id)] == [kept.digest]
        assert collect(clean) == NOTHING
        assert acme.bytes_of(kept.name) == samples.adapter(1)
        assert verify(clean, acme.id) == wire.VerifyIntegrityResponse(checked_count=1)

    def test_within_the_grace_nothing_goes(self, backend: str, tmp_path: Path) -> None:
        with registry(backend, tmp_path, garbage_grace=timedelta(hours=1)) as installation:
            acme = installation.tenant()
            acme.concept()
            delete_version(acme, acme.version(1))
            for _ in range(3):
                assert collect(installation) == NOTHING
            assert len(installation.stored(acme)) == 1

    def test_bytes_that_another_version_has_stay(self, clean: Installation) -> None:
        acme, rival = clean.tenant(), clean.tenant()
        for tenant in (acme, rival):
            tenant.concept()
        gone, kept = acme.version(1), acme.version(1)
        theirs = rival.version(1)
        delete_version(acme, gone)
        delete_version(rival, theirs)
        for _ in range(3):
            collect(clean)
        assert clean.stored(acme) == [kept.digest]
        assert clean.stored(rival) == []  # the same bytes, but rival's own
        assert acme.bytes_of(kept.name) == samples.adapter(1)

    def test_condemned_bytes_that_come_back_are_spared(self, clean: Installation) -> None:
        acme = clean.tenant()
        acme.concept()
        delete_version(acme, acme.version(1))
        assert collect(clean).condemned_count == 1
        made = acme.version(1)
        for _ in range(3):
            done = collect(clean)
            assert (done.condemned_count, done.removed_count) == (0, 0)
        assert acme.bytes_of(made.name) == samples.adapter(1)

    def test_removed_bytes_can_come_back(self, clean: Installation) -> None:
        acme = clean.tenant()
        acme.concept()
        delete_version(acme, acme.version(1))
        assert [collect(clean).removed_count for _ in range(2)] == [0, 1]
        assert acme.bytes_of(acme.version(1).name) == samples.adapter(1)

    def test_bytes_without_a_row_go_too(self, clean: Installation) -> None:
        """As are left by a database that was restored from a backup."""
        acme = clean.tenant()
        data = samples.adapter(5)
        clean.ground.store.put(acme.id, digest(data), data)
        assert verify(clean, acme.id).unreferenced_count == 1
        removed = 0
        for _ in range(4):
            removed += collect(clean).removed_count
        assert removed == 1
        assert clean.stored(acme) == []

    def test_a_deleted_concept_is_purged_after_its_retention(self, clean: Installation) -> None:
        acme, rival = clean.tenant(), clean.tenant()
        for tenant in (acme, rival):
            tenant.concept()
            tenant.alias("prod", tenant.version(1))
        upload = samples.upload(
            f"{acme.name}/concepts/tom", samples.adapter(2), request_id=str(uuid4())
        )
        second = acme.call.CreateVersion(upload)
        delete_concept(acme)
        before = snapshot(clean, acme, rival)
        planned = collect(clean, dry_run=True)
        assert planned.purged_concept_count == 1
        assert snapshot(clean, acme, rival) == before

        done = collect(clean)
        assert (done.purged_concept_count, done.removed_count) == (1, 0)
        name = f"{acme.name}/concepts/tom"
        with refused("NOT_FOUND"):
            acme.call.GetConcept(wire.GetConceptRequest(name=name))
        with refused("NOT_FOUND"):
            acme.call.UndeleteConcept(wire.UndeleteConceptRequest(name=name))
        for _ in range(2):
            collect(clean)
        assert clean.stored(acme) == []
        for table in (CONCEPTS, VERSIONS, BLOBS):
            assert clean.rows(table, tenant=acme.id) == []
        # What was answered is answered so still, and the name is free for another.
        assert acme.call.CreateVersion(upload) == second
        acme.concept()
        assert acme.version(3).name.endswith("/versions/1")
        # Nobody else noticed.
        assert rival.bytes_of(f"{rival.name}/concepts/tom/versions/prod") == samples.adapter(1)

    def test_a_concept_within_its_retention_is_not_purged(
        self, backend: str, tmp_path: Path
    ) -> None:
        with registry(backend, tmp_path, concept_retention=timedelta(days=1)) as installation:
            acme = installation.tenant()
            acme.concept()
            made = acme.version(1)
            delete_concept(acme)
            for _ in range(3):
                assert collect(installation) == NOTHING
            name = f"{acme.name}/concepts/tom"
            acme.call.UndeleteConcept(wire.UndeleteConceptRequest(name=name))
            assert acme.bytes_of(made.name) == samples.adapter(1)

    def test_request_ids_are_forgotten_after_their_time(self, backend: str, tmp_path: Path) -> None:
        with registry(backend, tmp_path, request_retention=timedelta(0)) as installation:
            acme = installation.tenant()
            acme.concept()
            upload = samples.upload(
                f"{acme.name}/concepts/tom", samples.adapter(2), request_id=str(uuid4())
            )
            for _ in range(2):
                assert acme.call.CreateVersion(upload).name.endswith("/versions/1")
            for fields in ({"dry_run": True}, {}):
                assert collect(installation, **fields).expired_request_count == 1
            assert collect(installation).expired_request_count == 0
            assert acme.call.CreateVersion(upload).name.endswith("/versions/2")


class TestOutage:
    @contextmanager
    def away(self, installation: Installation) -> Iterator[None]:
        """The store is gone for a while: its directory moved, its bucket deleted."""
        ground = installation.ground
        if ground.root is not None:
            elsewhere = ground.root.with_name("elsewhere")
            ground.root.rename(elsewhere)
            yield
            elsewhere.rename(ground.root)
            return
        assert ground.bucket is not None
        client = ground.bucket.client()
        client.remove_bucket(ground.bucket.bucket)
        yield
        client.make_bucket(ground.bucket.bucket)

    def test_a_store_that_is_away_takes_nothing_until_it_is_back(
        self, backend: str, tmp_path: Path
    ) -> None:
        with registry(backend, tmp_path) as installation, ExitStack() as outage:
            acme = installation.tenant()
            acme.concept()
            request = samples.upload(
                f"{acme.name}/concepts/tom", samples.adapter(), request_id=str(uuid4())
            )
            outage.enter_context(self.away(installation))
            with refused("UNAVAILABLE"):
                acme.call.CreateVersion(request)
            for table in (VERSIONS, REQUESTS):
                assert installation.rows(table, tenant=acme.id) == []
            with refused("UNAVAILABLE"):
                collect(installation)
            acme.concept("tim")  # what needs no bytes goes on
            outage.close()
            assert acme.call.CreateVersion(request).name.endswith("/versions/1")
            assert acme.bytes_of(f"{acme.name}/concepts/tom/versions/latest") == samples.adapter()
