"""Uploads, deletions and collections together, for seconds or hours, over a store that dawdles.

Nothing waits for anything: no grace, leases that some uploads outlast, few adapters that are made
and deleted over and over, so that each is being collected while it is uploaded again. Whatever was
answered must be true at the end.

`PERFUSE_TEST_SOAK_SECONDS` sets how long each pair of a database and a store is soaked; what
happened is printed at the end (`pytest -s`).
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from perfuse.adapter import digest
from perfuse.errors import Aborted, NotFound, Unavailable
from perfuse.names import ConceptName, VersionName
from perfuse.storage.requests import Mutation
from perfuse_registry.registry import Registry
from perfuse_registry.tables import BLOBS, CONCEPTS, LEASES, VERSIONS
from registry.processes import PAIRS, TENANT, Place, fresh_place, furnish
from registry.samples import adapter

SECONDS = float(os.environ.get("PERFUSE_TEST_SOAK_SECONDS", "8"))
PATIENCE = 60.0
ENOUGH = ("made", "deleted", "collections", "removed", "read")
"""Of what half as many are done as there are seconds; else it was no soak."""
LEASE = timedelta(milliseconds=60)
CONCEPTS_KEPT = tuple(ConceptName(TENANT, concept) for concept in ("tom", "tim"))
POOL = {digest(data): data for data in map(adapter, range(10))}
ME = Mutation(TENANT, "tester")


class Dawdling:
    """A store that now and then takes its time, or does what it should and then fails to say so."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, tenant: str, digest: str, data: bytes) -> None:
        dawdle()
        self._store.put(tenant, digest, data)
        # Sometimes for so long that several collections come by.
        dawdle(1.0 if random.random() < 0.2 else 0.06)
        fail(0.03)

    def delete(self, tenant: str, digest: str) -> None:
        dawdle()
        self._store.delete(tenant, digest)
        fail(0.3)
        dawdle()


def dawdle(most: float = 0.06) -> None:
    if random.random() < 0.3:
        time.sleep(random.uniform(0, most))


def fail(chance: float) -> None:
    if random.random() < chance:
        raise Unavailable("the answer got lost")


class Soak:
    """What is done at once, and what must be true of it.

    Attributes:
        counts: What happened how often.
        live: Every version that was made and not given to a deletion, with its digest.
        given: How many numbers of a concept were answered.
        faults: What must not have happened.
    """

    def __init__(self, registry: Registry) -> None:
        self.counts: Counter[str] = Counter()
        self.live: dict[VersionName, str] = {}
        self.given: Counter[str] = Counter()
        self.faults: list[BaseException] = []
        self._registry = registry
        self._lock = threading.Lock()
        self._until = time.monotonic() + SECONDS

    def run(self, *works: Callable[[], None]) -> None:
        """Each work over and over on a thread of its own, until the time is over; where the machine
        is busy with other things, until enough was done."""

        def repeat(work: Callable[[], None]) -> None:
            while not self.faults and (time.monotonic() < self._until or self._is_short()):
                try:
                    work()
                except BaseException as error:
                    self.faults.append(error)

        threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _is_short(self) -> bool:
        few = any(self.counts[what] < SECONDS / 2 for what in ENOUGH)
        return few and time.monotonic() < self._until + PATIENCE

    def make(self) -> None:
        """A version in one of the kept concepts."""
        concept = random.choice(CONCEPTS_KEPT)
        made = self._make(concept)
        if made is not None:
            with self._lock:
                self.live[made[0]] = made[1]
                self.given[concept.concept] += 1

    def delete(self) -> None:
        """Delete a version; enough are left for readers."""
        with self._lock:
            name = random.choice(list(self.live)) if len(self.live) > 3 else None
            if name is not None:
                del self.live[name]
        if name is None:
            time.sleep(0.001)
            return
        self._registry.versions.delete(ME, name, "")
        self.counts["deleted"] += 1

    def read(self) -> None:
        """Read a version that lives, or was deleted since it was chosen."""
        with self._lock:
            if not self.live:
                return
            name, wanted = random.choice(list(self.live.items()))
        try:
            _, data = self._registry.versions.download(TENANT, name, "")
        except NotFound:
            with self._lock:
                assert name not in self.live
            self.counts["read too late"] += 1
            return
        assert data is not None
        assert digest(data) == wanted
        self.counts["read"] += 1
        time.sleep(0.002)  # Or it would leave little of the machine to the others.

    def collect(self) -> None:
        """A collection, which may meet another."""
        try:
            done = self._registry.garbage.collect()
        except (Aborted, Unavailable):
            self.counts["collections given up"] += 1
            return
        self.counts["collections"] += 1
        self.counts["condemned"] += done.condemned
        self.counts["removed"] += done.removed
        self.counts["spared"] += done.spared
        self.counts["purged concepts"] += done.purged_concepts

    def purge(self) -> None:
        """A concept that is made, filled, and deleted with all that it has."""
        name = ConceptName(TENANT, f"brief-{self.counts['brief concepts']}")
        self._registry.concepts.create(ME, name, super_category="cat")
        self.counts["brief concepts"] += 1
        for _ in range(2):
            self._make(name)
        self._registry.concepts.delete(ME, name, "", force=True)

    def _make(self, concept: ConceptName) -> tuple[VersionName, str] | None:
        key = random.choice(list(POOL))
        try:
            # With an id by one statement, where the database can.
            mutation = replace(ME, request_id=random.choice(("", str(uuid4()))))
            made = self._registry.versions.create(mutation, concept, POOL[key], key)
        except Unavailable as refusal:
            if "lease" in str(refusal):
                self.counts["outlasted their lease"] += 1
            elif "answer" in str(refusal):
                self.counts["answers lost"] += 1
            else:
                raise
            return None
        self.counts["made"] += 1
        return made.name, key


