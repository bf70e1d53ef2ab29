"""Erasure: nothing of a concept is left but that it was erased: in answers, tables and store."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from perfuse.adapter import digest
from perfuse.names import ConceptName
from perfuse.storage.requests import Mutation
from perfuse.v1 import erasure_pb2
from perfuse.v1 import registry_pb2 as wire
from perfuse_registry.catalog.attachments import NewAttachments, NewPreview
from perfuse_registry.catalog.leases import Leases
from perfuse_registry.catalog.receipts import canonical, read_receipts
from perfuse_registry.schema import receipt_key
from perfuse_registry.tables import (
    ALIAS_MOVES,
    ALIASES,
    BLOBS,
    CONCEPTS,
    CONSENTS,
    ERASURES,
    GRANTS,
    PREVIEWS,
    REQUESTS,
    REVOCATIONS,
    VERSIONS,
)
from registry import samples
from registry.processes import TENANT, fresh_place, furnish
from registry.served import Client, Tenant, refused
from registry.test_concepts import USES
from registry.test_likeness import consent, revoke

SECRET = "Quince-of-the-test"
GONE = (ALIASES, ALIAS_MOVES, GRANTS, CONSENTS, PREVIEWS, VERSIONS)
PICTURES = (samples.picture(1), samples.picture(2))
REMOVED, KEPT, PENDING = (
    getattr(erasure_pb2, f"ERASED_ADAPTER_STATE_{state}")
    for state in ("REMOVED", "KEPT", "PENDING")
)


def etag(tenant: Tenant, concept_id: str = "tom") -> str:
    name = f"{tenant.name}/concepts/{concept_id}"
    return str(tenant.call.GetConcept(wire.GetConceptRequest(name=name)).etag)


def request(tenant: Tenant, concept_id: str = "tom") -> erasure_pb2.EraseConceptRequest:
    name = f"{tenant.name}/concepts/{concept_id}"
    return erasure_pb2.EraseConceptRequest(
        name=name, etag=etag(tenant, concept_id), request_id=str(uuid4())
    )


def erase(tenant: Tenant, concept_id: str = "tom") -> erasure_pb2.Erasure:
    """Erase it, and read how far that came."""
    tenant.admin.EraseConcept(request(tenant, concept_id))
    return read(tenant, concept_id)


def read(tenant: Tenant, concept_id: str = "tom") -> erasure_pb2.Erasure:
    name = f"{tenant.name}/erasures/{concept_id}"
    found: erasure_pb2.Erasure = tenant.admin.GetErasure(erasure_pb2.GetErasureRequest(name=name))
    return found


def acting_for(tenant: Tenant) -> Client:
    """The Trainer, as it calls for a tenant."""
    made = tenant.installation.client(tenant.id, "delegate", subject="trainer")
    made._metadata = (*made._metadata, ("perfuse-tenant", tenant.id))
    return made


def confirmation(tenant: Tenant, **counts: int) -> erasure_pb2.ConfirmErasureRequest:
    return erasure_pb2.ConfirmErasureRequest(
        name=f"{tenant.name}/erasures/tom", trainer=erasure_pb2.TrainerErasure(**counts)
    )


@pytest.fixture
def full(acme: Tenant) -> Tenant:
    """A tenant whose likeness `tom` has all that a concept can have, with secrets in each text."""
    texts: dict[str, Any] = {"description": SECRET, "labels": {"note": SECRET}}
    acme.call.CreateConcept(
        wire.CreateConceptRequest(
            parent=acme.name,
            concept_id="tom",
            concept=wire.Concept(super_category="cat", display_name=SECRET, likeness=True, **texts),
            request_id=str(uuid4()),
        )
    )
    name = f"{acme.name}/concepts/tom"
    for consent_id in ("first", "second"):
        consent(acme, concept_id="tom", consent_id=consent_id, request_id=str(uuid4()))
    revoke(acme, f"{name}/consents/second")
    sent = samples.upload(
        name,
        samples.adapter(1),
        version=wire.Version(**texts),
        previews=samples.previews(*PICTURES, caption=SECRET),
        curve=samples.curve(0.25, 0.5),
        request_id=str(uuid4()),
    )
    acme.call.CreateVersion(sent)
    acme.alias("prod", acme.version(2))
    acme.grant("friend")
    return acme


class TestAfterwards:
    def test_nothing_of_it_can_be_used_and_its_name_is_never_given_again(
        self, full: Tenant
    ) -> None:
        erase(full)
        name = f"{full.name}/concepts/tom"
        tries: list[tuple[str, Any]] = [(method, make(name)) for method, make in USES]
        tries += [
            ("GetConcept", wire.GetConceptRequest(name=name)),
            ("UndeleteConcept", wire.UndeleteConceptRequest(name=name)),
            ("EraseConcept", erasure_pb2.EraseConceptRequest(name=name, etag="any")),
            ("CreateConcept", wire.CreateConceptRequest(
                parent=full.name, concept_id="tom", concept=wire.Concept(super_category="cat"))),
        ]  # fmt: skip
        for method, sent in tries:
            with refused("FAILED_PRECONDITION", "CONCEPT_ERASED") as caught:
                getattr(full.admin, method)(sent)
            assert SECRET not in str(caught.value)
        listed = full.call.ListConcepts(
            wire.ListConceptsRequest(parent=full.name, show_deleted=True)
        )
        assert not listed.concepts
        usage = full.call.GetStorageUsage(wire.GetStorageUsageRequest(name=full.name))
        assert [each.used for each in usage.quotas] == [0, 0]

    def test_no_row_and_no_byte_is_left_but_the_tombstone(self, full: Tenant) -> None:
        (before,) = full.installation.rows(CONCEPTS, tenant=full.id)
        digests = sorted(full.installation.stored(full))
        assert len(digests) == 4
        assert len(full.installation.rows(PREVIEWS, tenant=full.id)) == 2
        told = erase(full)
        assert full.installation.stored(full) == []
        assert full.installation.rows(BLOBS, tenant=full.id) == []
        for table in GONE:
            assert full.installation.rows(table, concept=before.id) == [], table.name
        rows = full.installation.rows(REVOCATIONS)
        consents = {row.id for row in full.installation.rows(CONSENTS)}
        assert {row.consent for row in rows} <= consents
        left = [
            *full.installation.rows(CONCEPTS, tenant=full.id),
            *full.installation.rows(ERASURES, tenant=full.id),
            *full.installation.rows(REQUESTS, tenant=full.id),
        ]
        assert SECRET not in repr(left)
        assert "Erika" not in repr(left)
        assert (told.uid, told.eraser) == (before.uid, "ada")
        counts = (
            told.version_count, told.alias_count, told.grant_count, told.consent_count
        )  # fmt: skip
        assert counts == (2, 1, 1, 2)
        assert [(each.digest, each.state) for each in told.adapters] == [
            (each, REMOVED) for each in digests
        ]
        pictures = {digest(each) for each in PICTURES}
        assert {each.digest for each in told.adapters if each.preview} == pictures
        assert told.concept == f"{full.name}/concepts/tom"

    def test_a_deleted_one_can_be_erased_too(self, acme: Tenant) -> None:
        acme.concept()
        acme.version(1)
        acme.call.DeleteConcept(
            wire.DeleteConceptRequest(name=f"{acme.name}/concepts/tom", force=True)
        )
        assert erase(acme).version_count == 1
        assert acme.installation.stored(acme) == []

    def test_whom_it_was_shared_with_finds_nothing(self, acme: Tenant, rival: Tenant) -> None:
        acme.concept()
        name = acme.version(1).name
        acme.grant(rival, "READ")
        assert rival.bytes_of(name)
        erase(acme)
        for use in (
            lambda: rival.bytes_of(name),
            lambda: rival.call.GetConcept(wire.GetConceptRequest(name=f"{acme.name}/concepts/tom")),
        ):
            with refused("NOT_FOUND"):
                use()
        page = rival.call.ListReceivedGrants(wire.ListReceivedGrantsRequest(parent=rival.name))
        assert not page.grants

    def test_no_collection_ever_takes_the_tombstone(self, full: Tenant) -> None:
        told = erase(full)
        for _ in range(2):
            full.installation.registry.garbage.collect()
        assert read(full) == told
        with refused("FAILED_PRECONDITION", "CONCEPT_ERASED"):
            full.concept()


class TestAsking:
    def test_it_takes_an_admin_and_the_etag(self, acme: Tenant) -> None:
        made = acme.concept()
        with refused("PERMISSION_DENIED"):
            acme.call.EraseConcept(request(acme))
        for wrong, told in (
            ("", ("INVALID_ARGUMENT",)),
            ('"other"', ("ABORTED", "ETAG_MISMATCH")),
        ):
            with refused(*told):
                acme.admin.EraseConcept(erasure_pb2.EraseConceptRequest(name=made.name, etag=wrong))
        assert acme.call.GetConcept(wire.GetConceptRequest(name=made.name)) == made

    def test_repeated_it_gives_the_first_answer(self, acme: Tenant) -> None:
        acme.concept()
        acme.version(1)
        sent = request(acme)
        first = acme.admin.EraseConcept(sent)
        assert acme.admin.EraseConcept(sent) == first
        assert first.state == erasure_pb2.ERASURE_STATE_ERASING

    def test_another_tenants_is_not_there(self, full: Tenant, rival: Tenant) -> None:
        erase(full)
        nobody = "tenants/nobody-at-all"
        for name in (full.name, nobody):
            with refused("NOT_FOUND"):
                rival.admin.GetErasure(erasure_pb2.GetErasureRequest(name=f"{name}/erasures/tom"))
            with refused("NOT_FOUND"):
                rival.admin.ListErasures(erasure_pb2.ListErasuresRequest(parent=name))
        with refused("NOT_FOUND"):
            rival.admin.ListErasures(erasure_pb2.ListErasuresRequest(parent="tenants/-"))
        delegate = acting_for(rival)
        with refused("NOT_FOUND"):
            delegate.ConfirmErasure(confirmation(full, run_count=1))
        assert not read(full).HasField("trainer")

    def test_admins_list_their_own_and_operators_and_delegates_all(
        self, acme: Tenant, rival: Tenant
    ) -> None:
        for tenant in (acme, rival):
            tenant.concept()
            erase(tenant)
        own = acme.admin.ListErasures(erasure_pb2.ListErasuresRequest(parent=acme.name)).erasures
        assert [each.name for each in own] == [f"{acme.name}/erasures/tom"]
        assert own[0].receipt == ""
        every = erasure_pb2.ListErasuresRequest(parent="tenants/-", unconfirmed_only=True)
        delegate = acting_for(acme)
        for client in (acme.installation.operator, delegate):
            found = {each.name for each in client.ListErasures(every).erasures}
            assert found >= {f"{tenant.name}/erasures/tom" for tenant in (acme, rival)}
        delegate.ConfirmErasure(confirmation(acme))
        found = {each.name for each in delegate.ListErasures(every).erasures}
        assert f"{acme.name}/erasures/tom" not in found


class TestBytes:
    def test_those_of_another_concept_stay_and_nobody_is_named(
        self, acme: Tenant, rival: Tenant
    ) -> None:
        for tenant, concepts in ((acme, ("tom", "tim")), (rival, ("tom",))):
            for concept_id in concepts:
                tenant.concept(concept_id)
                tenant.version(1, concept_id)
        told = erase(acme)
        (adapter,) = told.adapters
        assert (adapter.state, adapter.holder_count) == (KEPT, 1)
        assert "concepts/tim" not in told.receipt
        name = f"{acme.name}/concepts/tim/versions/1"
        assert digest(acme.bytes_of(name)) == adapter.digest
        (last,) = erase(acme, "tim").adapters
        assert (last.state, last.holder_count) == (REMOVED, 0)
        assert acme.installation.stored(acme) == []
        # Another tenant's bytes are its own, though they are the same.
        assert rival.installation.stored(rival) == [adapter.digest]

    def test_an_upload_of_the_same_bytes_is_waited_for(self, acme: Tenant) -> None:
        for concept_id in ("tom", "tim"):
            acme.concept(concept_id)
        data = samples.adapter(1)
        acme.version(1)
        leases = Leases(acme.installation.database, timedelta(minutes=1))
        with leases.held(acme.id, digest(data), len(data)) as lease:
            told = erase(acme)
            assert [each.state for each in told.adapters] == [PENDING]
            assert acme.installation.stored(acme) == [digest(data)]
            acme.installation.database.transact(lease.drop)
        acme.installation.registry.garbage.collect()
        assert [each.state for each in read(acme).adapters] == [REMOVED]
        assert acme.installation.stored(acme) == []

    def test_what_was_uploaded_meanwhile_goes_too(self, acme: Tenant) -> None:
        """The erasure comes between the bytes and the version."""
        acme.concept()
        store = acme.installation.ground.store
        put = store.put

        def erasing(tenant: str, name: str, data: bytes) -> None:
            put(tenant, name, data)
            if data == samples.adapter(1):
                acme.admin.EraseConcept(request(acme))

        store.put = erasing  # type: ignore[method-assign]
        try:
            with refused("FAILED_PRECONDITION", "CONCEPT_ERASED"):
                acme.version(1, pictures=PICTURES)
        finally:
            store.put = put  # type: ignore[method-assign]
        assert acme.installation.stored(acme) == []
        assert acme.installation.rows(BLOBS, tenant=acme.id) == []

    def test_a_preview_that_another_concepts_version_has_stays(self, acme: Tenant) -> None:
        for concept_id, pictures in (("tom", PICTURES), ("tim", PICTURES[:1])):
            acme.concept(concept_id)
            acme.version(1, concept_id, pictures=pictures)
        told = {each.digest: each for each in erase(acme).adapters if each.preview}
        shared, own = (told[digest(each)] for each in PICTURES)
        assert (shared.state, shared.holder_count) == (KEPT, 1)
        assert (own.state, own.holder_count) == (REMOVED, 0)
        name = f"{acme.name}/concepts/tim/versions/1"
        asked = wire.DownloadPreviewRequest(name=name, digest=shared.digest)
        assert acme.call.DownloadPreview(asked).picture == PICTURES[0]


class TestReceipt:
    def test_it_is_complete_once_the_trainer_has_spoken(self, full: Tenant) -> None:
        assert erase(full).state == erasure_pb2.ERASURE_STATE_ERASING
        delegate = acting_for(full)
        for client in (full.admin, full.installation.operator):
            with refused("PERMISSION_DENIED"):
                client.ConfirmErasure(confirmation(full, run_count=1))
        first = delegate.ConfirmErasure(confirmation(full, run_count=3, file_count=7))
        assert delegate.ConfirmErasure(confirmation(full, run_count=9)) == first == read(full)
        assert first.state == erasure_pb2.ERASURE_STATE_COMPLETE
        assert (first.trainer.run_count, first.trainer.file_count) == (3, 7)
        assert first.complete_time == first.trainer.confirm_time
        assert first.unconfirmed

    def test_it_is_canonical_and_signed(self, full: Tenant) -> None:
        told = erase(full)
        said = json.loads(told.receipt)
        assert told.receipt == json.dumps(
            said, sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
        key = receipt_key(full.installation.database)
        mac = hmac.new(key, told.receipt.encode(), hashlib.sha256).hexdigest()
        assert told.receipt_mac == mac
        assert said["concept"] == f"{full.name}/concepts/tom"
        assert (said["versions"], said["consents"]) == (2, 2)
        assert [len(said[kind]) for kind in ("adapters", "previews")] == [2, 2]
        assert SECRET not in told.receipt


class TestRestored:
    def test_receipts_erase_what_a_backup_brought_back(self, tmp_path: Path) -> None:
        tom, tim = (ConceptName(TENANT, each) for each in ("tom", "tim"))
        me = Mutation(TENANT, "ada")
        data = samples.adapter(1)
        with fresh_place("sqlite+directory", tmp_path / "old") as place, place.registry() as old:
            furnish(old, "tom", "tim")
            old.versions.create(me, tom, data, digest(data))
            for name in (tom, tim):
                old.erasures.erase(me, name, old.concepts.get(TENANT, name).etag)
            text = "\n".join(map(canonical, old.erasures.every()))
        with fresh_place("sqlite+directory", tmp_path / "new") as place, place.registry() as new:
            furnish(new, "tom")
            new.versions.create(me, tom, data, digest(data))
            assert new.erasures.again(read_receipts(text)) == 2
            assert new.erasures.again(read_receipts(text)) == 0
            assert list(place.store().listing()) == []
            # Also the name that this backup had never heard of.
            assert {row.concept_id for row in place.rows(ERASURES)} == {"tom", "tim"}

    def test_the_files_of_sqlite_hold_no_word_of_it(self, tmp_path: Path) -> None:
        tom = ConceptName(TENANT, "tom")
        me = Mutation(TENANT, "ada", str(uuid4()))
        with fresh_place("sqlite+directory", tmp_path) as place, place.registry() as registry:
            furnish(registry)
            registry.concepts.create(
                me, tom, super_category="cat", display_name=SECRET, description=SECRET * 500
            )
            data = samples.adapter(1)
            picture = NewPreview(PICTURES[0], digest(PICTURES[0]), 100, SECRET)
            registry.versions.create(
                me,
                tom,
                data,
                digest(data),
                description=SECRET,
                attached=NewAttachments((picture,)),
            )
            assert any(SECRET.encode() in each for each in files(place.url, tmp_path))
            registry.erasures.erase(me, tom, registry.concepts.get(TENANT, tom).etag)
            written = list(files(place.url, tmp_path))
        assert not any(SECRET.encode() in each for each in written)
        assert not any(data[-64:] in each for each in written)
        assert not any(PICTURES[0][-64:] in each for each in written)


def files(url: str, folder: Path) -> Iterator[bytes]:
    """All that an installation keeps."""
    database = Path(url.removeprefix("sqlite:///"))
    for path in (*database.parent.glob(f"{database.name}*"), *folder.rglob("*")):
        if path.is_file():
            yield path.read_bytes()
