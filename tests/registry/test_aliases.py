"""Aliases through the API: they move, never to nothing, and every move is kept."""

from __future__ import annotations

import random

import pytest

from perfuse.v1 import registry_pb2 as wire
from registry.served import Tenant, refused


@pytest.fixture(autouse=True)
def versions(acme: Tenant) -> list[wire.Version]:
    acme.concept()
    return [acme.version(seed) for seed in range(3)]


def name_of(tenant: Tenant, alias_id: str = "prod") -> str:
    return f"{tenant.name}/concepts/tom/aliases/{alias_id}"


def get(tenant: Tenant, alias_id: str = "prod") -> wire.Alias:
    request = wire.GetAliasRequest(name=name_of(tenant, alias_id))
    found: wire.Alias = tenant.call.GetAlias(request)
    return found


def move(tenant: Tenant, version: str, etag: str) -> wire.Alias:
    sent = wire.Alias(name=name_of(tenant), version=version, etag=etag)
    moved: wire.Alias = tenant.call.UpdateAlias(wire.UpdateAliasRequest(alias=sent))
    return moved


def delete(tenant: Tenant, etag: str = "") -> None:
    tenant.call.DeleteAlias(wire.DeleteAliasRequest(name=name_of(tenant), etag=etag))


def history(tenant: Tenant) -> list[tuple[str, str]]:
    """Moves of `prod`, newest first."""
    answer = tenant.call.ListAliasMoves(wire.ListAliasMovesRequest(parent=name_of(tenant)))
    return [(entry.from_version, entry.to_version) for entry in answer.moves]


class TestCreate:
    def test_what_was_created_is_read(self, acme: Tenant, versions: list[wire.Version]) -> None:
        made = acme.alias("prod", versions[0])
        assert (made.name, made.version) == (name_of(acme), versions[0].name)
        assert made.create_time == made.update_time
        assert made.uid
        assert made.etag
        assert get(acme) == made

    def test_a_name_is_taken_once(self, acme: Tenant, versions: list[wire.Version]) -> None:
        made = acme.alias("prod", versions[0])
        with refused("ALREADY_EXISTS") as caught:
            acme.alias("prod", versions[1])
        assert caught.value.resource == made.name
        assert get(acme) == made
        assert len(history(acme)) == 1

    @pytest.mark.parametrize("alias_id", ["latest", "", "1", "Prod", "prod-", "a" * 64])
    def test_what_is_no_id_of_an_alias_is_refused(
        self, acme: Tenant, versions: list[wire.Version], alias_id: str
    ) -> None:
        with refused("INVALID_ARGUMENT", field="alias_id"):
            acme.alias(alias_id, versions[0])

    def test_what_is_not_there_is_not_found(self, acme: Tenant) -> None:
        for missing in (name_of(acme), name_of(acme).replace("tom", "tim")):
            with refused("NOT_FOUND") as caught:
                acme.call.GetAlias(wire.GetAliasRequest(name=missing))
            assert caught.value.resource == missing
            with refused("NOT_FOUND"):
                acme.call.DeleteAlias(wire.DeleteAliasRequest(name=missing))
        with refused("NOT_FOUND"):
            move(acme, f"{acme.name}/concepts/tom/versions/1", "any")


class TestTarget:
    """It is a version of the same concept, by its number, and it is there."""

    @pytest.fixture(autouse=True)
    def made(self, acme: Tenant, rival: Tenant, versions: list[wire.Version]) -> wire.Alias:
        acme.concept("tim")
        acme.version(concept_id="tim")
        rival.concept()
        rival.version()
        return acme.alias("prod", versions[0])

    def test_nothing_else_is_pointed_at(
        self, acme: Tenant, rival: Tenant, made: wire.Alias
    ) -> None:
        parent = f"{acme.name}/concepts/tom"
        for version, code in (
            (f"{parent}/versions/4", "NOT_FOUND"),
            (f"{acme.name}/concepts/tim/versions/1", "INVALID_ARGUMENT"),
            (f"{rival.name}/concepts/tom/versions/1", "INVALID_ARGUMENT"),
            (f"{parent}/versions/latest", "INVALID_ARGUMENT"),
            (f"{parent}/versions/prod", "INVALID_ARGUMENT"),
            (f"{parent}/aliases/prod", "INVALID_ARGUMENT"),
            ("1", "INVALID_ARGUMENT"),
            ("", "INVALID_ARGUMENT"),
        ):
            field = "alias.version" if code == "INVALID_ARGUMENT" else ""
            with refused(code, field=field):
                move(acme, version, made.etag)
            create = wire.CreateAliasRequest(
                parent=parent, alias_id="beta", alias=wire.Alias(version=version)
            )
            with refused(code, field=field):
                acme.call.CreateAlias(create)
        assert get(acme) == made
        assert len(history(acme)) == 1
        listed = acme.call.ListAliases(wire.ListAliasesRequest(parent=parent))
        assert list(listed.aliases) == [made]

    def test_a_deleted_version_is_not_pointed_at(
        self, acme: Tenant, versions: list[wire.Version], made: wire.Alias
    ) -> None:
        acme.call.DeleteVersion(wire.DeleteVersionRequest(name=versions[2].name))
        with refused("NOT_FOUND"):
            move(acme, versions[2].name, made.etag)


