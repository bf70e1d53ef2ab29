"""A mutation repeated under its `request_id` is done once, and answered as the first time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from perfuse.adapter import digest
from perfuse.v1 import consent_pb2, erasure_pb2
from perfuse.v1 import registry_pb2 as wire
from perfuse_registry.tables import ALIAS_MOVES, ALIASES, BASE_MODELS, CONCEPTS, GRANTS, VERSIONS
from registry import samples
from registry.served import METHODS, Client, Tenant, refused


@dataclass(frozen=True)
class Mutation:
    """One mutation and what may happen around it.

    Attributes:
        request: Makes what must be there, and the request, without a `request_id`.
        other: Makes the request another one.
        meanwhile: Changes what the call left, or removes it.
        by_operator: Whether only operators may call it.
        by_admin: Whether only a tenant's admins may.
    """

    request: Callable[[Tenant], Any]
    other: Callable[[Any], None]
    meanwhile: Callable[[Tenant], None]
    by_operator: bool = False
    by_admin: bool = False

    def client(self, tenant: Tenant) -> Client:
        if self.by_operator:
            return tenant.installation.operator
        return tenant.admin if self.by_admin else tenant.call


def tom(tenant: Tenant) -> str:
    return f"{tenant.name}/concepts/tom"


def with_concept(tenant: Tenant) -> None:
    tenant.concept(description="before")


def with_version(tenant: Tenant) -> None:
    with_concept(tenant)
    tenant.version(0)


def with_alias(tenant: Tenant) -> None:
    with_version(tenant)
    tenant.alias("prod", tenant.version(1))


def delete_concept(tenant: Tenant) -> None:
    tenant.call.DeleteConcept(wire.DeleteConceptRequest(name=tom(tenant), force=True))


def undelete_concept(tenant: Tenant) -> None:
    tenant.call.UndeleteConcept(wire.UndeleteConceptRequest(name=tom(tenant)))


def delete_version(tenant: Tenant) -> None:
    tenant.call.DeleteVersion(wire.DeleteVersionRequest(name=f"{tom(tenant)}/versions/1"))


def delete_alias(tenant: Tenant) -> None:
    tenant.call.DeleteAlias(wire.DeleteAliasRequest(name=f"{tom(tenant)}/aliases/prod"))


def create_alias(tenant: Tenant) -> None:
    tenant.alias("prod", wire.Version(name=f"{tom(tenant)}/versions/1"))


def with_grant(tenant: Tenant) -> None:
    with_concept(tenant)
    create_grant(tenant)


def create_grant(tenant: Tenant) -> None:
    tenant.grant("friend")


def delete_grant(tenant: Tenant) -> None:
    name = f"{tom(tenant)}/grants/friend"
    tenant.admin.DeleteGrant(wire.DeleteGrantRequest(name=name))


def with_likeness(tenant: Tenant) -> None:
    tenant.concept("tom", likeness=True)


def consent_request(tenant: Tenant) -> consent_pb2.CreateConsentRequest:
    return consent_pb2.CreateConsentRequest(
        parent=tom(tenant),
        consent_id="given",
        consent=consent_pb2.Consent(
            giver="Erika Mustermann",
            scopes=[consent_pb2.CONSENT_SCOPE_TRAIN],
            expire_time=Timestamp(seconds=32_500_000_000),
        ),
    )


def with_consent(tenant: Tenant) -> None:
    with_likeness(tenant)
    tenant.call.CreateConsent(consent_request(tenant))


def base_model(tenant: Tenant) -> wire.CreateBaseModelRequest:
    described = samples.base_model(digest(tenant.id.encode()))
    return wire.CreateBaseModelRequest(base_model_id=tenant.id, base_model=described)


def create_base_model(tenant: Tenant) -> None:
    tenant.installation.operator.CreateBaseModel(base_model(tenant))


def delete_base_model(tenant: Tenant) -> None:
    name = f"baseModels/{tenant.id}"
    tenant.installation.operator.DeleteBaseModel(wire.DeleteBaseModelRequest(name=name))


def after(prepare: Callable[[Tenant], None], make: Callable[[Tenant], Message]) -> Any:
    def request(tenant: Tenant) -> Message:
        prepare(tenant)
        return make(tenant)

    return request


def etag_of(tenant: Tenant) -> str:
    etag: str = tenant.call.GetConcept(wire.GetConceptRequest(name=tom(tenant))).etag
    return etag


def update_alias(tenant: Tenant) -> wire.UpdateAliasRequest:
    name = f"{tom(tenant)}/aliases/prod"
    read = tenant.call.GetAlias(wire.GetAliasRequest(name=name))
    version = f"{tom(tenant)}/versions/1"
    return wire.UpdateAliasRequest(alias=wire.Alias(name=name, version=version, etag=read.etag))


MUTATIONS = {
    "CreateConcept": Mutation(
        lambda tenant: wire.CreateConceptRequest(
            parent=tenant.name, concept_id="tom", concept=wire.Concept(super_category="cat")
        ),
        lambda request: request.concept.MergeFrom(wire.Concept(display_name="another")),
        delete_concept,
    ),
    "UpdateConcept": Mutation(
        after(with_concept, lambda tenant: wire.UpdateConceptRequest(
            concept=wire.Concept(name=tom(tenant), description="after"))),
        lambda request: request.concept.labels.update({"a": "1"}),
        delete_concept,
    ),
    "DeleteConcept": Mutation(
        after(with_version, lambda tenant: wire.DeleteConceptRequest(
            name=tom(tenant), force=True)),
        lambda request: request.ClearField("force"),
        undelete_concept,
    ),
    "UndeleteConcept": Mutation(
        after(lambda tenant: (with_concept(tenant), delete_concept(tenant)),
              lambda tenant: wire.UndeleteConceptRequest(name=tom(tenant))),
        lambda request: request.MergeFrom(wire.UndeleteConceptRequest(etag='"other"')),
        delete_concept,
    ),
    "CreateVersion": Mutation(
        after(with_concept, lambda tenant: samples.upload(tom(tenant), samples.adapter(0))),
        lambda request: request.MergeFrom(samples.upload(request.parent, samples.adapter(1))),
        delete_version,
    ),
    "UpdateVersion": Mutation(
        after(with_version, lambda tenant: wire.UpdateVersionRequest(
            version=wire.Version(name=f"{tom(tenant)}/versions/1", description="after"))),
        lambda request: request.update_mask.paths.append("labels"),
        delete_version,
    ),
    "DeleteVersion": Mutation(
        after(with_version, lambda tenant: wire.DeleteVersionRequest(
            name=f"{tom(tenant)}/versions/1")),
        lambda request: request.MergeFrom(wire.DeleteVersionRequest(etag='"other"')),
        delete_concept,
    ),
    "CreateAlias": Mutation(
        after(with_version, lambda tenant: wire.CreateAliasRequest(
            parent=tom(tenant), alias_id="prod",
            alias=wire.Alias(version=f"{tom(tenant)}/versions/1"))),
        lambda request: request.MergeFrom(wire.CreateAliasRequest(alias_id="beta")),
        delete_alias,
    ),
    "UpdateAlias": Mutation(
        after(with_alias, update_alias),
        lambda request: request.alias.MergeFrom(
            wire.Alias(version=f"{request.alias.version[:-1]}2")),
        delete_alias,
    ),
    "DeleteAlias": Mutation(
        after(with_alias, lambda tenant: wire.DeleteAliasRequest(
            name=f"{tom(tenant)}/aliases/prod")),
        lambda request: request.MergeFrom(wire.DeleteAliasRequest(etag='"other"')),
        create_alias,
    ),
    "CreateGrant": Mutation(
        after(with_concept, lambda tenant: wire.CreateGrantRequest(
            parent=tom(tenant), grant_id="friend",
            grant=wire.Grant(access=wire.GRANT_ACCESS_RENDER))),
        lambda request: request.grant.MergeFrom(wire.Grant(access=wire.GRANT_ACCESS_READ)),
        delete_grant,
        by_admin=True,
    ),
    "DeleteGrant": Mutation(
        after(with_grant, lambda tenant: wire.DeleteGrantRequest(
            name=f"{tom(tenant)}/grants/friend")),
        lambda request: request.MergeFrom(wire.DeleteGrantRequest(etag='"other"')),
        create_grant,
        by_admin=True,
    ),
    "CreateConsent": Mutation(
        after(with_likeness, lambda tenant: consent_request(tenant)),
        lambda request: request.consent.MergeFrom(consent_pb2.Consent(giver="another")),
        delete_concept,
    ),
    "RevokeConsent": Mutation(
        after(with_consent, lambda tenant: consent_pb2.RevokeConsentRequest(
            name=f"{tom(tenant)}/consents/given")),
        lambda request: request.MergeFrom(consent_pb2.RevokeConsentRequest(etag='"other"')),
        delete_concept,
    ),
    "EraseConcept": Mutation(
        after(with_version, lambda tenant: erasure_pb2.EraseConceptRequest(
            name=tom(tenant), etag=etag_of(tenant))),
        lambda request: request.MergeFrom(erasure_pb2.EraseConceptRequest(etag='"other"')),
        lambda tenant: tenant.concept("another"),
        by_admin=True,
    ),
    "CreateBaseModel": Mutation(
        base_model,
        lambda request: request.base_model.MergeFrom(wire.BaseModel(display_name="another")),
        delete_base_model,
        by_operator=True,
    ),
    "DeleteBaseModel": Mutation(
        after(create_base_model, lambda tenant: wire.DeleteBaseModelRequest(
            name=f"baseModels/{tenant.id}")),
        lambda request: request.MergeFrom(wire.DeleteBaseModelRequest(etag='"other"')),
        create_base_model,
        by_operator=True,
    ),
}  # fmt: skip
each = pytest.mark.parametrize("method", MUTATIONS)


def test_every_mutation_is_here() -> None:
    """A call that changes something for a caller has a `request_id`, and no other has."""
    taking = {
        name for name, method in METHODS.items() if "request_id" in method.input_type.fields_by_name
    }
    changing = {
        name
        for name in METHODS
        if name.startswith(("Create", "Update", "Delete", "Undelete", "Revoke", "Erase"))
    }
    assert MUTATIONS.keys() == taking == changing


@contextmanager
def unchanged(tenant: Tenant) -> Iterator[None]:
    """Nothing of the tenant's is another afterwards."""
    before = _rows(tenant)
    yield
    assert _rows(tenant) == before


