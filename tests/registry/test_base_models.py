"""Base models through the API: the same for all tenants, made and removed by operators."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from perfuse.v1 import registry_pb2 as wire
from registry import samples
from registry.served import BASE_MODEL, Client, Tenant, refused

_NUMBERS = itertools.count(1)


def fresh() -> tuple[str, wire.BaseModel]:
    """An id and a description that no other test uses."""
    number = next(_NUMBERS)
    described = samples.base_model(f"sha256:{number:064x}")
    return f"base-{number}", described


def create(operator: Client, base_model_id: str, described: wire.BaseModel) -> wire.BaseModel:
    made: wire.BaseModel = operator.CreateBaseModel(
        wire.CreateBaseModelRequest(base_model_id=base_model_id, base_model=described)
    )
    return made


def get(tenant: Tenant, name: str) -> wire.BaseModel:
    found: wire.BaseModel = tenant.call.GetBaseModel(wire.GetBaseModelRequest(name=name))
    return found


def test_what_was_created_is_read_by_every_tenant(
    operator: Client, acme: Tenant, rival: Tenant
) -> None:
    base_model_id, described = fresh()
    described.MergeFrom(
        wire.BaseModel(
            display_name="A base", labels={"a": "1"}, covariance_digest="sha256:" + "c" * 64,
            layers=[wire.Layer(name="mid.attn2", width=4)],
            encoders=[wire.Encoder(name="text_encoder_2", width=5)],
        )
    )  # fmt: skip
    sent = wire.BaseModel()
    sent.CopyFrom(described)
    sent.MergeFrom(wire.BaseModel(name="mine", uid="mine", etag="mine"))
    made = create(operator, base_model_id, sent)
    assert made.name == f"baseModels/{base_model_id}"
    assert made.create_time == made.update_time
    assert get(acme, made.name) == get(rival, made.name) == made
    told = wire.BaseModel()
    told.CopyFrom(made)
    for field in ("name", "uid", "etag", "create_time", "update_time"):
        assert getattr(told, field) not in ("", "mine")
        told.ClearField(field)
    assert told == described  # layers and encoders in their order


def test_an_id_and_a_fingerprint_are_taken_once(operator: Client, acme: Tenant) -> None:
    first_id, first = fresh()
    second_id, second = fresh()
    made = create(operator, first_id, first)
    for base_model_id, described in ((first_id, second), (second_id, first)):
        with refused("ALREADY_EXISTS") as caught:
            create(operator, base_model_id, described)
        assert caught.value.resource == made.name
    with refused("NOT_FOUND"):
        get(acme, f"baseModels/{second_id}")


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"fingerprint": "sha256:" + "A" * 64}, "base_model.fingerprint"),
        ({"fingerprint": ""}, "base_model.fingerprint"),
        ({"architecture": ""}, "base_model.architecture"),
        ({"architecture": "a\0"}, "base_model.architecture"),
        ({"conditioning_width": 0}, "base_model.conditioning_width"),
        ({"conditioning_width": 16385}, "base_model.conditioning_width"),
        ({"layers": []}, "base_model.layers"),
        ({"layers": [{"name": "", "width": 4}]}, "base_model.layers[0].name"),
        ({"layers": [{"name": "a", "width": 0}]}, "base_model.layers[0].width"),
        ({"encoders": []}, "base_model.encoders"),
        ({"encoders": [{"name": "a", "width": 4}] * 5}, "base_model.encoders"),
        ({"covariance_digest": "c"}, "base_model.covariance_digest"),
    ],
)
def test_what_describes_no_base_model_is_refused(
    operator: Client, acme: Tenant, changes: dict[str, Any], wrong: str
) -> None:
    base_model_id, described = fresh()
    for field in changes:
        described.ClearField(field)
    described.MergeFrom(wire.BaseModel(**changes))
    with refused("INVALID_ARGUMENT", field=wrong):
        create(operator, base_model_id, described)
    with refused("NOT_FOUND"):
        get(acme, f"baseModels/{base_model_id}")


def test_it_is_removed_when_nothing_stands_on_it(operator: Client, acme: Tenant) -> None:
    base_model_id, described = fresh()
    made = create(operator, base_model_id, described)
    delete = wire.DeleteBaseModelRequest(name=made.name)
    acme.concept()
    version = acme.version(fingerprint=described.fingerprint)
    assert version.base_model == made.name
    with refused("FAILED_PRECONDITION", "BASE_MODEL_IN_USE"):
        operator.DeleteBaseModel(delete)
    # A deleted concept can be undeleted, so its versions count.
    concept = f"{acme.name}/concepts/tom"
    acme.call.DeleteConcept(wire.DeleteConceptRequest(name=concept, force=True))
    with refused("FAILED_PRECONDITION", "BASE_MODEL_IN_USE"):
        operator.DeleteBaseModel(delete)
    acme.call.UndeleteConcept(wire.UndeleteConceptRequest(name=concept))
    acme.call.DeleteVersion(wire.DeleteVersionRequest(name=version.name))
    with refused("ABORTED", "ETAG_MISMATCH"):
        operator.DeleteBaseModel(wire.DeleteBaseModelRequest(name=made.name, etag='"other"'))
    operator.DeleteBaseModel(wire.DeleteBaseModelRequest(name=made.name, etag=made.etag))
    for again in (lambda: get(acme, made.name), lambda: operator.DeleteBaseModel(delete)):
        with refused("NOT_FOUND") as caught:
            again()
        assert caught.value.resource == made.name
    with refused("FAILED_PRECONDITION", "BASE_MODEL_MISMATCH"):
        acme.version(fingerprint=described.fingerprint)
    # Its id and its fingerprint are free again; it is another base model all the same.
    assert create(operator, base_model_id, described).uid != made.uid


def test_operators_read_only_as_members_of_a_tenant(operator: Client, acme: Tenant) -> None:
    with refused("PERMISSION_DENIED"):
        operator.GetBaseModel(wire.GetBaseModelRequest(name=BASE_MODEL))
    both = acme.installation.client(acme.id, "operator", "reader")
    assert both.GetBaseModel(wire.GetBaseModelRequest(name=BASE_MODEL)).name == BASE_MODEL
