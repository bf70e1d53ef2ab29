"""Who may call what, and that another tenant's name reads like one that does not exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from perfuse.adapter import digest
from perfuse.serving.guard import unguarded
from perfuse.serving.roles import GRANTED_BY
from perfuse.v1 import consent_pb2, erasure_pb2
from perfuse.v1 import registry_pb2 as wire
from perfuse_registry.servicer import RegistryServicer
from perfuse_registry.tables import (
    ALIAS_MOVES,
    ALIASES,
    BLOBS,
    CONCEPTS,
    CONSENTS,
    GRANTS,
    VERSIONS,
)
from registry import samples
from registry.served import BASE_MODEL, METHODS, Client, Installation, Refusal, Tenant, refused

CONSENT = consent_pb2.Consent(
    giver="Erika Mustermann",
    scopes=[consent_pb2.CONSENT_SCOPE_TRAIN],
    expire_time=Timestamp(seconds=32_500_000_000),
)

# For each rpc that names what is a tenant's: the request of a caller of the tenant `own` that
# names what is `theirs`: concept tom, its version 1, the alias prod.
NAMING: dict[str, Callable[[str, str], Message]] = {
    "CreateConcept": lambda own, theirs: wire.CreateConceptRequest(
        parent=theirs, concept_id="tom", concept=wire.Concept(super_category="cat")
    ),
    "GetConcept": lambda own, theirs: wire.GetConceptRequest(name=f"{theirs}/concepts/tom"),
    "ListConcepts": lambda own, theirs: wire.ListConceptsRequest(parent=theirs),
    "UpdateConcept": lambda own, theirs: wire.UpdateConceptRequest(
        concept=wire.Concept(name=f"{theirs}/concepts/tom", description="mine now")
    ),
    "DeleteConcept": lambda own, theirs: wire.DeleteConceptRequest(
        name=f"{theirs}/concepts/tom", force=True
    ),
    "UndeleteConcept": lambda own, theirs: wire.UndeleteConceptRequest(
        name=f"{theirs}/concepts/tom"
    ),
    "CreateVersion": lambda own, theirs: samples.upload(
        f"{theirs}/concepts/tom", samples.adapter(1)
    ),
    "GetVersion": lambda own, theirs: wire.GetVersionRequest(
        name=f"{theirs}/concepts/tom/versions/prod"
    ),
    "ListVersions": lambda own, theirs: wire.ListVersionsRequest(parent=f"{theirs}/concepts/tom"),
    "UpdateVersion": lambda own, theirs: wire.UpdateVersionRequest(
        version=wire.Version(name=f"{theirs}/concepts/tom/versions/1", description="mine now")
    ),
    "DeleteVersion": lambda own, theirs: wire.DeleteVersionRequest(
        name=f"{theirs}/concepts/tom/versions/2"
    ),
    "BatchGetVersions": lambda own, theirs: wire.BatchGetVersionsRequest(
        parent=own, names=[f"{theirs}/concepts/tom/versions/1"]
    ),
    "DownloadAdapter": lambda own, theirs: wire.DownloadAdapterRequest(
        name=f"{theirs}/concepts/tom/versions/latest",
        known_digest=samples.upload("", samples.adapter(0)).digest,
    ),
    "DownloadPreview": lambda own, theirs: wire.DownloadPreviewRequest(
        name=f"{theirs}/concepts/tom/versions/latest", digest=digest(samples.picture(2))
    ),
    "CreateAlias": lambda own, theirs: wire.CreateAliasRequest(
        parent=f"{theirs}/concepts/tom",
        alias_id="mine",
        alias=wire.Alias(version=f"{theirs}/concepts/tom/versions/1"),
    ),
    "GetAlias": lambda own, theirs: wire.GetAliasRequest(
        name=f"{theirs}/concepts/tom/aliases/prod"
    ),
    "ListAliases": lambda own, theirs: wire.ListAliasesRequest(parent=f"{theirs}/concepts/tom"),
    "UpdateAlias": lambda own, theirs: wire.UpdateAliasRequest(
        alias=wire.Alias(
            name=f"{theirs}/concepts/tom/aliases/prod",
            version=f"{theirs}/concepts/tom/versions/2",
            etag='"any"',
        )
    ),
    "DeleteAlias": lambda own, theirs: wire.DeleteAliasRequest(
        name=f"{theirs}/concepts/tom/aliases/prod"
    ),
    "ListAliasMoves": lambda own, theirs: wire.ListAliasMovesRequest(
        parent=f"{theirs}/concepts/tom/aliases/prod"
    ),
    "CreateGrant": lambda own, theirs: wire.CreateGrantRequest(
        parent=f"{theirs}/concepts/tom",
        grant_id="mine",
        grant=wire.Grant(access=wire.GRANT_ACCESS_READ),
    ),
    "GetGrant": lambda own, theirs: wire.GetGrantRequest(
        name=f"{theirs}/concepts/tom/grants/friend"
    ),
    "ListGrants": lambda own, theirs: wire.ListGrantsRequest(parent=f"{theirs}/concepts/tom"),
    "DeleteGrant": lambda own, theirs: wire.DeleteGrantRequest(
        name=f"{theirs}/concepts/tom/grants/friend"
    ),
    "CreateConsent": lambda own, theirs: consent_pb2.CreateConsentRequest(
        parent=f"{theirs}/concepts/eri", consent=CONSENT
    ),
    "GetConsent": lambda own, theirs: consent_pb2.GetConsentRequest(
        name=f"{theirs}/concepts/eri/consents/given"
    ),
    "ListConsents": lambda own, theirs: consent_pb2.ListConsentsRequest(
        parent=f"{theirs}/concepts/eri"
    ),
    "RevokeConsent": lambda own, theirs: consent_pb2.RevokeConsentRequest(
        name=f"{theirs}/concepts/eri/consents/given"
    ),
    "EraseConcept": lambda own, theirs: erasure_pb2.EraseConceptRequest(
        name=f"{theirs}/concepts/tom", etag='"any"'
    ),
    "GetErasure": lambda own, theirs: erasure_pb2.GetErasureRequest(name=f"{theirs}/erasures/gone"),
    "ListReceivedGrants": lambda own, theirs: wire.ListReceivedGrantsRequest(parent=theirs),
    "GetStorageUsage": lambda own, theirs: wire.GetStorageUsageRequest(name=theirs),
    "CheckCompatibility": lambda own, theirs: wire.CheckCompatibilityRequest(
        version=f"{theirs}/concepts/tom/versions/1", base_model=BASE_MODEL
    ),
    "CheckBlend": lambda own, theirs: wire.CheckBlendRequest(
        parent=own, versions=[f"{theirs}/concepts/tom/versions/1"]
    ),
}
# Those that name nothing of any tenant's; what ListAuditEvents names, `test_audit` looks at.
NAMELESS = {"CreateBaseModel", "GetBaseModel", "ListBaseModels", "DeleteBaseModel",
            "VerifyIntegrity", "CollectGarbage", "ListAuditEvents",
            # Others than tenants may call them: `test_erasure`.
            "ListErasures", "ConfirmErasure"}  # fmt: skip
OPERATORS = {"CreateBaseModel", "DeleteBaseModel", "VerifyIntegrity", "CollectGarbage"}
ADMINS = {"CreateGrant", "DeleteGrant", "EraseConcept", "GetErasure"}
CHANGING = {
    name for name, method in METHODS.items() if "request_id" in method.input_type.fields_by_name
}

# Requests with something else wrong, which must not be told of what is not the caller's.
ODD: list[tuple[str, Callable[[str, str], Message]]] = [
    ("CreateVersion", lambda own, theirs: samples.upload(f"{theirs}/concepts/tom", b"no adapter")),
    ("CreateVersion", lambda own, theirs: samples.upload(
        f"{theirs}/concepts/tom", samples.adapter(), previews=samples.previews(b"no picture"))),
    ("CreateVersion", lambda own, theirs: samples.upload(
        f"{theirs}/concepts/tom", samples.adapter(),
        version=wire.Version(training_run="tenants/elsewhere/trainingRuns/run-1"))),
    ("CreateVersion", lambda own, theirs: samples.upload(
        f"{theirs}/concepts/tom", samples.adapter(), validate_only=True)),
    ("UpdateConcept", lambda own, theirs: wire.UpdateConceptRequest(
        concept=wire.Concept(name=f"{theirs}/concepts/tom", etag='"any"'))),
    ("UpdateVersion", lambda own, theirs: wire.UpdateVersionRequest(
        version=wire.Version(name=f"{theirs}/concepts/tom/versions/latest"))),
    ("DeleteVersion", lambda own, theirs: wire.DeleteVersionRequest(
        name=f"{theirs}/concepts/tom/versions/prod")),
    ("CreateAlias", lambda own, theirs: wire.CreateAliasRequest(
        parent=f"{theirs}/concepts/tom", alias_id="mine",
        alias=wire.Alias(version="tenants/elsewhere/concepts/tom/versions/1"))),
    ("UpdateAlias", lambda own, theirs: wire.UpdateAliasRequest(alias=wire.Alias(
        name=f"{theirs}/concepts/tom/aliases/prod",
        version=f"{theirs}/concepts/tom/versions/latest"))),
    ("ListVersions", lambda own, theirs: wire.ListVersionsRequest(
        parent=f"{theirs}/concepts/tom", filter="(", order_by="?", page_token="x")),
    ("ListAliases", lambda own, theirs: wire.ListAliasesRequest(
        parent=f"{theirs}/concepts/tom", page_token="x")),
    ("CheckCompatibility", lambda own, theirs: wire.CheckCompatibilityRequest(
        version=f"{theirs}/concepts/tom/versions/1", base_model="baseModels/none")),
]  # fmt: skip

each_naming = pytest.mark.parametrize(
    ("method", "request_for"),
    [*NAMING.items(), *ODD],
    ids=[*NAMING, *(f"odd{index}-{method}" for index, (method, _) in enumerate(ODD))],
)


def request_of(method: str) -> Any:
    """An empty one, and for those that an empty one would set to work, one of little work."""
    if method == "VerifyIntegrity":
        return wire.VerifyIntegrityRequest(tenant="nobody")
    if method == "CollectGarbage":
        return wire.CollectGarbageRequest(dry_run=True)
    return GetMessageClass(METHODS[method].input_type)()


def answer(client: Client, method: str, request: Message) -> Refusal | None:
    try:
        getattr(client, method)(request)
    except Refusal as refusal:
        return refusal
    return None


def told(client: Client, method: str, request: Message, *names: str) -> tuple[object, ...]:
    """All that a refusal tells, with these names of tenants made one."""
    refusal = answer(client, method, request)
    assert refusal is not None
    details = {name: str(detail) for name, detail in refusal.details.items()}
    texts = [refusal.message, repr(sorted(details.items())), repr(refusal.info)]
    for name in names:
        texts = [text.replace(name, "tenants/T") for text in texts]
    return refusal.code, refusal.reason, *texts


def rows(tenant: Tenant) -> list[Any]:
    behind = tenant.installation
    concepts = behind.rows(CONCEPTS, tenant=tenant.id)
    found = [behind.rows(table, tenant=tenant.id) for table in (CONCEPTS, VERSIONS, BLOBS)]
    within = (ALIASES, ALIAS_MOVES, GRANTS, CONSENTS)
    return [*found, *(behind.rows(t, concept=each.id) for t in within for each in concepts)]


class TestNames:
    @pytest.fixture(scope="class")
    def victim(self, installation: Installation) -> Tenant:
        """A tenant that has all that the requests name."""
        made = installation.tenant()
        made.concept()
        made.alias("prod", made.version(0))
        made.version(2, pictures=[samples.picture(2)])
        made.grant("friend")
        gone = made.concept("gone")
        made.admin.EraseConcept(erasure_pb2.EraseConceptRequest(name=gone.name, etag=gone.etag))
        made.concept("eri", likeness=True)
        made.call.CreateConsent(
            consent_pb2.CreateConsentRequest(
                parent=f"{made.name}/concepts/eri", consent_id="given", consent=CONSENT
            )
        )
        return made

    def test_every_rpc_is_here(self) -> None:
        assert NAMING.keys() | NAMELESS == METHODS.keys()
        assert not NAMING.keys() & NAMELESS

    def test_they_are_all_of_what_is_there(self, victim: Tenant) -> None:
        """For its owner, no request is refused because of a name that is not there."""
        for method, request in NAMING.items():
            if method in CHANGING:
                continue
            asked = request(victim.name, victim.name)
            client = victim.admin if method in ADMINS else victim.call
            assert answer(client, method, asked) is None

    @each_naming
    def test_anothers_reads_like_a_missing_one(
        self,
        acme: Tenant,
        victim: Tenant,
        method: str,
        request_for: Callable[[str, str], Message],
    ) -> None:
        before = rows(victim)
        names = [victim.name, "tenants/nobody-at-all"]
        # Of which one's own is there.
        if method not in {"CreateConcept", "ListConcepts", "ListReceivedGrants", "GetStorageUsage"}:
            names.append(acme.name)
        call = acme.admin
        answers = [told(call, method, request_for(acme.name, name), name) for name in names]
        assert answers[0][0] == "NOT_FOUND"
        assert victim.id not in repr(answers[0])
        assert all(answer == answers[0] for answer in answers)
        assert rows(victim) == before

    @pytest.mark.parametrize("method", ["BatchGetVersions", "CheckBlend"])
    def test_a_parent_is_a_name_too(self, acme: Tenant, victim: Tenant, method: str) -> None:
        nobody = "tenants/nobody-at-all"
        asked = [
            told(acme.call, method, NAMING[method](name, name), name)
            for name in (victim.name, nobody)
        ]
        assert asked[0] == asked[1]
        assert asked[0][0] == "NOT_FOUND"
        # The versions' own names decide, even under one's own parent.
        with refused("NOT_FOUND"):
            getattr(acme.call, method)(NAMING[method](acme.name, victim.name))

    @pytest.mark.parametrize("method", sorted(CHANGING & NAMING.keys()))
    def test_a_reader_learns_as_little(self, acme: Tenant, victim: Tenant, method: str) -> None:
        reader = acme.installation.client(acme.id, "reader")
        nobody = "tenants/nobody-at-all"
        asked = [
            told(reader, method, NAMING[method](acme.name, name), name)
            for name in (victim.name, nobody, acme.name)
        ]
        assert asked[0] == asked[1] == asked[2]
        assert asked[0][0] == "PERMISSION_DENIED"

    def test_a_request_id_of_another_tenant_is_nothing(self, acme: Tenant, victim: Tenant) -> None:
        request_id = "6f1f2f9e-52bb-4a34-8d5c-2a2f3a3c8d11"
        data = samples.adapter(7)
        for tenant in (victim, acme):
            request = samples.upload(f"{victim.name}/concepts/tom", data, request_id=request_id)
            if tenant is victim:
                victim.call.CreateVersion(request)
            else:
                with refused("NOT_FOUND"):
                    acme.call.CreateVersion(request)

    def test_an_operator_is_no_master_key(self, acme: Tenant, victim: Tenant) -> None:
        keys = [
            acme.installation.operator,
            acme.installation.client(acme.id, "operator", "admin"),
        ]
        for key in keys:
            for method, request in NAMING.items():
                refusal = answer(key, method, request(acme.name, victim.name))
                assert refusal is not None
                assert refusal.code in {"PERMISSION_DENIED", "NOT_FOUND"}


class TestRoles:
    def test_every_rpc_is_guarded(self) -> None:
        service = wire.DESCRIPTOR.services_by_name["RegistryService"]
        assert unguarded(service, RegistryServicer) == []

    @pytest.mark.parametrize("method", METHODS)
    def test_nobody_calls_without_a_credential(self, acme: Tenant, method: str) -> None:
        strangers = [
            acme.installation.client(acme.id),
            Client(acme.installation.channel, "perfuse_nobody-vouches-for-this"),
        ]
        for stranger in strangers:
            with refused("UNAUTHENTICATED"):
                getattr(stranger, method)(request_of(method))

    @pytest.mark.parametrize("method", METHODS)
    def test_roles_are_what_the_proto_says(self, acme: Tenant, method: str) -> None:
        if method in OPERATORS:
            may = {"operator"}
        elif method in ADMINS:
            may = {"admin"}
        elif method == "ListAuditEvents":
            may = {"admin", "operator"}
        elif method == "ListErasures":
            may = {"admin", "operator", "custodian"}
        elif method == "ConfirmErasure":
            may = set()
        elif method in CHANGING or "Consent" in method:
            may = {"publisher", "admin"}
        else:
            may = {"reader", "renderer", "trainer", "publisher", "admin"}
        for role in GRANTED_BY.keys() - {"delegate"}:
            client = acme.installation.client(acme.id, role)
            refusal = answer(client, method, request_of(method))
            if role in may:
                # Past the guard, it is the empty request that is wrong, if anything.
                assert refusal is None or refusal.code == "INVALID_ARGUMENT", role
            else:
                assert refusal is not None
                assert refusal.code == "PERMISSION_DENIED", role
