"""What tenants may keep: counted exactly, whoever races, and free again when it is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from perfuse.quotas import Quotas
from perfuse.v1 import registry_pb2 as wire
from perfuse_registry.tables import CONCEPTS, VERSIONS
from registry import samples
from registry.served import Installation, Refusal, Tenant, installed, refused

SIZE = len(samples.adapter(0))
SMALL = {"concepts": 3, "bytes": 2 * SIZE}


class Limited:
    """An installation whose tenants have these limits unless told otherwise."""

    def __init__(self, installation: Installation, file: Path) -> None:
        self.installation, self._file = installation, file

    def tenant(self, **limits: float) -> Tenant:
        made = self.installation.tenant()
        with self._file.open("a") as file:
            for quota, limit in (SMALL | limits).items():
                file.write(f"tenants.{made.id}.{quota} = {limit}\n")
        return made


@pytest.fixture(scope="module", params=["sqlite+directory", "postgresql+s3"])
def limited(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Limited]:
    file = tmp_path_factory.mktemp("quotas") / "quotas.toml"
    file.touch()
    folder = tmp_path_factory.mktemp("store")
    with installed(
        request.param, folder, quotas=Quotas(file), concept_retention=timedelta(0)
    ) as installation:
        yield Limited(installation, file)


def usage(tenant: Tenant) -> dict[str, tuple[float, float]]:
    answer = tenant.call.GetStorageUsage(wire.GetStorageUsageRequest(name=tenant.name))
    assert all(each.HasField("limit") for each in answer.quotas)
    return {each.quota: (each.used, each.limit) for each in answer.quotas}


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """All of them at the same time; what each returned, or was refused with."""
    results: list[Any] = [None] * len(works)
    barrier = threading.Barrier(len(works))

    def work(index: int) -> None:
        barrier.wait()
        try:
            results[index] = works[index]()
        except Refusal as refusal:
            results[index] = refusal

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def delete(tenant: Tenant, concept_id: str, *, force: bool = False) -> None:
    name = f"{tenant.name}/concepts/{concept_id}"
    tenant.call.DeleteConcept(wire.DeleteConceptRequest(name=name, force=force))


class TestConcepts:
    def test_one_more_than_may_be_is_refused_and_says_why(self, limited: Limited) -> None:
        acme = limited.tenant()
        for concept_id in ("a", "b", "c"):
            acme.concept(concept_id)
        with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED") as caught:
            acme.concept("d")
        (violation,) = caught.value.details["QuotaFailure"].violations
        assert violation.subject == acme.name
        assert (violation.quota_metric, violation.quota_value) == ("concepts", 3)
        assert "RetryInfo" not in caught.value.details, "time alone does not mend it"
        assert usage(acme)["concepts"] == (3, 3)
        # What is there already is told as such, full or not.
        with refused("ALREADY_EXISTS"):
            acme.concept("a")

    def test_a_deletion_frees_and_an_undeletion_takes(self, limited: Limited) -> None:
        acme = limited.tenant(concepts=1)
        acme.concept("a")
        delete(acme, "a")
        assert usage(acme)["concepts"] == (0, 1)
        acme.concept("b")
        again = wire.UndeleteConceptRequest(name=f"{acme.name}/concepts/a")
        with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"):
            acme.call.UndeleteConcept(again)
        delete(acme, "b")
        acme.call.UndeleteConcept(again)
        assert usage(acme)["concepts"] == (1, 1)

    def test_of_many_that_want_the_last_place_one_gets_it(self, limited: Limited) -> None:
        acme = limited.tenant()
        acme.concept("first")
        acme.concept("second")
        results = at_once(*(lambda name=f"c{index}": acme.concept(name) for index in range(6)))
        made = [result for result in results if isinstance(result, wire.Concept)]
        assert len(made) == 1
        assert all(result.reason == "QUOTA_EXCEEDED" for result in results if result is not made[0])
        assert usage(acme)["concepts"] == (3, 3)

    def test_a_repeated_request_is_not_counted_twice(self, limited: Limited) -> None:
        acme = limited.tenant(concepts=1)
        request = wire.CreateConceptRequest(
            parent=acme.name,
            concept_id="a",
            concept=wire.Concept(super_category="cat"),
            request_id="8b8f2f9e-52bb-4a34-8d5c-2a2f3a3c8d22",
        )
        made = acme.call.CreateConcept(request)
        assert acme.call.CreateConcept(request) == made
        assert usage(acme)["concepts"] == (1, 1)

    def test_none_may_be_none(self, limited: Limited) -> None:
        acme = limited.tenant(concepts=0)
        with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"):
            acme.concept("a")
        assert usage(acme)["concepts"] == (0, 0)


class TestBytes:
    def test_one_more_than_may_be_is_refused_and_leaves_nothing(self, limited: Limited) -> None:
        acme = limited.tenant()
        acme.concept()
        acme.version(0)
        acme.version(1)
        assert usage(acme)["bytes"] == (2 * SIZE, 2 * SIZE)
        before = limited.installation.stored(acme)
        with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED") as caught:
            acme.version(2)
        (violation,) = caught.value.details["QuotaFailure"].violations
        assert (violation.quota_metric, violation.quota_value) == ("bytes", 2 * SIZE)
        assert limited.installation.stored(acme) == before
        # Not even judged: it would be refused.
        request = samples.upload(
            f"{acme.name}/concepts/tom", samples.adapter(3), validate_only=True
        )
        with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"):
            acme.call.CreateVersion(request)

    def test_a_deleted_version_s_bytes_are_free_and_its_number_is_not(
        self, limited: Limited
    ) -> None:
        acme = limited.tenant()
        acme.concept()
        acme.version(0)
        second = acme.version(1)
        acme.call.DeleteVersion(wire.DeleteVersionRequest(name=second.name))
        assert usage(acme)["bytes"] == (SIZE, 2 * SIZE)
        # A refusal gives no number away.
        with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"):
            acme.version(2, training={"note": "x" * 200})
        assert acme.version(2).name.endswith("/versions/3")

    def test_of_many_that_want_the_last_place_one_gets_it(self, limited: Limited) -> None:
        """Also in concepts of their own, whose rows nobody else waits for."""
        acme = limited.tenant(concepts=9)
        acme.concept("held")
        acme.version(0, "held")
        for index in range(6):
            acme.concept(f"c{index}")
        results = at_once(
            *(lambda index=index: acme.version(index, f"c{index}") for index in range(6)),
            *(lambda seed=seed: acme.version(seed, "held") for seed in (7, 8)),
        )
        made = [result for result in results if isinstance(result, wire.Version)]
        assert len(made) == 1
        assert all(result.reason == "QUOTA_EXCEEDED" for result in results if result is not made[0])
        assert usage(acme)["bytes"] == (2 * SIZE, 2 * SIZE)
        assert len(limited.installation.rows(VERSIONS, tenant=acme.id)) == 2

    def test_a_deleted_concept_keeps_its_bytes_until_it_is_purged(self, limited: Limited) -> None:
        acme = limited.tenant()
        acme.concept()
        acme.version(0)
        acme.version(1)
        delete(acme, "tom", force=True)
        assert usage(acme)["bytes"] == (2 * SIZE, 2 * SIZE), "it can be undeleted"
        limited.installation.operator.CollectGarbage(wire.CollectGarbageRequest())
        assert usage(acme) == {"concepts": (0, 3), "bytes": (0, 2 * SIZE)}
        acme.concept()
        acme.version(0)

    def test_one_tenant_s_limit_is_not_another_s(self, limited: Limited) -> None:
        acme, rival = limited.tenant(bytes=0), limited.tenant()
        for tenant in (acme, rival):
            tenant.concept()
        with refused("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"):
            acme.version()
        rival.version()


def test_a_collection_counts_anew(limited: Limited) -> None:
    acme = limited.tenant()
    acme.concept()
    acme.version()
    wrong = update(CONCEPTS).where(CONCEPTS.c.tenant == acme.id).values(size_bytes=1)
    limited.installation.database.transact(lambda connection: connection.execute(wrong))
    assert usage(acme)["bytes"] == (1, 2 * SIZE)
    limited.installation.operator.CollectGarbage(wire.CollectGarbageRequest())
    assert usage(acme) == {"concepts": (1, 3), "bytes": (SIZE, 2 * SIZE)}


def test_what_is_not_limited_is_counted_all_the_same(acme: Tenant) -> None:
    acme.concept()
    acme.version()
    answer = acme.call.GetStorageUsage(wire.GetStorageUsageRequest(name=acme.name))
    assert {each.quota: each.used for each in answer.quotas} == {"concepts": 1, "bytes": SIZE}
    assert not any(each.HasField("limit") for each in answer.quotas)