def _rows(tenant: Tenant) -> list[Any]:
    behind = tenant.installation
    concepts = behind.rows(CONCEPTS, tenant=tenant.id)
    found: list[Any] = [concepts, behind.rows(VERSIONS, tenant=tenant.id)]
    for concept in concepts:
        found += [behind.rows(ALIASES, concept=concept.id)]
        found += [behind.rows(ALIAS_MOVES, concept=concept.id)]
        found += [behind.rows(GRANTS, concept=concept.id)]
    return [*found, behind.rows(BASE_MODELS, base_model_id=tenant.id)]


@each
def test_repeated_it_gives_the_first_answer(acme: Tenant, method: str) -> None:
    mutation = MUTATIONS[method]
    request = mutation.request(acme)
    request.request_id = str(uuid4())
    call = getattr(mutation.client(acme), method)
    first = call(request)
    with unchanged(acme):
        assert call(request) == first
    mutation.meanwhile(acme)
    with unchanged(acme):
        assert call(request) == first


@each
def test_an_id_stands_for_one_content(acme: Tenant, method: str) -> None:
    mutation = MUTATIONS[method]
    request = mutation.request(acme)
    request.request_id = str(uuid4())
    call = getattr(mutation.client(acme), method)
    first = call(request)
    other = type(request)()
    other.CopyFrom(request)
    mutation.other(other)
    assert other != request
    with unchanged(acme), refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED"):
        call(other)
    assert call(request) == first