@pytest.mark.timeout(SECONDS * 4 + 120)
@pytest.mark.parametrize("pair", PAIRS)
def test_nothing_is_lost_and_nothing_is_left(pair: str, tmp_path: Path) -> None:
    with fresh_place(pair, tmp_path) as place:
        store: Any = Dawdling(place.store())
        # Bytes in memory would hide that the store has lost them.
        with place.registry(store=store, cache_bytes=0, lease=LEASE) as registry:
            furnish(registry, *(name.concept for name in CONCEPTS_KEPT))
            soak = Soak(registry)
            soak.run(
                *[soak.make] * 4, *[soak.delete] * 3, *[soak.collect] * 2, soak.read, soak.purge
            )
        print(f"\n{pair}, {SECONDS:g} s: {dict(sorted(soak.counts.items()))}")
        if soak.faults:
            raise soak.faults[0]
        # It was a soak.
        for what in ENOUGH:
            assert soak.counts[what] >= SECONDS / 2, what
        check_the_end(place, soak)


def check_the_end(place: Place, soak: Soak) -> None:
    time.sleep(LEASE.total_seconds())
    with place.registry(lease=LEASE) as registry:
        rows = place.rows(VERSIONS)
        concepts = {row.id: row for row in place.rows(CONCEPTS)}
        found = {
            ConceptName(TENANT, concepts[row.concept].concept_id).version(row.number): row.digest
            for row in rows
            if concepts[row.concept].delete_time is None
        }
        assert found == soak.live
        for name, wanted in soak.live.items():
            _, data = registry.versions.download(TENANT, name, "")
            assert data == POOL[wanted]
        # Every number that was given out was answered, and none was given twice.
        for row in concepts.values():
            if row.delete_time is None:
                assert row.next_number - 1 == soak.given[row.concept_id]
        for _ in range(2):
            registry.garbage.collect()
        report = registry.integrity.verify()
    kept = set(soak.live.values())
    assert {blob.digest for blob in place.store().listing()} == kept
    assert {row.digest for row in place.rows(BLOBS)} == kept
    assert place.rows(LEASES) == []
    assert (report.checked, report.damaged_count, report.unreferenced) == (len(kept), 0, 0)
