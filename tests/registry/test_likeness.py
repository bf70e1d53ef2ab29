"""Likenesses: nothing is made or given out of one without a person's live consent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import text

from perfuse.errors import Aborted, Unavailable
from perfuse.storage.moments import now
from perfuse.v1 import consent_pb2
from perfuse.v1 import registry_pb2 as wire
from registry.served import Refusal, Tenant, refused

GIVER = "Erika Mustermann, form 17"


def stamp(moment: datetime) -> Timestamp:
    told = Timestamp()
    told.FromDatetime(moment)
    return told


def consent(
    tenant: Tenant,
    scopes: Sequence[str] = ("TRAIN", "RENDER"),
    *,
    seconds: float = 3600,
    start: float | None = None,
    consent_id: str = "",
    concept_id: str = "eri",
    request_id: str = "",
) -> consent_pb2.Consent:
    """A consent that lasts so long from now, and starts then or at once."""
    made: consent_pb2.Consent = tenant.call.CreateConsent(
        consent_pb2.CreateConsentRequest(
            parent=f"{tenant.name}/concepts/{concept_id}",
            consent_id=consent_id,
            consent=consent_pb2.Consent(
                giver=GIVER,
                scopes=[f"CONSENT_SCOPE_{scope}" for scope in scopes],
                start_time=None if start is None else stamp(now() + timedelta(seconds=start)),
                expire_time=stamp(now() + timedelta(seconds=seconds)),
            ),
            request_id=request_id,
        )
    )
    return made


def revoke(tenant: Tenant, name: str, etag: str = "") -> consent_pb2.Consent:
    request = consent_pb2.RevokeConsentRequest(name=name, etag=etag)
    told: consent_pb2.Consent = tenant.call.RevokeConsent(request)
    return told


def download(tenant: Tenant, known: str = "") -> None:
    name = f"{tenant.name}/concepts/eri/versions/1"
    tenant.call.DownloadAdapter(wire.DownloadAdapterRequest(name=name, known_digest=known))


def read(tenant: Tenant) -> wire.Concept:
    found: wire.Concept = tenant.call.GetConcept(
        wire.GetConceptRequest(name=f"{tenant.name}/concepts/eri")
    )
    return found


@pytest.fixture
def eri(acme: Tenant) -> Tenant:
    """A tenant with the likeness `eri`."""
    made = acme.concept("eri", likeness=True)
    assert made.likeness
    assert not made.HasField("train_consent_expire_time")
    return acme


class TestTheMark:
    def test_never_changes(self, eri: Tenant) -> None:
        with refused("INVALID_ARGUMENT", field="update_mask"):
            eri.call.UpdateConcept(
                wire.UpdateConceptRequest(
                    concept=wire.Concept(name=f"{eri.name}/concepts/eri"),
                    update_mask=FieldMask(paths=["likeness"]),
                )
            )
        assert read(eri).likeness

    def test_other_concepts_need_no_consent_and_take_none(self, acme: Tenant) -> None:
        acme.concept("tom")
        assert acme.bytes_of(acme.version(seed=1).name)
        with refused("FAILED_PRECONDITION"):
            consent(acme, concept_id="tom")


class TestUse:
    def test_without_any_consent_nothing_is_made(self, eri: Tenant) -> None:
        with refused("FAILED_PRECONDITION", "CONSENT_MISSING") as caught:
            eri.version(1, "eri")
        assert "training" in caught.value.message
        assert GIVER not in caught.value.message

    def test_each_use_needs_its_own(self, eri: Tenant) -> None:
        consent(eri, ["RENDER"])
        with refused("FAILED_PRECONDITION", "CONSENT_MISSING"):
            eri.version(1, "eri")
        consent(eri, ["TRAIN"])
        made = eri.version(1, "eri")
        assert made.likeness
        download(eri)

    def test_a_version_is_read_and_not_given_out(self, eri: Tenant) -> None:
        consent(eri, ["TRAIN"])
        made = eri.version(1, "eri")
        got = eri.call.GetVersion(wire.GetVersionRequest(name=made.name))
        assert got.likeness
        assert not got.HasField("render_consent_expire_time")
        for known in ("", made.digest):
            with refused("FAILED_PRECONDITION", "CONSENT_MISSING"):
                download(eri, known)
        with refused("FAILED_PRECONDITION", "CONSENT_MISSING"):
            eri.call.CheckBlend(wire.CheckBlendRequest(parent=eri.name, versions=[made.name]))

    def test_a_revocation_holds_from_the_next_call_on(self, eri: Tenant) -> None:
        given = consent(eri)
        eri.version(1, "eri")
        download(eri)
        revoked = revoke(eri, given.name, given.etag)
        assert revoked.state == consent_pb2.CONSENT_STATE_REVOKED
        assert revoked.revoker == "paula"
        assert revoked.etag != given.etag
        with refused("FAILED_PRECONDITION", "CONSENT_REVOKED"):
            download(eri)
        with refused("FAILED_PRECONDITION", "CONSENT_REVOKED"):
            eri.version(2, "eri")
        assert revoke(eri, given.name) == revoked
        consent(eri)
        download(eri)

    def test_expiry_needs_nobody_to_do_anything(self, eri: Tenant) -> None:
        given = consent(eri, seconds=1.5)
        eri.version(1, "eri")
        told = eri.call.GetVersion(
            wire.GetVersionRequest(name=f"{eri.name}/concepts/eri/versions/1")
        )
        assert told.render_consent_expire_time == given.expire_time
        assert read(eri).train_consent_expire_time == given.expire_time
        time.sleep(max(0.0, given.expire_time.ToMilliseconds() / 1000 - time.time()))
        for use in (lambda: download(eri), lambda: eri.version(2, "eri") and None):
            with refused("FAILED_PRECONDITION", "CONSENT_EXPIRED"):
                use()
        assert not read(eri).HasField("train_consent_expire_time")

    def test_one_that_is_yet_to_start_is_missing(self, eri: Tenant) -> None:
        given = consent(eri, start=1800)
        assert given.state == consent_pb2.CONSENT_STATE_PENDING
        with refused("FAILED_PRECONDITION", "CONSENT_MISSING") as caught:
            eri.version(1, "eri")
        assert "not yet" in caught.value.message

    def test_the_longest_of_several_counts(self, eri: Tenant) -> None:
        consent(eri, seconds=60)
        longest = consent(eri, seconds=600)
        consent(eri, seconds=120)
        assert read(eri).render_consent_expire_time == longest.expire_time


class TestTheRecord:
    def test_is_kept_whole(self, eri: Tenant) -> None:
        given = consent(eri, consent_id="first", request_id=str(uuid4()))
        assert given.name == f"{eri.name}/concepts/eri/consents/first"
        assert (given.giver, given.recorder) == (GIVER, "paula")
        revoke(eri, given.name)
        consent(eri)
        page = eri.call.ListConsents(
            consent_pb2.ListConsentsRequest(parent=f"{eri.name}/concepts/eri")
        )
        assert [each.state for each in page.consents] == [
            consent_pb2.CONSENT_STATE_ACTIVE,
            consent_pb2.CONSENT_STATE_REVOKED,
        ]
        got = eri.call.GetConsent(consent_pb2.GetConsentRequest(name=given.name))
        assert got == page.consents[1]

    def test_is_the_tenants_own(self, eri: Tenant, rival: Tenant) -> None:
        given = consent(eri)
        for call in (
            lambda: rival.call.GetConsent(consent_pb2.GetConsentRequest(name=given.name)),
            lambda: rival.call.RevokeConsent(consent_pb2.RevokeConsentRequest(name=given.name)),
        ):
            with refused("NOT_FOUND"):
                call()

    @pytest.mark.parametrize(
        ("fields", "path"),
        [
            ({"scopes": ()}, "consent.scopes"),
            ({"seconds": -1}, "consent.expire_time"),
            ({"seconds": 10, "start": 20}, "consent.expire_time"),
        ],
    )
    def test_what_says_too_little_is_refused(
        self, eri: Tenant, fields: dict[str, object], path: str
    ) -> None:
        with refused("INVALID_ARGUMENT", field=path):
            consent(eri, **fields)  # type: ignore[arg-type]

    @pytest.mark.parametrize("table", ["consents", "consent_revocations"])
    def test_the_database_refuses_to_change_it(self, eri: Tenant, table: str) -> None:
        revoke(eri, consent(eri).name)
        column = "giver" if table == "consents" else "revoker"
        with pytest.raises((Unavailable, Aborted)):
            eri.installation.database.transact(
                lambda connection: (
                    connection.execute(text(f"UPDATE {table} SET {column} = 'x'")) and None
                )
            )

    def test_the_audit_has_no_word_of_who_consented(self, eri: Tenant) -> None:
        from perfuse_registry.tables import AUDIT_EVENTS

        revoke(eri, consent(eri).name)
        rows = eri.installation.rows(AUDIT_EVENTS, tenant=eri.id)
        assert {"CreateConsent", "RevokeConsent"} <= {row.rpc for row in rows}
        assert "Erika" not in repr(rows)


def test_a_grantee_is_bound_by_it_too(eri: Tenant, rival: Tenant) -> None:
    given = consent(eri)
    name = eri.version(1, "eri").name
    eri.grant(rival, "READ", "eri")
    assert rival.bytes_of(name)
    revoke(eri, given.name)
    with pytest.raises(Refusal) as caught:
        rival.bytes_of(name)
    assert caught.value.reason == "CONSENT_REVOKED"
