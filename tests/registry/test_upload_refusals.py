"""Uploads that are refused: by their own reason, and nothing of them is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

import grpc
import pytest
from hostile.catalogue import HEADER, HOSTILE, VALID, Hostile

from perfuse.adapter import Layer, digest, errors
from perfuse.errors import BaseModelMismatch
from perfuse.v1 import registry_pb2 as wire
from perfuse.v1.registry_pb2_grpc import RegistryServiceStub
from perfuse_registry.tables import BLOBS, CONCEPTS, LEASES, REQUESTS, VERSIONS
from registry import samples
from registry.served import Installation, Tenant, refused

# The proto's own rule on the length of the bytes comes before the gate.
BY_LENGTH = {"empty", "file_too_large"}


@pytest.fixture(scope="module", autouse=True)
def known_base(installation: Installation) -> None:
    """The base model that the catalogue's files stand on is known, so that nothing else is."""
    stated = HEADER.metadata
    installation.operator.CreateBaseModel(
        wire.CreateBaseModelRequest(
            base_model_id="of-the-catalogue",
            base_model=wire.BaseModel(
                fingerprint=stated.base_model,
                architecture=stated.architecture,
                conditioning_width=stated.conditioning_width,
                layers=[wire.Layer(name=each.name, width=each.width) for each in stated.layers],
                encoders=[
                    wire.Encoder(name=each.name, width=each.width) for each in stated.encoders
                ],
            ),
        )
    )


@contextmanager
def nothing_left(tenant: Tenant) -> Iterator[None]:
    """Of an upload to the tenant's concept `tom`, which has no versions, nothing is left."""
    yield
    behind = tenant.installation
    for table in (VERSIONS, BLOBS, LEASES, REQUESTS):
        assert behind.rows(table, tenant=tenant.id) == [], table.name
    assert behind.stored(tenant) == []
    for row in behind.rows(CONCEPTS, tenant=tenant.id):
        assert (row.next_number, row.latest_number, row.revision) == (1, None, 1)


def upload(tenant: Tenant, data: bytes, **fields: object) -> wire.CreateVersionRequest:
    return samples.upload(
        f"{tenant.name}/concepts/tom", data, **{"request_id": str(uuid4())} | fields
    )


def test_the_file_they_are_made_from_is_taken(acme: Tenant) -> None:
    acme.concept()
    made = acme.call.CreateVersion(upload(acme, VALID))
    assert acme.bytes_of(made.name) == VALID


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_hostile_files_are_refused_as_what_they_are(acme: Tenant, case: Hostile) -> None:
    acme.concept()
    code, reason = "INVALID_ARGUMENT", case.refused_as("").reason
    if case.refused_as is BaseModelMismatch:
        code = "FAILED_PRECONDITION"
    elif case.name in BY_LENGTH:
        reason = code
    request = upload(acme, case.data())
    with nothing_left(acme):
        for request.validate_only in (True, False):
            with refused(code, reason) as caught:
                acme.call.CreateVersion(request)
    if case.name in BY_LENGTH:
        assert caught.value.fields == {"adapter"}
    elif case.refused_as is not BaseModelMismatch:
        # A reader that does not know the finer reason knows this one.
        assert caught.value.info == {"category": "ADAPTER_REFUSED"}


def test_a_hostile_file_is_refused_without_looking_at_its_digest(acme: Tenant) -> None:
    acme.concept()
    request = upload(acme, VALID + b"\0")
    request.digest = digest(VALID)
    with nothing_left(acme), refused("INVALID_ARGUMENT", errors.TrailingBytes("").reason):
        acme.call.CreateVersion(request)


def test_another_digest_than_claimed(acme: Tenant) -> None:
    acme.concept()
    request = upload(acme, samples.adapter(1))
    request.digest = digest(samples.adapter(2))
    with nothing_left(acme), refused("INVALID_ARGUMENT", "DIGEST_MISMATCH") as caught:
        acme.call.CreateVersion(request)
    assert digest(samples.adapter(1)) in caught.value.message
    for claimed in ("", "0" * 64, digest(b"").upper(), "sha512:" + "0" * 64):
        request.digest = claimed
        with nothing_left(acme), refused("INVALID_ARGUMENT", field="digest"):
            acme.call.CreateVersion(request)


def test_a_base_model_that_is_not_known(acme: Tenant) -> None:
    acme.concept()
    data = samples.adapter(fingerprint="sha256:" + "f" * 64)
    with nothing_left(acme), refused("FAILED_PRECONDITION", "BASE_MODEL_MISMATCH") as caught:
        acme.call.CreateVersion(upload(acme, data))
    failure = caught.value.details["PreconditionFailure"].violations[0]
    assert failure.type == "BASE_MODEL_MISMATCH"
    assert "f" * 64 in caught.value.message


@pytest.mark.parametrize(
    "layers",
    [
        samples.LAYERS[::-1],
        samples.LAYERS[:1],
        (*samples.LAYERS, Layer("mid.attn2", 8)),
        (replace(samples.LAYERS[0], width=16), replace(samples.LAYERS[1], width=8)),
        (replace(samples.LAYERS[0], name="down.1.attn2"), samples.LAYERS[1]),
    ],
    ids=["order", "fewer", "more", "widths", "names"],
)
def test_other_layers_under_a_known_fingerprint(acme: Tenant, layers: tuple[Layer, ...]) -> None:
    acme.concept()
    data = samples.adapter(layers=layers)
    with nothing_left(acme), refused("FAILED_PRECONDITION", "BASE_MODEL_MISMATCH") as caught:
        acme.call.CreateVersion(upload(acme, data))
    assert "layers" in caught.value.message


def test_another_super_category_than_the_concepts(acme: Tenant) -> None:
    acme.concept(super_category="dog")
    with nothing_left(acme), refused("INVALID_ARGUMENT", field="adapter") as caught:
        acme.call.CreateVersion(upload(acme, samples.adapter()))
    assert "'cat'" in caught.value.message
    assert "'dog'" in caught.value.message


def test_no_concept_or_a_deleted_one(acme: Tenant) -> None:
    with nothing_left(acme), refused("NOT_FOUND"):
        acme.call.CreateVersion(upload(acme, samples.adapter()))
    name = acme.concept().name
    acme.call.DeleteConcept(wire.DeleteConceptRequest(name=name))
    with refused("FAILED_PRECONDITION", "CONCEPT_DELETED"):
        acme.call.CreateVersion(upload(acme, samples.adapter()))
    assert acme.installation.stored(acme) == []


def test_more_than_a_message_may_have_ends_the_call_and_nothing_else(acme: Tenant) -> None:
    """gRPC itself refuses such a message, in its own words, before the edge hears of it."""
    acme.concept()
    stub = RegistryServiceStub(acme.installation.channel)
    token = acme.installation.tokens.issue(acme.id, "publisher")
    request = upload(acme, bytes(9 << 20))
    with nothing_left(acme), pytest.raises(grpc.RpcError) as caught:
        stub.CreateVersion(request, metadata=(("authorization", f"Bearer {token}"),), timeout=30)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert acme.version().name.endswith("/versions/1")
