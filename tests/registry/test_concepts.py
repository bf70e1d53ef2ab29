"""Concepts through the API: created, read, changed, deleted, undeleted."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from perfuse.adapter import digest
from perfuse.v1 import consent_pb2
from perfuse.v1 import registry_pb2 as wire
from registry import samples
from registry.served import BASE_MODEL, METHODS, Tenant, refused

TEXTS = (
    "Tom, our cat",
    "кот 猫 🐈‍⬛ חתול",
    "\u202eabc",
    "line\nline\ttab\r\n",
    "'; DROP TABLE concepts; --",
    '\\ " % _ \x7f',
    "😀" * 128,
)


def get(tenant: Tenant, concept_id: str = "tom") -> wire.Concept:
    name = f"{tenant.name}/concepts/{concept_id}"
    found: wire.Concept = tenant.call.GetConcept(wire.GetConceptRequest(name=name))
    return found


def update(tenant: Tenant, mask: list[str] | None = None, **fields: Any) -> wire.Concept:
    sent = wire.Concept(**{"name": f"{tenant.name}/concepts/tom"} | fields)
    changed: wire.Concept = tenant.call.UpdateConcept(
        wire.UpdateConceptRequest(concept=sent, update_mask=FieldMask(paths=mask or []))
    )
    return changed


def delete(tenant: Tenant, *, etag: str = "", force: bool = False) -> wire.Concept:
    deleted: wire.Concept = tenant.call.DeleteConcept(
        wire.DeleteConceptRequest(name=f"{tenant.name}/concepts/tom", etag=etag, force=force)
    )
    return deleted


def undelete(tenant: Tenant, *, etag: str = "") -> wire.Concept:
    restored: wire.Concept = tenant.call.UndeleteConcept(
        wire.UndeleteConceptRequest(name=f"{tenant.name}/concepts/tom", etag=etag)
    )
    return restored


def seconds_between(earlier: Timestamp, later: Timestamp) -> float:
    difference: timedelta = later.ToDatetime() - earlier.ToDatetime()
    return difference.total_seconds()


class TestCreate:
    def test_what_was_created_is_read(self, acme: Tenant) -> None:
        made = acme.concept(
            display_name="Tom", description="Our cat", labels={"team": "a/b", "x": ""}
        )
        assert made.name == f"{acme.name}/concepts/tom"
        assert (made.super_category, made.display_name) == ("cat", "Tom")
        assert (made.description, dict(made.labels)) == ("Our cat", {"team": "a/b", "x": ""})
        assert UUID(made.uid).version == 4
        assert re.fullmatch(r'"[!-~]+"', made.etag)
        assert made.create_time == made.update_time
        assert made.create_time.seconds > 0
        for absent in ("latest_version", "delete_time", "purge_time"):
            assert absent not in {field.name for field, _ in made.ListFields()}
        assert get(acme) == made

    @pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
    def test_any_text_is_kept_as_it_is(self, acme: Tenant, text: str) -> None:
        made = acme.concept(
            display_name=text, description=text, super_category=text[:64], labels={"k": text}
        )
        assert get(acme) == made
        assert (made.display_name, made.description) == (text, text)
        assert (made.super_category, made.labels["k"]) == (text[:64], text)

    @pytest.mark.parametrize("field", ["display_name", "description", "super_category"])
    def test_a_text_that_no_database_keeps_is_refused(self, acme: Tenant, field: str) -> None:
        with refused("INVALID_ARGUMENT", field=f"concept.{field}"):
            acme.concept(**{field: "a\0b"})

    def test_what_only_the_registry_gives_is_not_taken(self, acme: Tenant) -> None:
        theirs = wire.Concept(
            name="tenants/other/concepts/other", uid="mine", etag="mine",
            latest_version="mine", create_time=Timestamp(seconds=1),
            delete_time=Timestamp(seconds=1), purge_time=Timestamp(seconds=1),
            super_category="cat",
        )  # fmt: skip
        made = acme.call.CreateConcept(
            wire.CreateConceptRequest(parent=acme.name, concept_id="tom", concept=theirs)
        )
        assert made.name == f"{acme.name}/concepts/tom"
        assert "mine" not in {made.uid, made.etag, made.latest_version}
        assert made.create_time.seconds > 1
        assert not made.HasField("delete_time")

    @pytest.mark.parametrize("super_category", ["", " ", "\n"])
    def test_a_concept_is_a_kind_of_something(self, acme: Tenant, super_category: str) -> None:
        with refused("INVALID_ARGUMENT", field="concept.super_category"):
            acme.concept(super_category=super_category)

    @pytest.mark.parametrize(
        "concept_id", ["", "Tom", "1tom", "tom-", "-tom", "to_m", "tom\n", "t/m", "..", "t" * 64]
    )
    def test_what_is_no_id_is_refused(self, acme: Tenant, concept_id: str) -> None:
        with refused("INVALID_ARGUMENT", field="concept_id"):
            acme.concept(concept_id)

    @pytest.mark.parametrize(
        ("fields", "wrong"),
        [
            ({"display_name": "x" * 129}, "concept.display_name"),
            ({"description": "x" * 4097}, "concept.description"),
            ({"super_category": "x" * 65}, "concept.super_category"),
            ({"labels": {"": "x"}}, 'concept.labels[""]'),
            ({"labels": {"Team": "x"}}, 'concept.labels["Team"]'),
            ({"labels": {"team": "x" * 257}}, 'concept.labels["team"]'),
            ({"labels": {f"k{i}": "" for i in range(65)}}, "concept.labels"),
        ],
    )
    def test_what_is_too_much_is_refused(
        self, acme: Tenant, fields: dict[str, Any], wrong: str
    ) -> None:
        with refused("INVALID_ARGUMENT", field=wrong):
            acme.concept(**fields)
        with refused("NOT_FOUND"):
            get(acme)

    def test_as_many_labels_as_there_may_be(self, acme: Tenant) -> None:
        labels = {f"k{i}": "v" * 256 for i in range(64)}
        assert dict(acme.concept(labels=labels).labels) == labels

    def test_a_name_is_taken_once(self, acme: Tenant) -> None:
        made = acme.concept()
        for _ in range(2):
            with refused("ALREADY_EXISTS") as caught:
                acme.concept(display_name="another")
            assert caught.value.resource == made.name
            assert get(acme).display_name == ""
            delete(acme)
            undelete(acme)
        delete(acme)
        with refused("ALREADY_EXISTS"):  # by a deleted one too
            acme.concept()

    def test_two_tenants_may_use_one_id(self, acme: Tenant, rival: Tenant) -> None:
        mine, theirs = acme.concept(display_name="mine"), rival.concept(display_name="theirs")
        assert (get(acme), get(rival)) == (mine, theirs)
        assert mine.uid != theirs.uid


class TestUpdate:
    @pytest.fixture(autouse=True)
    def tom(self, acme: Tenant) -> wire.Concept:
        return acme.concept(display_name="Tom", description="Our cat", labels={"a": "1", "b": "2"})

    @pytest.mark.parametrize(
        ("mask", "sent", "becomes"),
        [
            # Without a mask: what is set.
            (None, {"display_name": "T"}, {"display_name": "T"}),
            (None, {"labels": {"c": "3"}}, {"labels": {"c": "3"}}),
            (None, {"display_name": "", "description": "D"}, {"description": "D"}),
            # With a mask: what is named, empty or not.
            (["display_name"], {"display_name": "T", "description": "D"}, {"display_name": "T"}),
            (["description"], {}, {"description": ""}),
            (["labels"], {}, {"labels": {}}),
            (["labels", "display_name", "labels"], {"display_name": "T"},
             {"labels": {}, "display_name": "T"}),
            (["*"], {"description": "D"},
             {"display_name": "", "description": "D", "labels": {}}),
            # What only the Registry gives is passed over.
            (["name", "uid", "etag", "create_time", "latest_version", "display_name"],
             {"display_name": "T", "uid": "mine"}, {"display_name": "T"}),
        ],
    )  # fmt: skip
    def test_changes_what_the_mask_names(
        self, acme: Tenant, tom: wire.Concept, mask: Any, sent: Any, becomes: dict[str, Any]
    ) -> None:
        changed = update(acme, mask, **sent)
        assert get(acme) == changed
        for field in ("display_name", "description", "labels"):
            assert getattr(changed, field) == becomes.get(field, getattr(tom, field))
        for fixed in ("name", "uid", "super_category", "create_time"):
            assert getattr(changed, fixed) == getattr(tom, fixed)
        assert changed.etag != tom.etag
        assert seconds_between(tom.update_time, changed.update_time) >= 0

    @pytest.mark.parametrize(
        "mask",
        [["super_category"], ["colour"], ["*", "labels"], ["labels.a"], [""], ["Description"],
         ["display_name", "nothing"]],
    )  # fmt: skip
    def test_a_mask_that_names_anything_else_is_refused(
        self, acme: Tenant, tom: wire.Concept, mask: list[str]
    ) -> None:
        with refused("INVALID_ARGUMENT", field="update_mask"):
            update(acme, mask, display_name="T", super_category="dog")
        assert get(acme) == tom

    @pytest.mark.parametrize("mask", [None, ["uid"]])
    def test_nothing_to_change_changes_nothing(
        self, acme: Tenant, tom: wire.Concept, mask: Any
    ) -> None:
        assert update(acme, mask, super_category="dog", uid="mine") == tom == get(acme)

    def test_an_etag_guards_what_was_read(self, acme: Tenant, tom: wire.Concept) -> None:
        second = update(acme, description="second", etag=tom.etag)
        with refused("ABORTED", "ETAG_MISMATCH"):
            update(acme, description="third", etag=tom.etag)
        assert get(acme) == second
        with refused("ABORTED", "ETAG_MISMATCH"):
            update(acme, ["uid"], etag="anything")
        assert update(acme, description="third").description == "third"

    def test_versions_come_without_touching_it(self, acme: Tenant, tom: wire.Concept) -> None:
        made = acme.version()
        now = get(acme)
        assert now.latest_version == made.name
        assert now.etag == tom.etag  # so that an upload is in nobody's way
        assert update(acme, description="after", etag=tom.etag).latest_version == made.name

    def test_what_is_not_there_is_not_found(self, acme: Tenant) -> None:
        with refused("NOT_FOUND") as caught:
            update(acme, name=f"{acme.name}/concepts/tim", display_name="T")
        assert caught.value.resource == f"{acme.name}/concepts/tim"
        with refused("INVALID_ARGUMENT"):
            update(acme, name="tom", display_name="T")


# Every way to use a concept that is not deleted, but to read the concept itself.
USES: list[tuple[str, Callable[[str], Message]]] = [
    ("UpdateConcept", lambda name: wire.UpdateConceptRequest(
        concept=wire.Concept(name=name, display_name="T"))),
    ("DeleteConcept", lambda name: wire.DeleteConceptRequest(name=name, force=True)),
    ("CreateVersion", lambda name: samples.upload(name, samples.adapter(9))),
    ("CreateVersion", lambda name: samples.upload(
        name, samples.adapter(9), validate_only=True)),
    ("GetVersion", lambda name: wire.GetVersionRequest(name=f"{name}/versions/1")),
    ("GetVersion", lambda name: wire.GetVersionRequest(name=f"{name}/versions/latest")),
    ("GetVersion", lambda name: wire.GetVersionRequest(name=f"{name}/versions/prod")),
    ("ListVersions", lambda name: wire.ListVersionsRequest(parent=name)),
    ("UpdateVersion", lambda name: wire.UpdateVersionRequest(
        version=wire.Version(name=f"{name}/versions/1", description="D"))),
    ("DeleteVersion", lambda name: wire.DeleteVersionRequest(name=f"{name}/versions/2")),
    ("BatchGetVersions", lambda name: wire.BatchGetVersionsRequest(
        parent=name.partition("/concepts")[0], names=[f"{name}/versions/1"])),
    ("DownloadAdapter", lambda name: wire.DownloadAdapterRequest(name=f"{name}/versions/1")),
    ("DownloadPreview", lambda name: wire.DownloadPreviewRequest(
        name=f"{name}/versions/1", digest=digest(samples.picture(1)))),
    ("CreateAlias", lambda name: wire.CreateAliasRequest(
        parent=name, alias_id="beta", alias=wire.Alias(version=f"{name}/versions/1"))),
    ("GetAlias", lambda name: wire.GetAliasRequest(name=f"{name}/aliases/prod")),
    ("ListAliases", lambda name: wire.ListAliasesRequest(parent=name)),
    ("UpdateAlias", lambda name: wire.UpdateAliasRequest(alias=wire.Alias(
        name=f"{name}/aliases/prod", version=f"{name}/versions/2", etag="any"))),
    ("DeleteAlias", lambda name: wire.DeleteAliasRequest(name=f"{name}/aliases/prod")),
    ("ListAliasMoves", lambda name: wire.ListAliasMovesRequest(parent=f"{name}/aliases/prod")),
    ("CreateGrant", lambda name: wire.CreateGrantRequest(
        parent=name, grant_id="other", grant=wire.Grant(access=wire.GRANT_ACCESS_READ))),
    ("GetGrant", lambda name: wire.GetGrantRequest(name=f"{name}/grants/friend")),
    ("ListGrants", lambda name: wire.ListGrantsRequest(parent=name)),
    ("CreateConsent", lambda name: consent_pb2.CreateConsentRequest(
        parent=name, consent=consent_pb2.Consent(
            giver="the form in the safe", scopes=["CONSENT_SCOPE_TRAIN"],
            expire_time=Timestamp(seconds=4102444800)))),
    ("GetConsent", lambda name: consent_pb2.GetConsentRequest(name=f"{name}/consents/first")),
    ("ListConsents", lambda name: consent_pb2.ListConsentsRequest(parent=name)),
    ("RevokeConsent", lambda name: consent_pb2.RevokeConsentRequest(name=f"{name}/consents/first")),
    ("CheckCompatibility", lambda name: wire.CheckCompatibilityRequest(
        version=f"{name}/versions/1", base_model=BASE_MODEL)),
    ("CheckBlend", lambda name: wire.CheckBlendRequest(
        parent=name.partition("/concepts")[0], versions=[f"{name}/versions/1"])),
]  # fmt: skip


def everything(tenant: Tenant) -> list[Any]:
    """All that can be read of a tenant's concept `tom`, but what a deletion itself changes."""
    concept = get(tenant)
    for field in ("etag", "update_time", "delete_time", "purge_time"):
        concept.ClearField(field)
    name = f"{tenant.name}/concepts/tom"
    versions = tenant.call.ListVersions(wire.ListVersionsRequest(parent=name)).versions
    aliases = tenant.call.ListAliases(wire.ListAliasesRequest(parent=name)).aliases
    histories = [
        tenant.call.ListAliasMoves(wire.ListAliasMovesRequest(parent=alias.name))
        for alias in aliases
    ]
    read = [
        tenant.call.GetVersion(wire.GetVersionRequest(name=f"{name}/versions/{which}"))
        for which in ("1", "2", "latest", "prod")
    ]
    contents = [tenant.bytes_of(version.name) for version in versions]
    return [concept, list(versions), list(aliases), histories, read, contents]


