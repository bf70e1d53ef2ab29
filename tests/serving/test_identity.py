"""Tokens: who holds one is known, nobody else is, and the file may change at any time."""

from __future__ import annotations

import asyncio
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from perfuse.errors import FailedPrecondition, InvalidArgument, Unauthenticated
from perfuse.serving import Caller, TokenAuthenticator, mint
from perfuse.serving.identity import ON_BEHALF_OF
from perfuse.serving.roles import GRANTED_BY

GOOD = {"tenant": "acme", "subject": "alice", "roles": ["reader"], "sha256": "0" * 64}


def who(authenticator: TokenAuthenticator, token: str, scheme: str = "Bearer ") -> Caller:
    return asyncio.run(authenticator.authenticate({"authorization": scheme + token}))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


class TestMint:
    def test_the_token_names_its_caller(self, path: Path) -> None:
        alice = mint(path, "acme", "alice@acme.example", ["publisher", "operator"])
        bob = mint(path, "globex", "bob", ["reader"])
        known = TokenAuthenticator(path)
        expected = Caller("acme", "alice@acme.example", frozenset({"publisher", "operator"}))
        assert who(known, alice) == expected
        assert who(known, bob) == Caller("globex", "bob", frozenset({"reader"}))

    def test_the_file_is_its_owners_and_holds_no_token(self, path: Path) -> None:
        token = mint(path, "acme", "alice", ["reader"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert token not in path.read_text()
        assert token.removeprefix("perfuse_") not in path.read_text()

    def test_no_two_tokens_are_alike(self, path: Path) -> None:
        assert len({mint(path, "acme", "alice", ["reader"]) for _ in range(20)}) == 20

    def test_many_may_mint_at_once(self, path: Path) -> None:
        with ThreadPoolExecutor(8) as pool:
            tokens = list(pool.map(lambda n: mint(path, "acme", f"s{n}", ["reader"]), range(40)))
        known = TokenAuthenticator(path)
        assert [who(known, token).subject for token in tokens] == [f"s{n}" for n in range(40)]

    def test_a_line_without_its_end_is_kept_apart(self, path: Path) -> None:
        first = mint(path, "acme", "alice", ["reader"])
        path.write_text(path.read_text().rstrip("\n"))
        second = mint(path, "acme", "bob", ["reader"])
        known = TokenAuthenticator(path)
        assert [who(known, token).subject for token in (first, second)] == ["alice", "bob"]

    @pytest.mark.parametrize(
        ("tenant", "subject", "roles", "field"),
        [
            ("Acme", "alice", ["reader"], "tenant"),
            ("", "alice", ["reader"], "tenant"),
            ("acme", "", ["reader"], "subject"),
            ("acme", "a\nb", ["reader"], "subject"),
            ("acme", "x" * 129, ["reader"], "subject"),
            ("acme", "alice", [], "roles"),
            ("acme", "alice", ["reader", "root"], "roles"),
        ],
    )
    def test_refuses_what_breaks_a_rule(
        self, path: Path, tenant: str, subject: str, roles: list[str], field: str
    ) -> None:
        with pytest.raises(InvalidArgument) as caught:
            mint(path, tenant, subject, roles)
        assert [name for name, _ in caught.value.violations] == [field]
        assert not path.exists()


class TestAuthenticate:
    @settings(deadline=None, max_examples=50, derandomize=True)
    @given(st.text(), st.integers(0, 60), st.characters())
    def test_whatever_is_not_the_token_is_refused(
        self, tmp_path_factory: pytest.TempPathFactory, text: str, place: int, letter: str
    ) -> None:
        path = tmp_path_factory.mktemp("tokens") / "tokens"
        token = mint(path, "acme", "alice", ["reader"])
        known = TokenAuthenticator(path)
        changed = token[:place] + letter + token[place + 1 :]
        for other in {text, token + text, text + token, changed, token[:-1], ""} - {token}:
            with pytest.raises(Unauthenticated):
                who(known, other)

    def test_the_scheme_is_bearer_in_any_case(self, path: Path) -> None:
        token = mint(path, "acme", "alice", ["reader"])
        known = TokenAuthenticator(path)
        assert who(known, token, "bearer ") == who(known, token, "BEARER ")
        for scheme in ("Basic ", "Bearer", "Bearer  ", ""):
            with pytest.raises(Unauthenticated):
                who(known, token, scheme)

    def test_no_metadata_is_no_caller(self, path: Path) -> None:
        mint(path, "acme", "alice", ["reader"])
        with pytest.raises(Unauthenticated):
            asyncio.run(TokenAuthenticator(path).authenticate({}))


class TestDelegates:
    def test_act_for_the_tenant_that_they_name(self, path: Path) -> None:
        token = mint(path, "platform", "trainer", ["delegate"])
        metadata = {"authorization": f"Bearer {token}", ON_BEHALF_OF: "acme"}
        caller = asyncio.run(TokenAuthenticator(path).authenticate(metadata))
        assert caller == Caller("acme", "trainer", frozenset({"delegate"}))

    @pytest.mark.parametrize("named", [None, "", "ACME", "acme/rival", "a" * 64])
    def test_are_nobody_without_one(self, path: Path, named: str | None) -> None:
        token = mint(path, "platform", "trainer", ["delegate", "admin"])
        metadata = {"authorization": f"Bearer {token}"}
        metadata |= {} if named is None else {ON_BEHALF_OF: named}
        with pytest.raises(Unauthenticated):
            asyncio.run(TokenAuthenticator(path).authenticate(metadata))

    @pytest.mark.parametrize("role", sorted(set(GRANTED_BY) - {"delegate"}))
    def test_are_the_only_ones_who_act_for_others(self, path: Path, role: str) -> None:
        token = mint(path, "acme", "alice", [role])
        metadata = {"authorization": f"Bearer {token}", ON_BEHALF_OF: "rival"}
        caller = asyncio.run(TokenAuthenticator(path).authenticate(metadata))
        assert caller == Caller("acme", "alice", frozenset({role}))


class TestChanges:
    def test_a_new_token_is_in_force_at_once(self, path: Path) -> None:
        mint(path, "acme", "alice", ["reader"])
        known = TokenAuthenticator(path)
        assert who(known, mint(path, "acme", "bob", ["admin"])).subject == "bob"

    def test_a_token_whose_line_is_gone_is_out_of_force_at_once(self, path: Path) -> None:
        alice, bob = (mint(path, "acme", name, ["reader"]) for name in ("alice", "bob"))
        known = TokenAuthenticator(path)
        assert who(known, alice).subject == "alice"
        path.write_text(path.read_text().splitlines()[1] + "\n")
        with pytest.raises(Unauthenticated):
            who(known, alice)
        assert who(known, bob).subject == "bob"

    def test_a_line_that_turns_bad_vouches_for_nobody_and_the_others_do(self, path: Path) -> None:
        alice, bob = (mint(path, "acme", name, ["reader"]) for name in ("alice", "bob"))
        known = TokenAuthenticator(path)
        first, second = path.read_text().splitlines()
        path.write_text(f"{first[:-5]}\n{second}\n")
        with capture_logs() as logs:
            with pytest.raises(Unauthenticated):
                who(known, alice)
            assert who(known, bob).subject == "bob"
            assert who(known, bob).subject == "bob"
        faults = [event for event in logs if event["log_level"] == "error"]
        assert len(faults) == 1
        assert "line 1 " in faults[0]["problem"]

    def test_without_the_file_nobody_is_known(self, path: Path) -> None:
        token = mint(path, "acme", "alice", ["reader"])
        known = TokenAuthenticator(path)
        path.unlink()
        with capture_logs(), pytest.raises(Unauthenticated):
            who(known, token)


class TestBadFiles:
    @pytest.mark.parametrize(
        "line",
        [
            "canary",
            '{"tenant": "canary"',
            "[]",
            "\udcff",
            json.dumps({**GOOD, "tenant": "CANARY"}),
            json.dumps({**GOOD, "tenant": 1}),
            json.dumps({**GOOD, "subject": "canary\n"}),
            json.dumps({**GOOD, "roles": ["canary"]}),
            json.dumps({**GOOD, "roles": "reader"}),
            json.dumps({**GOOD, "roles": []}),
            json.dumps({**GOOD, "roles": [["canary"]]}),
            json.dumps({**GOOD, "sha256": "CANARY"}),
            json.dumps({**GOOD, "sha256": "A" * 64}),
            json.dumps({**GOOD, "canary": 1}),
            json.dumps({key: GOOD[key] for key in ("tenant", "subject", "roles")}),
            json.dumps(GOOD),
        ],
        ids=str,
    )
    def test_the_message_names_the_line_and_not_its_content(self, path: Path, line: str) -> None:
        good = json.dumps(GOOD)
        path.write_bytes(f"{good}\n\n{line}\n".encode("utf-8", "surrogateescape"))
        with pytest.raises(FailedPrecondition, match="line 3 ") as caught:
            TokenAuthenticator(path)
        assert "canary" not in str(caught.value).lower()

    def test_a_missing_file(self, path: Path) -> None:
        with pytest.raises(FailedPrecondition, match="mint a token"):
            TokenAuthenticator(path)

    def test_a_file_that_anyone_may_write(self, path: Path) -> None:
        mint(path, "acme", "alice", ["reader"])
        path.chmod(0o666)
        with pytest.raises(FailedPrecondition, match="chmod o-w"):
            TokenAuthenticator(path)


def test_roles_imply_each_other_as_written() -> None:
    grants = {
        role: {asked for asked, by in GRANTED_BY.items() if role in by} for role in GRANTED_BY
    }
    assert grants == {
        "reader": {"reader"},
        "renderer": {"reader", "renderer"},
        "trainer": {"reader", "trainer"},
        "publisher": {"reader", "renderer", "trainer", "publisher"},
        "admin": {"reader", "renderer", "trainer", "publisher", "admin"},
        "operator": {"operator"},
        "delegate": {"delegate"},
        "custodian": {"custodian"},
    }
