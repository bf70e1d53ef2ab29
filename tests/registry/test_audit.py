"""Who did what: every mutation once, nothing of what was sent, never another word afterwards."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from perfuse.errors import Aborted, Unavailable
from perfuse.storage.moments import now
from perfuse.v1 import audit_pb2
from perfuse.v1 import registry_pb2 as wire
from perfuse_registry.catalog.requests import AUDIT
from perfuse_registry.tables import AUDIT_EVENTS
from registry.served import Client, Installation, Tenant, refused
from registry.test_requests import MUTATIONS

SECRET = "a-secret-that-no-record-may-hold"


def events(tenant: Tenant, **wanted: str) -> list[audit_pb2.AuditEvent]:
    """What the tenant's admin reads, the oldest first."""
    admin = tenant.installation.client(tenant.id, "admin")
    request = audit_pb2.ListAuditEventsRequest(parent=tenant.name, page_size=1000)
    found = list(admin.ListAuditEvents(request).audit_events)[::-1]
    return [e for e in found if all(getattr(e, key) == value for key, value in wanted.items())]


@pytest.mark.parametrize("method", [m for m in MUTATIONS if not MUTATIONS[m].by_operator])
def test_a_mutation_is_recorded_once_however_often_it_is_sent(acme: Tenant, method: str) -> None:
    request = MUTATIONS[method].request(acme)
    request.request_id = str(uuid4())
    before = len(events(acme, rpc=method, code="OK"))
    caller: Any = acme.admin if "Grant" in method or "Erase" in method else acme.call
    for _ in range(3):
        getattr(caller, method)(request)
    after = events(acme, rpc=method, code="OK")
    assert len(after) == before + 1
    event = after[-1]
    assert event.tenant == acme.id
    assert event.request_id == request.request_id
    assert event.resource.startswith(acme.name)
    assert event.subject
    assert event.call_id
    assert event.peer.startswith("ipv")


def test_nothing_of_what_was_sent_is_in_it(acme: Tenant) -> None:
    acme.concept("tom", display_name=SECRET, description=SECRET, labels={"note": SECRET})
    acme.version(seed=1)
    with refused("INVALID_ARGUMENT"):
        acme.call.GetConcept(wire.GetConceptRequest(name=SECRET))
    with refused("INVALID_ARGUMENT"):
        acme.call.DeleteConcept(wire.DeleteConceptRequest(name=SECRET))
    rows = acme.installation.rows(AUDIT_EVENTS, tenant=acme.id)
    assert {row.rpc for row in rows} == {"CreateConcept", "CreateVersion", "DeleteConcept"}
    assert SECRET not in repr(rows)


def test_refused_mutations_are_there_and_reads_are_not(acme: Tenant) -> None:
    acme.concept("tom")
    with refused("ALREADY_EXISTS"):
        acme.concept("tom")
    reader = acme.installation.client(acme.id, "reader", subject="rita")
    with refused("PERMISSION_DENIED"):
        reader.DeleteConcept(wire.DeleteConceptRequest(name=f"{acme.name}/concepts/tom"))
    with refused("NOT_FOUND"):
        acme.call.GetConcept(wire.GetConceptRequest(name=f"{acme.name}/concepts/tim"))
    told = [(event.subject, event.rpc, event.code) for event in events(acme)]
    assert told == [
        ("paula", "CreateConcept", "OK"),
        ("paula", "CreateConcept", "ALREADY_EXISTS"),
        ("rita", "DeleteConcept", "PERMISSION_DENIED"),
    ]


def test_nothing_is_recorded_of_a_change_that_was_not_made(acme: Tenant) -> None:
    acme.concept("tom")
    with acme.installation.database.engine.connect() as connection, connection.begin() as change:
        AUDIT.record(connection, _me(acme), "UpdateConcept", "gone")
        change.rollback()
    assert Counter(event.rpc for event in events(acme)) == {"CreateConcept": 1}


class TestReading:
    def test_a_tenant_reads_its_own_alone(
        self, acme: Tenant, rival: Tenant, operator: Client
    ) -> None:
        acme.concept("tom")
        admin = acme.installation.client(rival.id, "admin")
        for parent in (acme.name, "tenants/-"):
            with refused("NOT_FOUND"):
                admin.ListAuditEvents(audit_pb2.ListAuditEventsRequest(parent=parent))
        with refused("PERMISSION_DENIED"):
            acme.call.ListAuditEvents(audit_pb2.ListAuditEventsRequest(parent=acme.name))
        for parent in (acme.name, "tenants/-"):
            told = operator.ListAuditEvents(audit_pb2.ListAuditEventsRequest(parent=parent))
            assert any(event.tenant == acme.id for event in told.audit_events)

    def test_pages_and_filters(self, acme: Tenant) -> None:
        for number in range(5):
            acme.concept(f"c{number}")
        admin = acme.installation.client(acme.id, "admin")
        names, token = [], ""
        while True:
            page = admin.ListAuditEvents(
                audit_pb2.ListAuditEventsRequest(
                    parent=acme.name,
                    page_size=2,
                    page_token=token,
                    filter=f'rpc = CreateConcept AND resource != "{acme.name}/concepts/c3"',
                )
            )
            names += [event.resource.rpartition("/")[2] for event in page.audit_events]
            token = page.next_page_token
            if not token:
                break
        assert names == ["c4", "c2", "c1", "c0"]


class TestKeeping:
    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE audit_events SET subject = 'nobody'",
            "DELETE FROM audit_events",
            "DELETE FROM audit_events WHERE id = (SELECT max(id) FROM audit_events)",
        ],
    )
    def test_the_database_refuses_to_change_it(self, acme: Tenant, statement: str) -> None:
        acme.concept("tom")
        with pytest.raises((Unavailable, Aborted)):
            acme.installation.database.transact(
                lambda connection: connection.execute(text(statement)) and None
            )
        assert events(acme)[-1].subject == "paula"

    def test_what_is_older_than_its_retention_goes(
        self, acme: Tenant, installation: Installation
    ) -> None:
        acme.concept("tom")
        long_ago = now() - timedelta(days=500)
        installation.database.transact(
            lambda connection: (
                connection.execute(
                    AUDIT_EVENTS.insert().values(
                        **dict.fromkeys(
                            ("subject", "rpc", "resource", "code", "request_id", "call_id", "peer"),
                            "x",
                        ),
                        # Before all others, so that a look at the oldest finds it.
                        id=-1,
                        tenant=acme.id,
                        event_time=long_ago,
                    )
                )
                and None
            )
        )
        assert installation.registry.audit.forget() == 1
        assert [event.rpc for event in events(acme)] == ["CreateConcept"]


def _me(tenant: Tenant) -> Any:
    from perfuse.storage.mutation import Mutation

    return Mutation(tenant.id, "tester")