class TestDelete:
    @pytest.fixture(autouse=True)
    def tom(self, acme: Tenant) -> wire.Concept:
        return acme.concept(display_name="Tom")

    def test_without_versions_it_needs_no_force(self, acme: Tenant, tom: wire.Concept) -> None:
        deleted = delete(acme)
        assert deleted == get(acme)
        assert seconds_between(deleted.delete_time, deleted.purge_time) == 30 * 24 * 3600
        assert deleted.etag != tom.etag
        assert (deleted.uid, deleted.display_name) == (tom.uid, "Tom")

    def test_with_versions_it_needs_force(self, acme: Tenant) -> None:
        acme.version()
        before = get(acme)
        with refused("FAILED_PRECONDITION", "CONCEPT_NOT_EMPTY"):
            delete(acme)
        assert get(acme) == before
        assert delete(acme, force=True).HasField("delete_time")

    def test_with_its_versions_deleted_it_needs_none(self, acme: Tenant) -> None:
        made = acme.version()
        acme.call.DeleteVersion(wire.DeleteVersionRequest(name=made.name))
        assert delete(acme).HasField("delete_time")

    def test_etags_guard_both_ways(self, acme: Tenant, tom: wire.Concept) -> None:
        with refused("ABORTED", "ETAG_MISMATCH"):
            delete(acme, etag='"other"')
        deleted = delete(acme, etag=tom.etag)
        with refused("ABORTED", "ETAG_MISMATCH"):
            undelete(acme, etag=tom.etag)
        assert get(acme) == deleted
        restored = undelete(acme, etag=deleted.etag)
        assert restored.etag not in {tom.etag, deleted.etag}

    def test_what_is_not_deleted_is_not_undeleted(self, acme: Tenant, tom: wire.Concept) -> None:
        with refused("FAILED_PRECONDITION"):
            undelete(acme)
        assert get(acme) == tom

    def test_what_is_not_there_is_not_found(self, acme: Tenant) -> None:
        name = f"{acme.name}/concepts/tim"
        with refused("NOT_FOUND"):
            acme.call.DeleteConcept(wire.DeleteConceptRequest(name=name))
        with refused("NOT_FOUND"):
            acme.call.UndeleteConcept(wire.UndeleteConceptRequest(name=name))

    def test_nothing_of_it_can_be_used(self, acme: Tenant) -> None:
        acme.alias("prod", acme.version(1))
        acme.version(2)
        acme.grant("friend")
        before = everything(acme)
        deleted = delete(acme, force=True)
        for method, request in USES:
            with refused("FAILED_PRECONDITION", "CONCEPT_DELETED"):
                getattr(acme.admin, method)(request(deleted.name))
        assert get(acme) == deleted
        undelete(acme)
        assert everything(acme) == before

    def test_every_way_to_use_one_is_tried(self) -> None:
        others = {"CreateConcept", "GetConcept", "ListConcepts", "UndeleteConcept",
                  # What was granted can be taken back whatever else was deleted.
                  "DeleteGrant", "ListReceivedGrants", "GetStorageUsage",
                  "ListAuditEvents",
                  # `test_erasure` has them: what is deleted can be erased.
                  "EraseConcept", "GetErasure", "ListErasures", "ConfirmErasure",
                  "CreateBaseModel", "GetBaseModel", "ListBaseModels", "DeleteBaseModel",
                  "VerifyIntegrity", "CollectGarbage"}  # fmt: skip
        assert {method for method, _ in USES} == METHODS.keys() - others

    def test_undeleting_restores_all_exactly(self, acme: Tenant, tom: wire.Concept) -> None:
        first = acme.version(1)
        alias = acme.alias("prod", first)
        second = acme.version(2)
        acme.call.UpdateAlias(
            wire.UpdateAliasRequest(
                alias=wire.Alias(name=alias.name, version=second.name, etag=alias.etag)
            )
        )
        acme.alias("old", first)
        before = everything(acme)
        for _ in range(2):
            delete(acme, force=True)
            restored = undelete(acme)
            assert not restored.HasField("delete_time")
            assert not restored.HasField("purge_time")
            assert restored.uid == tom.uid
            assert everything(acme) == before
        assert acme.version(3).name.endswith("/versions/3")