class TestEtags:
    def test_a_move_needs_one(self, acme: Tenant, versions: list[wire.Version]) -> None:
        made = acme.alias("prod", versions[0])
        with refused("INVALID_ARGUMENT", field="alias.etag"):
            move(acme, versions[1].name, "")
        assert get(acme) == made

    def test_of_two_moves_from_one_etag_one_succeeds(
        self, acme: Tenant, versions: list[wire.Version]
    ) -> None:
        made = acme.alias("prod", versions[0])
        moved = move(acme, versions[1].name, made.etag)
        assert (moved.uid, moved.create_time) == (made.uid, made.create_time)
        with refused("ABORTED", "ETAG_MISMATCH"):
            move(acme, versions[2].name, made.etag)
        assert get(acme) == moved
        again = move(acme, versions[1].name, moved.etag)  # to where it points: a move all the same
        assert len({made.etag, moved.etag, again.etag}) == 3

    def test_a_later_alias_of_the_name_has_another(
        self, acme: Tenant, versions: list[wire.Version]
    ) -> None:
        made = acme.alias("prod", versions[0])
        delete(acme, made.etag)
        again = acme.alias("prod", versions[0])
        assert again.uid != made.uid
        with refused("ABORTED", "ETAG_MISMATCH"):
            move(acme, versions[1].name, made.etag)
        with refused("ABORTED", "ETAG_MISMATCH"):
            delete(acme, made.etag)
        assert get(acme) == again
        delete(acme)


class TestHistory:
    def test_it_is_all_that_happened_newest_first(
        self, acme: Tenant, versions: list[wire.Version]
    ) -> None:
        """A walk of creations, moves and deletions, and what it should leave behind."""
        chance = random.Random(11)
        happened: list[tuple[str, str]] = []
        alias: wire.Alias | None = None
        for _ in range(24):
            target = chance.choice(versions)
            if alias is None:
                alias = acme.alias("prod", target)
                happened.append(("", target.name))
            elif chance.random() < 0.3:
                delete(acme, chance.choice(["", alias.etag]))
                happened.append((alias.version, ""))
                alias = None
            else:
                happened.append((alias.version, target.name))
                alias = move(acme, target.name, alias.etag)
            assert history(acme) == happened[::-1]
        assert {"" in entry for entry in happened} == {True, False}

    def test_it_names_who_and_when(self, acme: Tenant, versions: list[wire.Version]) -> None:
        made = acme.alias("prod", versions[0])
        others = acme.installation.client(acme.id, "publisher", subject="otto")
        moved = others.UpdateAlias(
            wire.UpdateAliasRequest(
                alias=wire.Alias(name=made.name, version=versions[1].name, etag=made.etag)
            )
        )
        answer = acme.call.ListAliasMoves(wire.ListAliasMovesRequest(parent=made.name))
        assert [entry.mover for entry in answer.moves] == ["otto", "paula"]
        times = [entry.move_time.ToNanoseconds() for entry in answer.moves]
        assert times[0] > times[1]
        assert abs(times[0] - moved.update_time.ToNanoseconds()) < 10**9

    def test_it_outlives_the_alias(self, acme: Tenant, versions: list[wire.Version]) -> None:
        acme.alias("prod", versions[0])
        delete(acme)
        with refused("NOT_FOUND"):
            get(acme)
        assert history(acme) == [(versions[0].name, ""), ("", versions[0].name)]
        acme.call.DeleteVersion(wire.DeleteVersionRequest(name=versions[0].name))
        assert len(history(acme)) == 2

    def test_what_never_was_has_none(self, acme: Tenant, versions: list[wire.Version]) -> None:
        acme.alias("beta", versions[0])
        with refused("NOT_FOUND") as caught:
            history(acme)
        assert caught.value.resource == name_of(acme)
