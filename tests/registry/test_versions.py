"""Versions through the API: numbered once and for all, immutable, given back as uploaded."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from perfuse.adapter import digest
from perfuse.v1 import registry_pb2 as wire
from perfuse_registry.tables import BLOBS, CONCEPTS, LEASES, REQUESTS, VERSIONS
from registry import samples
from registry.served import BASE_MODEL, Tenant, refused


@pytest.fixture(autouse=True)
def tom(acme: Tenant) -> wire.Concept:
    return acme.concept()


def get(tenant: Tenant, which: object, concept_id: str = "tom") -> wire.Version:
    name = f"{tenant.name}/concepts/{concept_id}/versions/{which}"
    found: wire.Version = tenant.call.GetVersion(wire.GetVersionRequest(name=name))
    return found


def update(tenant: Tenant, mask: list[str] | None = None, **fields: Any) -> wire.Version:
    sent = wire.Version(**{"name": f"{tenant.name}/concepts/tom/versions/1"} | fields)
    changed: wire.Version = tenant.call.UpdateVersion(
        wire.UpdateVersionRequest(version=sent, update_mask=FieldMask(paths=mask or []))
    )
    return changed


def delete(tenant: Tenant, which: object, etag: str = "") -> None:
    name = f"{tenant.name}/concepts/tom/versions/{which}"
    tenant.call.DeleteVersion(wire.DeleteVersionRequest(name=name, etag=etag))


def download(tenant: Tenant, which: object, known: str = "") -> wire.DownloadAdapterResponse:
    name = f"{tenant.name}/concepts/tom/versions/{which}"
    answer: wire.DownloadAdapterResponse = tenant.call.DownloadAdapter(
        wire.DownloadAdapterRequest(name=name, known_digest=known)
    )
    return answer


def latest(tenant: Tenant) -> str:
    request = wire.GetConceptRequest(name=f"{tenant.name}/concepts/tom")
    return str(tenant.call.GetConcept(request).latest_version)


class TestCreate:
    def test_it_says_what_the_adapter_says(self, acme: Tenant) -> None:
        data = samples.adapter(3, training={"steps": 400, "loss": 0.5, "mask": "alpha", "ok": True})
        run = f"{acme.name}/trainingRuns/run-1"
        made = acme.call.CreateVersion(
            samples.upload(
                f"{acme.name}/concepts/tom",
                data,
                version=wire.Version(training_run=run, description="first", labels={"a": "1"}),
            )
        )
        assert made.name == f"{acme.name}/concepts/tom/versions/1"
        assert UUID(made.uid).version == 4
        assert (made.digest, made.size_bytes) == (digest(data), len(data))
        assert (made.base_model, made.base_model_fingerprint) == (BASE_MODEL, samples.FINGERPRINT)
        assert (made.key_lock, made.placeholder) == (wire.KEY_LOCK_LOCAL, "tom")
        assert (made.super_category, made.bias, made.temperature) == ("cat", 0.7, 0.15)
        assert dict(made.training) == {"steps": "400", "loss": "0.5", "mask": "alpha", "ok": "true"}
        assert (made.training_run, made.description) == (run, "first")
        assert dict(made.labels) == {"a": "1"}
        assert made.create_time == made.update_time
        assert made.etag
        assert get(acme, 1) == made

    def test_trained_keys_are_told(self, acme: Tenant) -> None:
        assert acme.version(key_lock="TRAINED_K").key_lock == wire.KEY_LOCK_TRAINED_K

    def test_only_three_fields_are_taken(self, acme: Tenant) -> None:
        theirs = wire.Version(
            name="tenants/x/concepts/y/versions/9", uid="mine", digest="mine", size_bytes=9,
            base_model="mine", key_lock=wire.KEY_LOCK_TRAINED_K, placeholder="mine",
            super_category="mine", bias=9.0, etag="mine", training={"mine": "mine"},
            description="taken",
        )  # fmt: skip
        data = samples.adapter()
        made = acme.call.CreateVersion(
            samples.upload(f"{acme.name}/concepts/tom", data, version=theirs)
        )
        assert made.description == "taken"
        assert "mine" not in str(made)
        assert (made.bias, made.key_lock, made.size_bytes) == (0.7, 1, len(data))

    def test_a_training_run_of_another_tenant_is_refused(self, acme: Tenant, rival: Tenant) -> None:
        request = samples.upload(
            f"{acme.name}/concepts/tom",
            samples.adapter(),
            version=wire.Version(training_run=f"{rival.name}/trainingRuns/run-1"),
        )
        with refused("INVALID_ARGUMENT", field="version.training_run"):
            acme.call.CreateVersion(request)
        assert latest(acme) == ""

    def test_judging_alone_stores_nothing(self, acme: Tenant) -> None:
        data = samples.adapter(5)
        judged = acme.call.CreateVersion(
            samples.upload(f"{acme.name}/concepts/tom", data, validate_only=True)
        )
        assert (judged.name, judged.uid, judged.etag) == ("", "", "")
        assert not judged.HasField("create_time")
        assert (judged.digest, judged.placeholder) == (digest(data), "tom")
        assert judged.base_model == BASE_MODEL
        behind = acme.installation
        for table in (VERSIONS, BLOBS, LEASES, REQUESTS):
            assert behind.rows(table, tenant=acme.id) == []
        assert behind.stored(acme) == []
        assert acme.version(5).name.endswith("/versions/1")

    def test_what_is_not_there_is_not_found(self, acme: Tenant) -> None:
        with refused("NOT_FOUND") as caught:
            acme.version(concept_id="tim")
        assert caught.value.resource == f"{acme.name}/concepts/tim"


class TestNumbers:
    def test_they_count_up_and_never_come_again(self, acme: Tenant) -> None:
        """A walk of uploads and deletions, compared with a list of numbers at every step."""
        chance = random.Random(7)
        alive: list[int] = []
        given = 0
        for step in range(24):
            if alive and chance.random() < 0.45:
                gone = chance.choice([alive[-1], chance.choice(alive)])
                delete(acme, gone)
                alive.remove(gone)
            else:
                given += 1
                assert acme.version(step).name.endswith(f"/versions/{given}")
                alive.append(given)
            highest = f"{acme.name}/concepts/tom/versions/{alive[-1]}" if alive else ""
            assert latest(acme) == highest
        parent = f"{acme.name}/concepts/tom"
        listed = acme.call.ListVersions(wire.ListVersionsRequest(parent=parent)).versions
        assert [version.name for version in listed] == [
            f"{parent}/versions/{number}" for number in reversed(alive)
        ]
        (row,) = acme.installation.rows(CONCEPTS, tenant=acme.id)
        assert row.next_number == given + 1

    def test_concepts_count_each_for_itself(self, acme: Tenant) -> None:
        acme.concept("tim")
        names = [acme.version(seed, which).name for seed, which in enumerate(["tom", "tim"] * 2)]
        assert [name.rpartition("/")[2] for name in names] == ["1", "1", "2", "2"]

    def test_with_none_left_there_is_no_latest(self, acme: Tenant) -> None:
        acme.version()
        delete(acme, 1)
        with refused("NOT_FOUND"):
            get(acme, "latest")
        assert acme.version().name.endswith("/versions/2")
        assert get(acme, "latest").name.endswith("/versions/2")


class TestBytes:
    def test_they_come_back_as_they_went(self, acme: Tenant) -> None:
        data = samples.adapter(4, key_lock="TRAINED_K")
        made = acme.version(4, key_lock="TRAINED_K")
        answer = download(acme, 1)
        assert (answer.adapter, answer.version, answer.not_modified) == (data, made, False)
        assert acme.installation.stored(acme) == [digest(data)]

    def test_who_has_them_gets_none(self, acme: Tenant) -> None:
        made, other = acme.version(1), acme.version(2)
        answer = download(acme, 1, known=made.digest)
        assert (answer.adapter, answer.version, answer.not_modified) == (b"", made, True)
        assert download(acme, 1, known=other.digest).adapter == samples.adapter(1)
        with refused("INVALID_ARGUMENT", field="known_digest"):
            download(acme, 1, known=made.digest.upper())

    def test_two_versions_may_have_the_same(self, acme: Tenant) -> None:
        first, second = acme.version(6), acme.version(6)
        assert first.digest == second.digest
        assert first.uid != second.uid
        assert len(acme.installation.stored(acme)) == 1
        delete(acme, 1)
        assert download(acme, 2).adapter == samples.adapter(6)

    def test_two_tenants_never_share_them(self, acme: Tenant, rival: Tenant) -> None:
        rival.concept()
        mine, theirs = acme.version(6), rival.version(6)
        assert mine.digest == theirs.digest
        behind = acme.installation
        assert behind.stored(acme) == behind.stored(rival) == [mine.digest]
        behind.ground.store.delete(rival.id, mine.digest)
        assert download(acme, 1).adapter == samples.adapter(6)

    def test_lost_or_altered_ones_are_never_given(self, acme: Tenant) -> None:
        made = acme.version(6)
        ground = acme.installation.ground
        digits = made.digest.removeprefix("sha256:")
        altered = bytearray(samples.adapter(6))
        altered[-1] ^= 1
        ground.overwrite(f"{acme.id}/sha256/{digits[:2]}/{digits}", bytes(altered))
        with refused("DATA_LOSS"):
            download(acme, 1)
        ground.store.delete(acme.id, made.digest)
        with refused("DATA_LOSS"):
            download(acme, 1)
        assert download(acme, 1, known=made.digest).not_modified
        # The same bytes, uploaded again, mend it.
        acme.version(6)
        assert download(acme, 1).adapter == samples.adapter(6)


class TestNames:
    @pytest.mark.parametrize("which", ["2", "latest", "prod"])
    def test_the_answer_has_the_number(self, acme: Tenant, which: str) -> None:
        acme.version(1)
        made = acme.version(2)
        acme.alias("prod", made)
        assert get(acme, which) == made
        assert download(acme, which).version == made
        name = f"{acme.name}/concepts/tom/versions/{which}"
        batch = wire.BatchGetVersionsRequest(parent=acme.name, names=[name])
        assert list(acme.call.BatchGetVersions(batch).versions) == [made]

    @pytest.mark.parametrize("which", ["2", "999999999999999999", "beta", "latest-1"])
    def test_what_is_not_there_is_not_found(self, acme: Tenant, which: str) -> None:
        acme.version()
        with refused("NOT_FOUND") as caught:
            get(acme, which)
        assert caught.value.resource == f"{acme.name}/concepts/tom/versions/{which}"

    @pytest.mark.parametrize("which", ["0", "01", "-1", "1.0", "", "9" * 19, "Prod", "1/", "٣"])
    def test_what_is_no_name_is_refused(self, acme: Tenant, which: str) -> None:
        with refused("INVALID_ARGUMENT", field="name"):
            get(acme, which)


class TestUpdate:
    @pytest.fixture(autouse=True)
    def first(self, acme: Tenant, tom: wire.Concept) -> wire.Version:
        acme.version(1)
        return update(acme, description="first", labels={"a": "1"})

    @pytest.mark.parametrize(
        ("mask", "sent", "becomes"),
        [
            (None, {"description": "D"}, {"description": "D"}),
            (None, {"labels": {"b": "2"}}, {"labels": {"b": "2"}}),
            (["description"], {"labels": {"b": "2"}}, {"description": ""}),
            (["*"], {"labels": {"b": "2"}}, {"description": "", "labels": {"b": "2"}}),
            (["digest", "bias", "name", "training", "labels"], {"bias": 9.0}, {"labels": {}}),
        ],
    )
    def test_changes_what_the_mask_names(
        self, acme: Tenant, first: wire.Version, mask: Any, sent: Any, becomes: dict[str, Any]
    ) -> None:
        changed = update(acme, mask, **sent)
        assert get(acme, 1) == changed
        assert changed.etag != first.etag
        expected = wire.Version()
        expected.CopyFrom(first)
        for field in ("description", "labels", "etag", "update_time"):
            expected.ClearField(field)
            if field in becomes or field in ("description", "labels"):
                value = becomes.get(field, getattr(first, field))
                expected.MergeFrom(wire.Version(**{field: value}))
        for field in ("etag", "update_time"):
            changed.ClearField(field)
        assert changed == expected

    @pytest.mark.parametrize("mask", [["training_run"], ["colour"], ["*", "labels"], ["labels.a"]])
    def test_a_mask_that_names_anything_else_is_refused(
        self, acme: Tenant, first: wire.Version, mask: list[str]
    ) -> None:
        with refused("INVALID_ARGUMENT", field="update_mask"):
            update(acme, mask, description="D")
        assert get(acme, 1) == first

    def test_nothing_to_change_changes_nothing(self, acme: Tenant, first: wire.Version) -> None:
        assert update(acme, ["bias"], bias=9.0) == first == get(acme, 1)

    def test_an_etag_guards_what_was_read(self, acme: Tenant, first: wire.Version) -> None:
        second = update(acme, description="second", etag=first.etag)
        with refused("ABORTED", "ETAG_MISMATCH"):
            update(acme, description="third", etag=first.etag)
        assert get(acme, 1) == second

    @pytest.mark.parametrize("which", ["latest", "prod"])
    def test_only_a_number_names_what_changes(
        self, acme: Tenant, first: wire.Version, which: str
    ) -> None:
        acme.alias("prod", first)
        name = f"{acme.name}/concepts/tom/versions/{which}"
        with refused("INVALID_ARGUMENT", field="version.name"):
            update(acme, name=name, description="D")
        with refused("INVALID_ARGUMENT", field="name"):
            delete(acme, which)
        assert get(acme, 1) == first


class TestDelete:
    def test_it_is_gone_and_the_others_stay(self, acme: Tenant) -> None:
        acme.version(1)
        second = acme.version(2)
        delete(acme, 1)
        for read in (get, download):
            with refused("NOT_FOUND"):
                read(acme, 1)
        with refused("NOT_FOUND"):
            delete(acme, 1)
        assert get(acme, "latest") == second

    def test_not_while_an_alias_points_at_it(self, acme: Tenant) -> None:
        made = acme.version()
        names = ["prod", "beta"]
        for name in names:
            acme.alias(name, made)
        while names:
            with refused("FAILED_PRECONDITION", "ALIAS_IN_USE") as caught:
                delete(acme, 1)
            assert all(name in caught.value.message for name in names)
            name = f"{acme.name}/concepts/tom/aliases/{names.pop()}"
            acme.call.DeleteAlias(wire.DeleteAliasRequest(name=name))
        assert get(acme, 1) == made
        delete(acme, 1)

    def test_an_etag_guards_what_was_read(self, acme: Tenant) -> None:
        made = acme.version()
        changed = update(acme, description="changed")
        with refused("ABORTED", "ETAG_MISMATCH"):
            delete(acme, 1, etag=made.etag)
        delete(acme, 1, etag=changed.etag)


class TestBatch:
    def batch(self, tenant: Tenant, *names: str) -> list[wire.Version]:
        request = wire.BatchGetVersionsRequest(parent=tenant.name, names=names)
        return list(tenant.call.BatchGetVersions(request).versions)

    def test_answers_in_the_order_asked_for(self, acme: Tenant) -> None:
        acme.concept("tim")
        made = [acme.version(1), acme.version(2), acme.version(3, "tim")]
        asked = [made[2], made[0], made[1], made[0]]
        assert self.batch(acme, *(version.name for version in asked)) == asked

    def test_one_that_is_missing_fails_all(self, acme: Tenant, rival: Tenant) -> None:
        rival.concept()
        made, theirs = acme.version(), rival.version()
        for missing in (made.name[:-1] + "2", theirs.name):
            with refused("NOT_FOUND") as caught:
                self.batch(acme, made.name, missing)
            assert caught.value.resource == missing

    def test_at_most_a_hundred_at_least_one(self, acme: Tenant) -> None:
        made = acme.version()
        assert self.batch(acme, *[made.name] * 100) == [made] * 100
        for names in ([], [made.name] * 101):
            with refused("INVALID_ARGUMENT", field="names"):
                self.batch(acme, *names)