@each
def test_without_an_id_nothing_is_remembered(acme: Tenant, method: str) -> None:
    mutation = MUTATIONS[method]
    request = mutation.request(acme)
    call = getattr(mutation.client(acme), method)
    call(request)
    mutation.meanwhile(acme)
    before = _rows(acme)
    # Each can be done again now, or is refused because of what happened since.
    if method in {"DeleteConcept", "UndeleteConcept", "DeleteAlias", "CreateAlias", "CreateVersion",
                  "DeleteGrant", "CreateGrant", "CreateBaseModel", "DeleteBaseModel"}:  # fmt: skip
        call(request)
        assert _rows(acme) != before
    else:
        codes = {"CreateConcept": ("ALREADY_EXISTS", ""), "UpdateVersion": ("NOT_FOUND", ""),
                 "UpdateAlias": ("NOT_FOUND", ""),
                 "EraseConcept": ("FAILED_PRECONDITION", "CONCEPT_ERASED")}  # fmt: skip
        with refused(*codes.get(method, ("FAILED_PRECONDITION", "CONCEPT_DELETED"))):
            call(request)
        assert _rows(acme) == before


@each
def test_what_is_no_uuid_is_refused(acme: Tenant, method: str) -> None:
    mutation = MUTATIONS[method]
    request = mutation.request(acme)
    for wrong in ("1", "x" * 36, f"{{{uuid4()}}}", uuid4().hex):
        request.request_id = wrong
        with unchanged(acme), refused("INVALID_ARGUMENT", field="request_id"):
            getattr(mutation.client(acme), method)(request)


