"""The Trainer's record of who did what: every change once, pictures and settings never."""

from __future__ import annotations

from uuid import uuid4

from perfuse.v1 import audit_pb2
from perfuse.v1 import trainer_pb2 as wire
from perfuse_trainer.tables import AUDIT_EVENTS
from trainer.served import Tenant, refused
from trainer.test_images import saved, scene

PICTURE = saved(scene(), "PNG")


def told(tenant: Tenant) -> list[tuple[str, str, str, str]]:
    """What the tenant's admin reads, the oldest first."""
    admin = tenant.installation.client(tenant.id, "admin")
    page = admin.ListAuditEvents(audit_pb2.ListAuditEventsRequest(parent=tenant.name))
    return [(e.subject, e.rpc, e.resource, e.code) for e in reversed(page.audit_events)]


def test_each_change_is_there_once(acme: Tenant) -> None:
    request = wire.CreateImageSetRequest(
        parent=acme.name, image_set_id="tom", request_id=str(uuid4())
    )
    name = f"{acme.name}/imageSets/tom"
    for _ in range(3):
        acme.call.CreateImageSet(request)
    acme.upload(name, ("secret-file.png", PICTURE))
    # The same again changes nothing.
    acme.upload(name, ("secret-file.png", PICTURE))
    acme.get(name)
    with refused("NOT_FOUND"):
        acme.call.DeleteTrainingRun(
            wire.DeleteTrainingRunRequest(name=f"{acme.name}/trainingRuns/none")
        )
    reader = acme.installation.client(acme.id, "reader", subject="rita")
    with refused("PERMISSION_DENIED"):
        reader.DeleteImageSet(wire.DeleteImageSetRequest(name=name))
    acme.call.DeleteImageSet(wire.DeleteImageSetRequest(name=name))
    assert told(acme) == [
        ("paula", "CreateImageSet", name, "OK"),
        ("paula", "UploadImages", name, "OK"),
        ("paula", "DeleteTrainingRun", f"{acme.name}/trainingRuns/none", "NOT_FOUND"),
        ("rita", "DeleteImageSet", "", "PERMISSION_DENIED"),
        ("paula", "DeleteImageSet", name, "OK"),
    ]
    assert "secret" not in repr(acme.installation.rows(AUDIT_EVENTS, tenant=acme.id))


def test_a_tenant_reads_its_own_alone(acme: Tenant, rival: Tenant) -> None:
    acme.image_set()
    admin = rival.installation.client(rival.id, "admin")
    for parent in (acme.name, "tenants/-"):
        with refused("NOT_FOUND"):
            admin.ListAuditEvents(audit_pb2.ListAuditEventsRequest(parent=parent))
