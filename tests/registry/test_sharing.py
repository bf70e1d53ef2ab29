"""What a grant lets its grantee do, what it does not, and that nothing is left of it afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message

from perfuse.v1 import registry_pb2 as wire
from perfuse_registry.tables import GRANTS
from registry import samples
from registry.served import Client, Installation, Tenant, refused
from registry.test_tenancy import CHANGING, NAMELESS, NAMING, answer, told

# What each access lets a grantee call, of all that names a tenant's concept. The others it may not.
RENDER = {
    *("GetConcept", "GetVersion", "BatchGetVersions", "GetAlias"),
    *("CheckCompatibility", "CheckBlend"),
}
DOWNLOADS = {"DownloadAdapter", "DownloadPreview"}
READ = {*RENDER, *DOWNLOADS, "ListVersions", "ListAliases"}
MAY = {"none": set[str](), "RENDER": RENDER, "READ": READ}
# Those that say whose in their parent alone, which no grant is about; and what of a grant itself.
OWNERS = {"CreateConcept", "ListConcepts", "ListReceivedGrants", "GetStorageUsage"}
OF_GRANTS = {"CreateGrant", "GetGrant", "ListGrants", "DeleteGrant"}


def shared(installation: Installation, access: str) -> tuple[Tenant, Tenant]:
    """An owner with all that the requests name, and a grantee."""
    owner, grantee = installation.tenant(), installation.tenant()
    owner.concept(description="our cat", labels={"secret": "yes"})
    owner.alias("prod", owner.version(0))
    owner.version(2, pictures=[samples.picture(2)])
    owner.grant("friend", "READ")
    if access != "none":
        owner.grant(grantee, access)
    return owner, grantee


def upload(concept: str, seed: int, **fields: Any) -> wire.CreateVersionRequest:
    return samples.upload(concept, samples.adapter(seed), version=wire.Version(**fields))


@pytest.mark.parametrize("access", MAY)
def test_the_matrix(installation: Installation, access: str) -> None:
    """Every rpc that names a concept, for each access: answered, or as if there were nothing."""
    owner, grantee = shared(installation, access)
    for method in NAMING.keys() - OWNERS - OF_GRANTS:
        request = NAMING[method](grantee.name, owner.name)
        refusal = answer(grantee.admin, method, request)
        if method in MAY[access]:
            assert refusal is None, (method, refusal)
        elif access == "RENDER" and method in DOWNLOADS:
            assert refusal is not None
            assert refusal.code == "PERMISSION_DENIED"
            assert "for rendering alone" in refusal.message
        else:
            # The same words as for a tenant that is not there.
            nobody = NAMING[method](grantee.name, "tenants/nobody-at-all")
            assert told(grantee.admin, method, request, owner.name) == told(
                grantee.admin, method, nobody, "tenants/nobody-at-all"
            )
            assert refusal is not None
            assert refusal.code == "NOT_FOUND"


def test_every_rpc_is_in_the_matrix() -> None:
    assert READ <= NAMING.keys()
    assert not READ & CHANGING
    assert not READ & (NAMELESS | OWNERS | OF_GRANTS)


@pytest.mark.parametrize("access", ["RENDER", "READ"])
def test_once_revoked_it_is_as_if_it_had_never_been(
    installation: Installation, access: str
) -> None:
    owner, grantee = shared(installation, access)
    name = f"{owner.name}/concepts/tom/versions/prod"
    assert grantee.call.GetVersion(wire.GetVersionRequest(name=name)).name.endswith("/1")
    owner.revoke(grantee)
    for method in READ:
        request = NAMING[method](grantee.name, owner.name)
        nobody = NAMING[method](grantee.name, "tenants/nobody-at-all")
        assert told(grantee.call, method, request, owner.name) == told(
            grantee.call, method, nobody, "tenants/nobody-at-all"
        )
    assert not listed(grantee)
    owner.grant(grantee, access)
    assert grantee.call.GetVersion(wire.GetVersionRequest(name=name)).name.endswith("/1")


def listed(tenant: Tenant, **fields: Any) -> list[str]:
    """Names of the grants that a tenant received."""
    request = wire.ListReceivedGrantsRequest(parent=tenant.name, **fields)
    return [grant.name for grant in tenant.call.ListReceivedGrants(request).grants]


class TestRenderAlone:
    @pytest.fixture
    def pair(self, installation: Installation) -> tuple[Tenant, Tenant]:
        owner, grantee = shared(installation, "RENDER")
        concept = f"{owner.name}/concepts/tom"
        run = f"{owner.name}/trainingRuns/run-1"
        sent = upload(concept, 3, description="of June", labels={"who": "tom"}, training_run=run)
        sent.previews.extend(samples.previews(samples.picture(1)))
        sent.curve.extend(samples.curve(0.5))
        owner.call.CreateVersion(sent)
        return owner, grantee

    def test_nothing_is_told_that_rendering_does_not_need(
        self, pair: tuple[Tenant, Tenant]
    ) -> None:
        owner, grantee = pair
        asked = wire.GetVersionRequest(name=f"{owner.name}/concepts/tom/versions/latest")
        whole, seen = owner.call.GetVersion(asked), grantee.call.GetVersion(asked)
        assert whole.training_run
        assert whole.labels
        assert whole.attachment_bytes
        assert whole.previews
        assert whole.curve
        assert (seen.description, seen.training_run) == ("", "")
        assert not seen.labels
        assert not seen.training
        assert (seen.attachment_bytes, len(seen.previews), len(seen.curve)) == (0, 0, 0)
        for field in ("name", "digest", "base_model", "bias", "super_category", "etag"):
            assert getattr(seen, field) == getattr(whole, field)
        (batched,) = grantee.call.BatchGetVersions(
            wire.BatchGetVersionsRequest(parent=grantee.name, names=[asked.name])
        ).versions
        assert batched == seen
        concept = grantee.call.GetConcept(wire.GetConceptRequest(name=f"{owner.name}/concepts/tom"))
        assert (concept.super_category, concept.description) == ("cat", "")
        assert not concept.labels

    def test_its_bytes_go_to_a_custodian_alone(self, pair: tuple[Tenant, Tenant]) -> None:
        owner, grantee = pair
        tokens, channel = grantee.installation.tokens, grantee.installation.channel
        name = f"{owner.name}/concepts/tom/versions/1"
        asked = wire.DownloadAdapterRequest(name=name)
        knows = wire.DownloadAdapterRequest(
            name=name, known_digest=owner.call.GetVersion(wire.GetVersionRequest(name=name)).digest
        )
        custodian = tokens.issue("platform", "custodian")
        mine = tokens.issue(grantee.id, "renderer")
        for request in (asked, knows):
            with refused("PERMISSION_DENIED"):
                Client(channel, mine).DownloadAdapter(request)
        through = Client(channel, mine, custodian)
        assert through.DownloadAdapter(asked).adapter == owner.bytes_of(name)
        # Neither of the two credentials is worth anything without the other.
        with refused("PERMISSION_DENIED"):
            Client(channel, custodian).DownloadAdapter(asked)
        with refused("UNAUTHENTICATED"):
            Client(channel, "", custodian).DownloadAdapter(asked)
        for no_custodian in (mine, tokens.issue(grantee.id, "admin"), "made-up"):
            with refused("UNAUTHENTICATED"):
                Client(channel, mine, no_custodian).DownloadAdapter(asked)
        stranger = tokens.issue(grantee.installation.tenant().id, "admin")
        with refused("NOT_FOUND"):
            Client(channel, stranger, custodian).DownloadAdapter(asked)
        owner.revoke(grantee)
        with refused("NOT_FOUND"):
            through.DownloadAdapter(asked)

    def test_cosines_are_told_to_no_one_who_may_not_read(self, installation: Installation) -> None:
        """A grantee could ask for the cosines with its own concepts, one for each dimension."""
        owner, grantee = installation.tenant(), installation.tenant()
        target = [1.0, 2.0, *[0.5] * (samples.WIDTH - 2)]
        owner.concept()
        owner.version(target_input=target)
        grantee.concept("probe")
        near = grantee.version(concept_id="probe", target_input=target).name
        far = grantee.version(
            1, concept_id="probe", target_input=[1.0, *[0.0] * (samples.WIDTH - 1)]
        ).name
        theirs = f"{owner.name}/concepts/tom/versions/1"

        def pairs(*versions: str) -> wire.CheckBlendResponse:
            return grantee.call.CheckBlend(
                wire.CheckBlendRequest(parent=grantee.name, versions=versions)
            )

        owner.grant(grantee, "RENDER")
        (pair,) = pairs(theirs, far).pairs
        assert (pair.cosine, pair.cosine_withheld, pair.too_close) == (0.0, True, False)
        close = pairs(theirs, near)
        assert close.pairs[0].too_close
        assert not close.blendable
        assert "1.0000" not in close.problems[0]
        (own,) = pairs(near, far).pairs
        assert own.cosine
        assert not own.cosine_withheld
        owner.revoke(grantee)
        owner.grant(grantee, "READ")
        (pair,) = pairs(theirs, far).pairs
        assert pair.cosine == pytest.approx(own.cosine, abs=1e-3)
        assert not pair.cosine_withheld


class TestGrants:
    def test_owner_and_grantee_see_it_and_nobody_else(
        self, acme: Tenant, rival: Tenant, installation: Installation
    ) -> None:
        acme.concept()
        made = acme.grant(rival, "READ")
        assert made.name == f"{acme.name}/concepts/tom/grants/{rival.id}"
        assert made.access == wire.GRANT_ACCESS_READ
        assert made.super_category == "cat"
        asked = wire.GetGrantRequest(name=made.name)
        assert acme.call.GetGrant(asked) == rival.call.GetGrant(asked) == made
        with refused("NOT_FOUND"):
            installation.tenant().call.GetGrant(asked)
        # The grantee cannot change it, whatever its roles at home.
        with refused("NOT_FOUND"):
            rival.admin.DeleteGrant(wire.DeleteGrantRequest(name=made.name))

    def test_both_lists_page(self, acme: Tenant, rival: Tenant) -> None:
        for concept_id in ("c", "a", "b"):
            acme.concept(concept_id)
            acme.grant(rival, "RENDER", concept_id)
        acme.concept("mine-alone")
        for grantee in ("zeta", "beta"):
            acme.grant(grantee, "READ", "a")
        request = wire.ListGrantsRequest(parent=f"{acme.name}/concepts/a", page_size=2)
        first = acme.call.ListGrants(request)
        assert [grant.name.rpartition("/")[2] for grant in first.grants] == sorted(
            ["beta", "zeta", rival.id]
        )[:2]
        request.page_token = first.next_page_token
        second = acme.call.ListGrants(request)
        assert len(second.grants) == 1
        assert not second.next_page_token
        everything = listed(rival)
        assert [name.split("/")[3] for name in everything] == ["c", "a", "b"]
        received = wire.ListReceivedGrantsRequest(parent=rival.name, page_size=2)
        page = rival.call.ListReceivedGrants(received)
        received.page_token = page.next_page_token
        rest = rival.call.ListReceivedGrants(received)
        assert [grant.name for grant in (*page.grants, *rest.grants)] == everything
        with refused("INVALID_ARGUMENT"):
            acme.call.ListReceivedGrants(
                wire.ListReceivedGrantsRequest(parent=acme.name, page_token=page.next_page_token)
            )

    def test_it_is_made_once(self, acme: Tenant, rival: Tenant) -> None:
        acme.concept()
        request = wire.CreateGrantRequest(
            parent=f"{acme.name}/concepts/tom",
            grant_id=rival.id,
            grant=wire.Grant(access=wire.GRANT_ACCESS_RENDER),
            request_id="0b51c5b6-0a3f-4a52-9c0c-41c1e6dcb8a1",
        )
        made = acme.admin.CreateGrant(request)
        assert acme.admin.CreateGrant(request) == made
        with refused("ALREADY_EXISTS"):
            acme.grant(rival, "READ")
        with refused("ABORTED", "ETAG_MISMATCH"):
            acme.admin.DeleteGrant(wire.DeleteGrantRequest(name=made.name, etag='"another"'))
        gone = wire.DeleteGrantRequest(
            name=made.name, etag=made.etag, request_id="0b51c5b6-0a3f-4a52-9c0c-41c1e6dcb8a2"
        )
        acme.admin.DeleteGrant(gone)
        acme.admin.DeleteGrant(gone)
        with refused("NOT_FOUND"):
            acme.revoke(rival)
        # A later one under its name is another.
        assert acme.grant(rival, "READ").etag != made.etag

    @pytest.mark.parametrize(
        "change",
        [
            lambda request: request.ClearField("grant"),
            lambda request: request.grant.ClearField("access"),
            lambda request: setattr(request.grant, "access", 7),
            lambda request: setattr(request, "grant_id", "Not An Id"),
            lambda request: setattr(request, "grant_id", request.parent.split("/")[1]),
        ],
    )
    def test_what_is_no_grant_is_refused(
        self, acme: Tenant, change: Callable[[Any], Message]
    ) -> None:
        acme.concept()
        request = wire.CreateGrantRequest(
            parent=f"{acme.name}/concepts/tom",
            grant_id="other",
            grant=wire.Grant(access=wire.GRANT_ACCESS_RENDER),
        )
        change(request)
        with refused("INVALID_ARGUMENT"):
            acme.admin.CreateGrant(request)

    def test_a_deleted_concept_is_granted_to_nobody(self, acme: Tenant, rival: Tenant) -> None:
        acme.concept()
        acme.version()
        grant = acme.grant(rival, "READ")
        concept = f"{acme.name}/concepts/tom"
        version = wire.GetVersionRequest(name=f"{concept}/versions/1")
        acme.call.DeleteConcept(wire.DeleteConceptRequest(name=concept, force=True))
        for method, request in (
            ("GetVersion", version),
            ("GetConcept", wire.GetConceptRequest(name=concept)),
            ("GetGrant", wire.GetGrantRequest(name=grant.name)),
        ):
            with refused("NOT_FOUND"):
                getattr(rival.call, method)(request)
        assert not listed(rival)
        with refused("FAILED_PRECONDITION", "CONCEPT_DELETED"):
            acme.grant("other")
        acme.call.UndeleteConcept(wire.UndeleteConceptRequest(name=concept))
        assert listed(rival) == [grant.name]
        assert rival.call.GetVersion(version).name == version.name

    def test_two_tenants_concepts_of_one_id_never_cross(
        self, acme: Tenant, rival: Tenant, installation: Installation
    ) -> None:
        grantee = installation.tenant()
        for seed, tenant in enumerate((acme, rival, grantee)):
            tenant.concept()
            tenant.version(seed)
            tenant.alias("prod", tenant.version(seed + 10))
        acme.grant(grantee, "READ")
        for version in ("latest", "prod", "1"):
            name = f"concepts/tom/versions/{version}"
            own = grantee.bytes_of(f"{grantee.name}/{name}")
            assert grantee.bytes_of(f"{acme.name}/{name}") == acme.bytes_of(f"{acme.name}/{name}")
            assert grantee.bytes_of(f"{grantee.name}/{name}") == own
            with refused("NOT_FOUND"):
                grantee.bytes_of(f"{rival.name}/{name}")
        # Nor does a grant go the other way.
        with refused("NOT_FOUND"):
            acme.bytes_of(f"{grantee.name}/concepts/tom/versions/1")


def test_a_purged_concept_leaves_no_grant(backend: str, tmp_path: Any) -> None:
    from datetime import timedelta

    from registry.served import installed

    with installed(backend, tmp_path, concept_retention=timedelta(0)) as installation:
        acme, rival = installation.tenant(), installation.tenant()
        acme.concept()
        acme.version()
        acme.grant(rival, "READ")
        concept = f"{acme.name}/concepts/tom"
        acme.call.DeleteConcept(wire.DeleteConceptRequest(name=concept, force=True))
        installation.operator.CollectGarbage(wire.CollectGarbageRequest())
        assert not installation.rows(GRANTS)
        # One made anew under its name is another concept, granted to nobody.
        acme.concept()
        acme.version()
        with refused("NOT_FOUND"):
            rival.call.GetConcept(wire.GetConceptRequest(name=concept))
