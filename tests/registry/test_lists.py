"""Every list: pages make it up, filters and orders choose it, tokens fit nothing else."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from perfuse.adapter import digest
from perfuse.v1 import audit_pb2, consent_pb2, erasure_pb2
from perfuse.v1 import registry_pb2 as wire
from registry import samples
from registry.served import BASE_MODEL, METHODS, Client, Installation, Tenant, refused

COUNT = 7


@dataclass(frozen=True)
class Listed:
    """One list rpc.

    Attributes:
        items: The response's field.
        fill: Makes some `COUNT` of what is listed.
        request: For the list, without anything about pages.
        queries: Ways to ask for more than one page.
    """

    items: str
    fill: Callable[[Tenant], None]
    request: Callable[[Tenant], Any]
    queries: tuple[dict[str, Any], ...] = ({},)


def fill_concepts(tenant: Tenant) -> None:
    for index in range(COUNT):
        # Neither in the order of ids nor against it.
        labels = {"team": "a" if index % 2 else "b"}
        tenant.concept(f"c{index * 3 % COUNT}", labels=labels, display_name=f"Number {index}")
    for concept_id in ("c2", "c5"):
        tenant.call.DeleteConcept(
            wire.DeleteConceptRequest(name=f"{tenant.name}/concepts/{concept_id}")
        )
    tenant.call.UpdateConcept(
        wire.UpdateConceptRequest(
            concept=wire.Concept(name=f"{tenant.name}/concepts/c1", description="changed")
        )
    )


def fill_versions(tenant: Tenant) -> None:
    tenant.concept()
    for index in range(COUNT):
        tenant.call.CreateVersion(
            samples.upload(
                f"{tenant.name}/concepts/tom",
                samples.adapter(index % 3, key_lock="TRAINED_K" if index % 2 else "LOCAL"),
                version=wire.Version(
                    labels={"half": "low" if index < 3 else "high"},
                    training_run=f"{tenant.name}/trainingRuns/run-{index // 2}",
                ),
            )
        )
    tenant.call.UpdateVersion(
        wire.UpdateVersionRequest(
            version=wire.Version(
                name=f"{tenant.name}/concepts/tom/versions/2", description="changed"
            )
        )
    )


def fill_aliases(tenant: Tenant) -> None:
    tenant.concept()
    made = tenant.version()
    for index in range(COUNT):
        tenant.alias(f"a{index * 3 % COUNT}", made)


def fill_moves(tenant: Tenant) -> None:
    tenant.concept()
    alias = tenant.alias("prod", tenant.version())
    for _ in range(COUNT - 1):
        alias = move(tenant, alias)


def move(tenant: Tenant, alias: wire.Alias) -> wire.Alias:
    sent = wire.Alias(name=alias.name, version=alias.version, etag=alias.etag)
    moved: wire.Alias = tenant.call.UpdateAlias(wire.UpdateAliasRequest(alias=sent))
    return moved


def fill_base_models(tenant: Tenant) -> None:
    for index in range(COUNT):
        described = samples.base_model(digest(f"{tenant.id} {index}".encode()))
        described.labels["owner"] = tenant.id
        described.architecture = f"sd-{index % 2}"
        tenant.installation.operator.CreateBaseModel(
            wire.CreateBaseModelRequest(
                base_model_id=f"{tenant.id}-b{index * 3 % COUNT}", base_model=described
            )
        )


def fill_erasures(tenant: Tenant) -> None:
    for index in range(COUNT):
        concept = tenant.concept(f"c{index * 3 % COUNT}")
        tenant.admin.EraseConcept(
            erasure_pb2.EraseConceptRequest(name=concept.name, etag=concept.etag)
        )


def fill_grants(tenant: Tenant) -> None:
    tenant.concept()
    for index in range(COUNT):
        tenant.grant(f"g{index * 3 % COUNT}", "READ" if index % 2 else "RENDER")


def fill_received(tenant: Tenant) -> None:
    givers = [tenant.installation.tenant() for _ in range(3)]
    for index in range(COUNT):
        giver = givers[index % 3]
        giver.concept(f"c{index}")
        giver.grant(tenant, concept_id=f"c{index}")


def fill_consents(tenant: Tenant) -> None:
    tenant.concept(likeness=True)
    for index in range(COUNT):
        consent = consent_pb2.Consent(
            giver=f"form {index}",
            scopes=["CONSENT_SCOPE_TRAIN"],
            expire_time=Timestamp(seconds=4102444800),
        )
        tenant.call.CreateConsent(
            consent_pb2.CreateConsentRequest(
                parent=f"{tenant.name}/concepts/tom",
                consent_id=f"c{index * 3 % COUNT}",
                consent=consent,
            )
        )


LISTS = {
    "ListConcepts": Listed(
        "concepts",
        fill_concepts,
        lambda tenant: wire.ListConceptsRequest(parent=tenant.name),
        (
            {},
            {"show_deleted": True},
            {"order_by": "concept_id desc", "filter": 'labels.team = "a"'},
            {"order_by": "update_time desc", "show_deleted": True},
            {"order_by": "create_time, concept_id", "filter": "NOT display_name = 'Number 0'"},
        ),
    ),
    "ListVersions": Listed(
        "versions",
        fill_versions,
        lambda tenant: wire.ListVersionsRequest(parent=f"{tenant.name}/concepts/tom"),
        (
            {},
            {"order_by": "number"},
            {"order_by": "update_time", "filter": "key_lock = LOCAL"},
            {"order_by": "create_time desc, number", "filter": "number > 1"},
        ),
    ),
    "ListAliases": Listed(
        "aliases",
        fill_aliases,
        lambda tenant: wire.ListAliasesRequest(parent=f"{tenant.name}/concepts/tom"),
    ),
    "ListAliasMoves": Listed(
        "moves",
        fill_moves,
        lambda tenant: wire.ListAliasMovesRequest(
            parent=f"{tenant.name}/concepts/tom/aliases/prod"
        ),
    ),
    "ListGrants": Listed(
        "grants",
        fill_grants,
        lambda tenant: wire.ListGrantsRequest(parent=f"{tenant.name}/concepts/tom"),
    ),
    "ListReceivedGrants": Listed(
        "grants",
        fill_received,
        lambda tenant: wire.ListReceivedGrantsRequest(parent=tenant.name),
    ),
    "ListConsents": Listed(
        "consents",
        fill_consents,
        lambda tenant: consent_pb2.ListConsentsRequest(parent=f"{tenant.name}/concepts/tom"),
    ),
    "ListErasures": Listed(
        "erasures",
        fill_erasures,
        lambda tenant: erasure_pb2.ListErasuresRequest(parent=tenant.name),
    ),
    "ListAuditEvents": Listed(
        "audit_events",
        fill_concepts,
        lambda tenant: audit_pb2.ListAuditEventsRequest(parent=tenant.name),
        ({}, {"filter": 'rpc = "CreateConcept"'}),
    ),
    "ListBaseModels": Listed(
        "base_models",
        fill_base_models,
        lambda tenant: wire.ListBaseModelsRequest(filter=f'labels.owner = "{tenant.id}"'),
        ({}, {"filter": "create_time > 2000-01-01T00:00:00Z"}),
    ),
}
each = pytest.mark.parametrize("method", LISTS)


def test_every_list_is_here() -> None:
    assert LISTS.keys() == {
        name for name, method in METHODS.items() if "page_token" in method.input_type.fields_by_name
    }


Stock = dict[str, tuple[Tenant, Tenant]]


@pytest.fixture(scope="module")
def stock(installation: Installation) -> Stock:
    """For each list two tenants that have it, for tests that change nothing."""
    found = {}
    for method, listed in LISTS.items():
        found[method] = installation.tenant(), installation.tenant()
        for tenant in found[method]:
            listed.fill(tenant)
    return found


def asked(listed: Listed, tenant: Tenant, **fields: Any) -> Any:
    request = listed.request(tenant)
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def walk(method: str, tenant: Tenant, size: int, **fields: Any) -> list[list[Any]]:
    """The pages of a list."""
    listed = LISTS[method]
    request = asked(listed, tenant, page_size=size, **fields)
    pages = []
    while True:
        answer = getattr(tenant.admin, method)(request)
        pages.append(list(getattr(answer, listed.items)))
        if not answer.next_page_token:
            return pages
        request.page_token = answer.next_page_token


class TestPages:
    @each
    def test_they_make_up_the_list(self, stock: Stock, method: str) -> None:
        tenant, _ = stock[method]
        for query in LISTS[method].queries:
            (whole,) = walk(method, tenant, 1000, **query)
            assert len(whole) > 1
            for size in {1, 2, len(whole) - 1, len(whole)}:
                pages = walk(method, tenant, size, **query)
                assert [item for page in pages for item in page] == whole
                assert all(len(page) == size for page in pages[:-1])
                assert 0 < len(pages[-1]) <= size

    @each
    def test_sizes_have_a_default_a_cap_and_no_sign(self, stock: Stock, method: str) -> None:
        listed, (tenant, _) = LISTS[method], stock[method]
        call = getattr(tenant.admin, method)
        whole = call(asked(listed, tenant, page_size=1000))
        for size in (0, 1001, 2**31 - 1):
            assert call(asked(listed, tenant, page_size=size)) == whole
        with refused("INVALID_ARGUMENT", field="page_size"):
            call(asked(listed, tenant, page_size=-1))

    def test_by_default_they_have_fifty(self, acme: Tenant) -> None:
        acme.concept()
        made = acme.version()
        alias = acme.alias("prod", made)
        for _ in range(50):
            alias = move(acme, alias)
        assert [len(page) for page in walk("ListAliasMoves", acme, 0)] == [50, 1]

    def test_an_empty_list_has_one_empty_page(self, acme: Tenant) -> None:
        assert walk("ListConcepts", acme, 1) == [[]]
        acme.concept()
        assert walk("ListVersions", acme, 1) == walk("ListAliases", acme, 1) == [[]]

    def test_what_comes_and_goes_meanwhile_moves_nothing_else(self, acme: Tenant) -> None:
        fill_versions(acme)
        parent = f"{acme.name}/concepts/tom"
        request = wire.ListVersionsRequest(parent=parent, page_size=2)
        seen: list[str] = []
        gone = iter(("5", "4"))
        while True:
            answer = acme.call.ListVersions(request)
            seen += [version.name for version in answer.versions]
            acme.version(8)
            if number := next(gone, ""):
                name = f"{parent}/versions/{number}"
                acme.call.DeleteVersion(wire.DeleteVersionRequest(name=name))
            if not answer.next_page_token:
                break
            request.page_token = answer.next_page_token
        # 5 went before it was seen, 4 after.
        assert seen == [f"{parent}/versions/{number}" for number in (7, 6, 4, 3, 2, 1)]


class TestTokens:
    @each
    def test_they_continue_one_list_alone(self, stock: Stock, method: str) -> None:
        listed, (acme, rival) = LISTS[method], stock[method]
        call = getattr(acme.admin, method)
        request = asked(listed, acme, page_size=2)
        first = call(request)
        request.page_token = first.next_page_token
        second = call(request)

        others: list[tuple[Client, Any]] = [
            (rival.admin, asked(listed, rival)),
            *((acme.admin, asked(listed, acme, **query)) for query in listed.queries if query),
        ]
        for client, other in others:
            other.page_size, other.page_token = 2, first.next_page_token
            with refused("INVALID_ARGUMENT", field="page_token"):
                getattr(client, method)(other)
        # Another size is not another list.
        request.page_size = 1
        answer = call(request)
        assert getattr(answer, listed.items)[0] == getattr(second, listed.items)[0]

    def test_base_models_are_the_same_for_all_and_their_tokens_are_not(self, stock: Stock) -> None:
        acme, rival = stock["ListBaseModels"]
        request = wire.ListBaseModelsRequest(page_size=2)
        request.page_token = acme.call.ListBaseModels(request).next_page_token
        acme.call.ListBaseModels(request)
        with refused("INVALID_ARGUMENT", field="page_token"):
            rival.call.ListBaseModels(request)

    def test_a_token_of_another_rpc_is_refused(self, acme: Tenant) -> None:
        fill_aliases(acme)
        for seed in range(3):
            acme.version(seed)
        parent = f"{acme.name}/concepts/tom"
        aliases = wire.ListAliasesRequest(parent=parent, page_size=1)
        token = acme.call.ListAliases(aliases).next_page_token
        with refused("INVALID_ARGUMENT", field="page_token"):
            acme.call.ListVersions(wire.ListVersionsRequest(parent=parent, page_token=token))

    def test_one_that_was_tampered_with_is_refused(self, stock: Stock) -> None:
        acme, _ = stock["ListConcepts"]
        request = wire.ListConceptsRequest(parent=acme.name, page_size=2)
        token = acme.call.ListConcepts(request).next_page_token
        raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        raw[-2] ^= 1
        forged = base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode()
        for wrong in (forged, token[:-1], token + "A", token + "=", "x", "\0", "ы" * 10):
            request.page_token = wrong
            with refused("INVALID_ARGUMENT", field="page_token"):
                acme.call.ListConcepts(request)
        request.page_token = "x" * 1025
        with refused("INVALID_ARGUMENT", field="page_token"):
            acme.call.ListConcepts(request)


def ids(items: Any) -> str:
    return " ".join(item.name.rpartition("/")[2] for item in items)


class TestConcepts:
    """c0 c3 c6 c2 c5 c1 c4 in the order they were made; c2 and c5 deleted, c1 changed last."""

    @pytest.fixture
    def acme(self, stock: Stock) -> Tenant:
        return stock["ListConcepts"][0]

    def listed(self, tenant: Tenant, **fields: Any) -> str:
        request = wire.ListConceptsRequest(parent=tenant.name, **fields)
        return ids(tenant.call.ListConcepts(request).concepts)

    def test_orders(self, acme: Tenant) -> None:
        for order_by, expected in (
            ("", "c0 c3 c6 c1 c4"),
            ("create_time", "c0 c3 c6 c1 c4"),
            ("create_time desc", "c4 c1 c6 c3 c0"),
            ("concept_id", "c0 c1 c3 c4 c6"),
            ("concept_id  desc , create_time", "c6 c4 c3 c1 c0"),
            ("update_time desc", "c1 c4 c6 c3 c0"),
        ):
            assert self.listed(acme, order_by=order_by) == expected, order_by
        for wrong in ("colour", "name", "concept_id up", "display_name", "labels.team",
                      "concept_id; DROP TABLE concepts", "concept_id, concept_id"):  # fmt: skip
            with refused("INVALID_ARGUMENT", field="order_by"):
                self.listed(acme, order_by=wrong)

    def test_filters(self, acme: Tenant) -> None:
        c3 = acme.call.GetConcept(wire.GetConceptRequest(name=f"{acme.name}/concepts/c3"))
        c4 = acme.call.GetConcept(wire.GetConceptRequest(name=f"{acme.name}/concepts/c4"))
        for text, expected in (
            ("concept_id = c3", "c3"),
            ("concept_id > c3", "c6 c4"),
            ('display_name = "Number 1"', "c3"),
            ('display_name = "Number*"', "c0 c3 c6 c1 c4"),
            ("super_category = cat", "c0 c3 c6 c1 c4"),
            ("super_category = dog", ""),
            (f"create_time <= {c3.create_time.ToJsonString()}", "c0 c3"),
            (f"update_time > {c4.update_time.ToJsonString()}", "c1"),
            ("labels.team = a", "c3 c1"),
            ("labels:team", "c0 c3 c6 c1 c4"),
            ("labels:colour", ""),
            ("labels.team = a AND NOT concept_id = c1", "c3"),
            ("concept_id = c0 OR concept_id = c2", "c0"),
        ):
            assert self.listed(acme, filter=text) == expected, text
        assert self.listed(acme, filter="concept_id = c2", show_deleted=True) == "c2"
        for wrong in ("colour = red", "concept_id", "concept_id =", "id = 1", "tenant = x", "(",
                      "create_time > yesterday", "1 = 1", "uid = x", "x" * 1025):  # fmt: skip
            with refused("INVALID_ARGUMENT", field="filter"):
                self.listed(acme, filter=wrong)

    def test_the_deleted_are_shown_on_demand(self, acme: Tenant) -> None:
        assert self.listed(acme, show_deleted=True) == "c0 c3 c6 c2 c5 c1 c4"

    def test_each_tenant_sees_its_own(self, acme: Tenant, rival: Tenant) -> None:
        rival.concept("c9")
        assert self.listed(rival) == "c9"
        assert "c9" not in self.listed(acme)


class TestVersions:
    """Numbers 1 to 7; 2 changed last."""

    @pytest.fixture
    def acme(self, stock: Stock) -> Tenant:
        return stock["ListVersions"][0]

    def listed(self, tenant: Tenant, **fields: Any) -> str:
        request = wire.ListVersionsRequest(parent=f"{tenant.name}/concepts/tom", **fields)
        return ids(tenant.call.ListVersions(request).versions)

    def test_orders(self, acme: Tenant) -> None:
        for order_by, expected in (
            ("", "7 6 5 4 3 2 1"),
            ("number", "1 2 3 4 5 6 7"),
            ("number desc", "7 6 5 4 3 2 1"),
            ("create_time", "1 2 3 4 5 6 7"),
            ("update_time desc", "2 7 6 5 4 3 1"),
        ):
            assert self.listed(acme, order_by=order_by) == expected, order_by
        for wrong in ("digest", "bias", "name"):
            with refused("INVALID_ARGUMENT", field="order_by"):
                self.listed(acme, order_by=wrong)

    def test_filters(self, acme: Tenant) -> None:
        versions = [
            acme.call.GetVersion(
                wire.GetVersionRequest(name=f"{acme.name}/concepts/tom/versions/{number}")
            )
            for number in range(1, COUNT + 1)
        ]
        for text, expected in (
            ("number >= 6", "7 6"),
            ("number = 9223372036854775807", ""),
            (f'digest = "{versions[1].digest}"', "2"),
            (f'base_model = "{BASE_MODEL}"', "7 6 5 4 3 2 1"),
            ('base_model = "small"', ""),
            ("key_lock = LOCAL", "7 5 3 1"),
            ("key_lock != LOCAL", "6 4 2"),
            (f'training_run = "{acme.name}/trainingRuns/run-1"', "4 3"),
            ('training_run = "*run-3"', "7"),
            (f"create_time > {versions[5].create_time.ToJsonString()}", "7"),
            (f"update_time >= {versions[1].update_time.ToJsonString()}", "2"),
            ("labels.half = high AND number < 6", "5 4"),
        ):
            assert self.listed(acme, filter=text) == expected, text
        for wrong in ("description = x", "number = 9223372036854775808", "number = x",
                      "key_lock = GLOBAL", "key_lock > LOCAL", "size_bytes > 1"):  # fmt: skip
            with refused("INVALID_ARGUMENT", field="filter"):
                self.listed(acme, filter=wrong)


def test_aliases_come_by_name(stock: Stock) -> None:
    acme, _ = stock["ListAliases"]
    request = wire.ListAliasesRequest(parent=f"{acme.name}/concepts/tom")
    assert ids(acme.call.ListAliases(request).aliases) == "a0 a1 a2 a3 a4 a5 a6"


def test_base_models_come_by_name_and_are_filtered(stock: Stock) -> None:
    acme, _ = stock["ListBaseModels"]
    mine = f'labels.owner = "{acme.id}"'

    def listed(text: str) -> list[wire.BaseModel]:
        answer = acme.call.ListBaseModels(wire.ListBaseModelsRequest(filter=text))
        return list(answer.base_models)

    every = listed(mine)
    assert ids(every) == " ".join(f"{acme.id}-b{index}" for index in range(COUNT))
    first = every[0]
    for text, expected in (
        (f'{mine} AND base_model_id = "*-b3"', "b3"),
        (f'fingerprint = "{first.fingerprint}"', "b0"),
        (f"{mine} AND architecture = sd-1", "b1 b2 b3"),
        (f"{mine} AND create_time <= {first.create_time.ToJsonString()}", "b0"),
    ):
        assert ids(listed(text)).replace(f"{acme.id}-", "") == expected, text
    with refused("INVALID_ARGUMENT", field="filter"):
        listed("conditioning_width = 12")
