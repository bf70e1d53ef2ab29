"""Uploads that outlast their lease, and collections that come at the worst moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import insert, select

from perfuse.adapter import digest
from perfuse.errors import NotFound, Unavailable
from perfuse.names import ConceptName
from perfuse.storage.blobs_directory import DirectoryBlobs
from perfuse.storage.database import Database
from perfuse.storage.listing import Query
from perfuse.storage.requests import Mutation
from perfuse_registry import failpoints
from perfuse_registry.catalog.resources import Version
from perfuse_registry.registry import Registry
from perfuse_registry.tables import BASE_MODELS, BLOBS, CONCEPTS, LEASES, VERSIONS
from registry.processes import PAIRS, TENANT, Place, fresh_place, furnish
from registry.samples import adapter

TOM = ConceptName(TENANT, "tom")
ME = Mutation(TENANT, "tester")
DATA = adapter(1)
DIGEST = digest(DATA)


@pytest.fixture(params=PAIRS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with fresh_place(request.param, tmp_path) as place:
        with place.registry() as registry:
            furnish(registry, "tom")
        yield place


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


class Interrupted:
    """A store with something in the way: before it gives bytes, after it took them."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.before_get: Callable[[], object] = lambda: None
        self.after_put: Callable[[], object] = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, tenant: str, digest: str) -> bytes:
        self.before_get()
        data: bytes = self._store.get(tenant, digest)
        return data

    def put(self, tenant: str, digest: str, data: bytes) -> None:
        self._store.put(tenant, digest, data)
        self.after_put()


def create(registry: Registry, data: bytes = DATA) -> Version:
    # On PostgreSQL by one statement, and where that did nothing by the transaction of several.
    mutation = replace(ME, request_id=str(uuid4()))
    return registry.versions.create(mutation, TOM, data, digest(data))


def versions(registry: Registry) -> list[Version]:
    """All of them, each with its bytes."""
    found = registry.versions.list(TENANT, TOM, Query()).items
    for version in found:
        _, data = registry.versions.download(TENANT, version.name, "")
        assert data is not None
        assert digest(data) == version.digest
    return found


def settle(place: Place) -> None:
    """Nothing is left in store and tables that no version refers to, and nothing is missing."""
    with place.registry() as registry:
        for _ in range(2):
            registry.garbage.collect()
        kept = {version.digest for version in versions(registry)}
        assert {blob.digest for blob in place.store().listing()} == kept
        assert {row.digest for row in place.rows(BLOBS)} == kept
        assert place.rows(LEASES) == []
        report = registry.integrity.verify()
        assert (report.checked, report.damaged_count, report.unreferenced) == (len(kept), 0, 0)


class TestAnUploadThatOutlastsItsLease:
    """Its lease is over before its bytes are stored, and a collection finds them unreferred to."""

    def outlasting(self, place: Place, meanwhile: Callable[[Registry], object]) -> None:
        store: Any = Interrupted(place.store())
        with (
            place.registry() as other,
            place.registry(store=store, lease=timedelta(0)) as registry,
        ):
            store.after_put = lambda: meanwhile(other)
            with pytest.raises(Unavailable, match="lease") as caught:
                create(registry)
            assert caught.value.retry_after is not None
            assert versions(registry) == []
            store.after_put = lambda: None
            assert create(registry).number == 1
        settle(place)

    def test_it_is_refused_once_its_bytes_were_condemned(self, place: Place) -> None:
        self.outlasting(place, lambda other: other.garbage.collect())

    def test_it_is_refused_once_its_bytes_are_gone(self, place: Place) -> None:
        def meanwhile(other: Registry) -> None:
            for _ in range(2):
                other.garbage.collect()
            assert list(place.store().listing()) == []

        self.outlasting(place, meanwhile)

    def test_it_is_refused_where_a_collection_died_between_bytes_and_row(
        self, place: Place
    ) -> None:
        def meanwhile(other: Registry) -> None:
            other.garbage.collect()
            failpoints.arm("garbage.removed=raise")
            with pytest.raises(failpoints.Reached):
                other.garbage.collect()
            assert list(place.store().listing()) == []

        self.outlasting(place, meanwhile)

    def test_another_upload_of_the_same_bytes_that_died_does_not_let_it_in(
        self, place: Place
    ) -> None:
        def meanwhile(other: Registry) -> None:
            other.garbage.collect()
            failpoints.arm("garbage.removed=raise")
            with pytest.raises(failpoints.Reached):
                other.garbage.collect()
            failpoints.arm("version.leased=raise")
            with pytest.raises(failpoints.Reached):
                create(other)

        self.outlasting(place, meanwhile)

    def test_without_a_collection_its_lateness_does_no_harm(self, place: Place) -> None:
        with place.registry(lease=timedelta(0)) as registry:
            assert create(registry).number == 1
        settle(place)


class TestACollectionThatWaits:
    @pytest.mark.parametrize("phase", ["condemn", "remove"])
    def test_it_looks_again_when_its_wait_is_over(self, tmp_path: Path, phase: str) -> None:
        """On PostgreSQL a statement that waited for a lock answers from before its wait."""
        with (
            fresh_place("postgresql+s3", tmp_path) as place,
            place.registry() as registry,
            place.registry() as collecting,
        ):
            furnish(registry, "tom")
            registry.versions.delete(ME, create(registry).name, "")
            if phase == "remove":
                registry.garbage.collect()
            thread = threading.Thread(target=collecting.garbage.collect)
            database = Database(place.url)
            values = {
                "concept": select(CONCEPTS.c.id).scalar_subquery(),
                "base_model": select(BASE_MODELS.c.id).scalar_subquery(),
                "number": 2,
                "tenant": TENANT,
                "digest": DIGEST,
                "size_bytes": len(DATA),
                "uid": "u",
                "key_lock": "LOCAL",
                "placeholder": "tom",
                "revision": 1,
                "super_category": "cat",
                "bias": 0.7,
                "temperature": 0.1,
                "training": {},
                "training_run": "",
                "description": "",
                "labels": {},
                **dict.fromkeys(("create_time", "update_time"), place.rows(BLOBS)[0].touch_time),
            }
            with database.engine.begin() as connection:
                connection.execute(insert(VERSIONS).values(**values))
                thread.start()
                thread.join(0.5)
                assert thread.is_alive()
            thread.join()
            database.close()
            assert place.store().get(TENANT, DIGEST) == DATA
            assert place.rows(BLOBS)[0].condemn_time is None


class TestACollectionInTheMidst:
    def test_it_leaves_a_file_that_is_being_written(self, tmp_path: Path) -> None:
        with (
            fresh_place("sqlite+directory", tmp_path) as place,
            place.registry() as other,
        ):
            furnish(other, "tom")

            def collect(point: str) -> None:
                other.garbage.collect()

            stored = DirectoryBlobs(tmp_path / "blobs", reach=collect)
            with place.registry(store=stored) as registry:
                assert create(registry).number == 1
            settle(place)

    def test_a_download_of_what_was_deleted_meanwhile_is_no_data_loss(self, place: Place) -> None:
        store: Any = Interrupted(place.store())
        with place.registry() as other, place.registry(store=store) as registry:
            name = create(registry).name

            def meanwhile() -> None:
                other.versions.delete(ME, name, "")
                for _ in range(2):
                    other.garbage.collect()

            store.before_get = meanwhile
            with pytest.raises(NotFound):
                registry.versions.download(TENANT, name, "")
        settle(place)