def test_ids_are_apart_by_method_and_tenant(acme: Tenant, rival: Tenant) -> None:
    request_id = str(uuid4())
    for tenant in (acme, rival):
        made = tenant.call.CreateConcept(
            wire.CreateConceptRequest(
                parent=tenant.name, concept_id="tom", request_id=request_id,
                concept=wire.Concept(super_category="cat"),
            )
        )  # fmt: skip
        assert made.name == tom(tenant)
        data = samples.adapter(0)
        request = samples.upload(tom(tenant), data, request_id=request_id)
        assert tenant.call.CreateVersion(request).name == f"{tom(tenant)}/versions/1"
        create_alias(tenant)
        for _ in range(2):
            tenant.call.DeleteAlias(
                wire.DeleteAliasRequest(name=f"{tom(tenant)}/aliases/prod", request_id=request_id)
            )


def test_an_id_in_capitals_is_the_same_id(acme: Tenant) -> None:
    acme.concept()
    request_id = str(uuid4())
    names = {
        acme.call.CreateVersion(
            samples.upload(tom(acme), samples.adapter(), request_id=written)
        ).name
        for written in (request_id, request_id.upper(), request_id)
    }
    assert names == {f"{tom(acme)}/versions/1"}


def test_what_was_refused_is_not_remembered(acme: Tenant) -> None:
    request = samples.upload(tom(acme), samples.adapter(), request_id=str(uuid4()))
    with refused("NOT_FOUND"):
        acme.call.CreateVersion(request)
    acme.concept()
    assert acme.call.CreateVersion(request).name == f"{tom(acme)}/versions/1"


def test_what_was_judged_alone_is_not_remembered(acme: Tenant) -> None:
    acme.concept()
    request = samples.upload(tom(acme), samples.adapter(), request_id=str(uuid4()))
    request.validate_only = True
    assert acme.call.CreateVersion(request).name == ""
    request.validate_only = False
    assert acme.call.CreateVersion(request).name == f"{tom(acme)}/versions/1"


def test_a_repeated_upload_needs_no_bytes_to_be_there(acme: Tenant) -> None:
    """The answer is the first one, whatever became of the store: a retry is no repair."""
    acme.concept()
    request = samples.upload(tom(acme), samples.adapter(), request_id=str(uuid4()))
    first = acme.call.CreateVersion(request)
    acme.installation.ground.store.delete(acme.id, first.digest)
    assert acme.call.CreateVersion(request) == first
    assert acme.installation.stored(acme) == []
