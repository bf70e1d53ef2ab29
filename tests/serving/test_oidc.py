"""Tokens that an issuer signed: whose they are, and all that makes one nobody's."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from perfuse.errors import FailedPrecondition, Unauthenticated, Unavailable
from perfuse.serving import Caller, Edge
from perfuse.serving.identity import unknown_caller
from perfuse.serving.issuer import Issuer
from perfuse.serving.issuer_keys import IssuerKeys, usable_key
from perfuse.serving.oidc import OidcAuthenticator, Rules, claim
from perfuse.serving.testing import IssuedTokens, serve
from serving.issuing import AUDIENCE, SigningKey, TestIssuer, issuing
from serving.probe import POLICY, Answer, Probe, Question, Stub, add
from serving.test_threaded import Worker, add_unary


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(name="issuer")
def running_issuer() -> Iterator[TestIssuer]:
    with capture_logs(), issuing() as issuer:
        yield issuer


def rules_of(issuer: TestIssuer, **changes: Any) -> Rules:
    return replace(Rules(issuer.url, (AUDIENCE,)), **changes)


def keys_of(issuer: TestIssuer, rules: Rules, clock: Any = time.monotonic) -> IssuerKeys:
    return IssuerKeys(Issuer(issuer.url).keys, rules.algorithms, kept_seconds=3600, clock=clock)


def authenticator(issuer: TestIssuer, **changes: Any) -> OidcAuthenticator:
    rules = rules_of(issuer, **changes)
    return OidcAuthenticator(rules, keys_of(issuer, rules))


def who(known: OidcAuthenticator, token: str, **metadata: str) -> Caller:
    return asyncio.run(known.authenticate({"authorization": f"Bearer {token}", **metadata}))


def refused(known: OidcAuthenticator, token: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        who(known, token)
    assert str(caught.value) == str(unknown_caller())


def part(content: Any) -> str:
    raw = json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class TestCallers:
    def test_are_what_the_claims_say(self, issuer: TestIssuer) -> None:
        known = authenticator(issuer)
        caller = who(known, issuer.token("acme", "publisher", "reader", sub="bob@acme.example"))
        assert caller == Caller("acme", "bob@acme.example", frozenset({"publisher", "reader"}))

    @pytest.mark.parametrize("algorithm", ["RS256", "PS384", "ES256", "ES384", "EdDSA"])
    def test_of_every_algorithm_that_is_allowed(self, issuer: TestIssuer, algorithm: str) -> None:
        issuer.keys = [SigningKey("k", algorithm)]
        assert who(authenticator(issuer, algorithms=(algorithm,)), issuer.token()).tenant == "acme"

    def test_claims_may_lie_deep_or_have_dots(self, issuer: TestIssuer) -> None:
        names = {"tenant_claim": "https://x.example/tenant", "roles_claim": "realm.roles"}
        known = authenticator(issuer, role_prefix="perfuse:", **names)
        told = {
            "https://x.example/tenant": "globex",
            "realm": {"roles": ["perfuse:admin", "reader"]},
        }
        caller = who(known, issuer.token(**told))
        assert (caller.tenant, caller.roles) == ("globex", {"admin"})
        assert claim({"a": 1}, "a.b") is None

    def test_roles_may_be_one_text(self, issuer: TestIssuer) -> None:
        token = issuer.token(roles="openid reader trainer")
        assert who(authenticator(issuer), token).roles == {"reader", "trainer"}

    @pytest.mark.parametrize("told", [[], ["openid", 7, None], "", None, {"reader": 1}, 3])
    def test_who_has_no_role_is_known_and_may_nothing(self, issuer: TestIssuer, told: Any) -> None:
        assert who(authenticator(issuer), issuer.token(roles=told)).roles == frozenset()

    def test_the_issuer_grants_only_what_it_may(self, issuer: TestIssuer) -> None:
        token = issuer.token("acme", "reader", "operator", "delegate", "custodian")
        assert who(authenticator(issuer), token).roles == {"reader"}
        known = authenticator(issuer, grants=("reader", "operator"))
        assert who(known, token).roles == {"reader", "operator"}

    def test_a_delegate_acts_for_the_tenant_that_it_names(self, issuer: TestIssuer) -> None:
        known = authenticator(issuer, grants=("delegate",))
        token = issuer.token("platform", "delegate", sub="trainer")
        for tenant in ("acme", "globex"):
            caller = who(known, token, **{"perfuse-tenant": tenant})
            assert caller == Caller(tenant, "trainer", frozenset({"delegate"}))
        with pytest.raises(Unauthenticated, match="name it"):
            who(known, token)


class TestRefusals:
    @pytest.mark.parametrize(
        "claims",
        [
            {"exp": 1},
            {"exp": None},
            {"exp": "soon"},
            {"exp": 10**400},
            {"nbf": 4_000_000_000},
            {"iat": 4_000_000_000},
            {"aud": "other"},
            {"aud": None},
            {"aud": []},
            {"iss": "https://other.example"},
            {"iss": None},
            {"sub": None},
            {"sub": ""},
            {"sub": "a\nb"},
            {"sub": "x" * 129},
            {"sub": 7},
            {"tenant": None},
            {"tenant": "Acme"},
            {"tenant": ["acme"]},
            {"tenant": "acme/concepts/tom"},
        ],
        ids=lambda claims: str(claims)[:40],
    )
    def test_a_claim_that_is_wrong(self, issuer: TestIssuer, claims: dict[str, Any]) -> None:
        key = issuer.keys[0]
        good = jwt.decode(issuer.token(), options={"verify_signature": False})
        told = {name: value for name, value in (good | claims).items() if value is not None}
        # Past what would refuse to write such claims.
        raw = jwt.api_jws.encode(
            json.dumps(told).encode(), key.private, key.algorithm, {"kid": "first"}
        )
        refused(authenticator(issuer), raw)

    def test_one_of_several_audiences_is_enough(self, issuer: TestIssuer) -> None:
        token = issuer.token(aud=["other", AUDIENCE])
        assert who(authenticator(issuer), token).tenant == "acme"

    @pytest.mark.parametrize(("late", "passes"), [(-20, True), (-40, False)])
    def test_clocks_may_differ_by_the_leeway(
        self, issuer: TestIssuer, late: int, passes: bool
    ) -> None:
        token = issuer.token(exp=int(time.time()) + late)
        if passes:
            assert who(authenticator(issuer), token).tenant == "acme"
        else:
            refused(authenticator(issuer), token)

    def test_another_key_of_the_same_name(self, issuer: TestIssuer) -> None:
        refused(authenticator(issuer), issuer.token(key=SigningKey("first")))

    @pytest.mark.parametrize("algorithm", ["none", "None", "HS256", "RS256", "ES384", "", None, 7])
    def test_another_algorithm_in_the_header(self, issuer: TestIssuer, algorithm: Any) -> None:
        _, claims, signature = issuer.token().split(".")
        header = part({"alg": algorithm, "kid": "first", "typ": "JWT"})
        known = authenticator(issuer)
        refused(known, f"{header}.{claims}.{signature}")
        refused(known, f"{header}.{claims}.")

    def test_a_public_key_is_no_shared_secret(self, issuer: TestIssuer) -> None:
        """The oldest trick: HMAC with the public key, which everyone knows."""
        pem = (
            issuer.keys[0]
            .private.public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        header, claims = part({"alg": "HS256", "kid": "first"}), issuer.token().split(".")[1]
        mac = jwt.get_algorithm_by_name("HS256")
        signature = mac.sign(f"{header}.{claims}".encode(), pem)
        told = base64.urlsafe_b64encode(signature).rstrip(b"=").decode()
        refused(authenticator(issuer), f"{header}.{claims}.{told}")

    def test_headers_that_ask_for_more(self, issuer: TestIssuer) -> None:
        key, claims = issuer.keys[0], {"sub": "a"}
        own = SigningKey("own")
        for extra in (
            {"crit": ["exp"], "exp": 1},
            {"kid": 7},
            {"kid": "../../etc/passwd"},
            {"jku": "http://127.0.0.1:1/jwks", "jwk": own.public(), "kid": "own"},
        ):
            told = part({"alg": "ES256", "kid": "first", **extra})
            signed = jwt.encode(claims, own.private, "ES256").split(".")
            refused(authenticator(issuer), f"{told}.{signed[1]}.{signed[2]}")
        assert key.kid == "first"
        assert set(issuer.asked) == {"/.well-known/openid-configuration", "/jwks"}

    @settings(deadline=None, max_examples=60, derandomize=True)
    @given(
        st.binary(max_size=60), st.integers(0, 400), st.sampled_from(["", ".", "ey", "ey.ey.ey"])
    )
    def test_whatever_is_not_the_token(self, raw: bytes, place: int, text: str) -> None:
        read = [SigningKey("first")]
        keys = IssuerKeys(lambda: [read[0].public()], ("ES256",), kept_seconds=3600)
        known = OidcAuthenticator(Rules("https://i.example", (AUDIENCE,)), keys)
        token = jwt.encode(
            {"iss": "https://i.example", "aud": AUDIENCE, "sub": "a", "exp": 4_000_000_000,
             "tenant": "acme"},
            read[0].private, "ES256", {"kid": "first"},
        )  # fmt: skip
        assert who(known, token).tenant == "acme"
        garbage = raw.decode("latin-1")
        place %= len(token)
        # The last letter of a signature has two bits that mean nothing.
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        others = {
            garbage,
            text,
            text + garbage,
            token + garbage,
            token[:place],
            f"{token}.",
            "x" * 20_000,
        }
        if place < len(token) - 1:
            others.add(changed)
        for other in others - {token}:
            with capture_logs(), pytest.raises(Unauthenticated):
                who(known, other)

    def test_the_log_says_why_and_nothing_of_the_token(self, issuer: TestIssuer) -> None:
        known = authenticator(issuer)
        token = issuer.token(aud="other", sub="canary")
        with capture_logs() as logs, pytest.raises(Unauthenticated):
            who(known, token)
        (told,) = (each for each in logs if each["event"] == "token_refused")
        assert told["why"] == "InvalidAudienceError"
        assert "canary" not in str(logs)
        assert token.split(".")[1] not in str(logs)


class TestKnownBefore:
    def test_a_token_is_verified_once_and_ends_in_time(self, issuer: TestIssuer) -> None:
        clock, rules = Clock(), rules_of(issuer, leeway_seconds=0)
        clock.now = time.time()
        known = OidcAuthenticator(rules, keys_of(issuer, rules), clock=clock)
        token = issuer.token(exp=int(clock.now) + 100)
        assert who(known, token).tenant == "acme"
        # What is known needs no signature: the keys may be others' by now.
        assert len(known._known) == 1
        clock.now += 99
        assert who(known, token).tenant == "acme"
        clock.now += 2
        known._rules = replace(rules, issuer="https://other.example")
        refused(known, token)
        assert not known._known

    def test_a_key_that_is_gone_takes_its_tokens_along(self, issuer: TestIssuer) -> None:
        clock, rules = Clock(), rules_of(issuer)
        keys = keys_of(issuer, rules, clock)
        known, token = OidcAuthenticator(rules, keys), issuer.token()
        assert who(known, token).tenant == "acme"
        issuer.keys = [SigningKey("second")]
        clock.now += 301
        assert keys.age_well()
        until(lambda: keys.generation == 2)
        refused(known, token)
        assert who(known, issuer.token()).tenant == "acme"

    def test_so_many_and_no_more(self, issuer: TestIssuer, monkeypatch: Any) -> None:
        monkeypatch.setattr("perfuse.serving.oidc._MAX_KNOWN", 3)
        known = authenticator(issuer)
        for number in range(5):
            who(known, issuer.token(sub=f"caller-{number}"))
        assert [caller.subject for caller, _, _ in known._known.values()] == [
            "caller-2",
            "caller-3",
            "caller-4",
        ]


def until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class TestKeys:
    def test_are_read_while_starting_and_not_by_calls(self, issuer: TestIssuer) -> None:
        known = authenticator(issuer)
        for number in range(20):
            who(known, issuer.token(sub=f"caller-{number}"))
        assert issuer.readings == 1

    def test_a_new_key_is_found_at_once_and_strangers_have_nothing_read(
        self, issuer: TestIssuer
    ) -> None:
        clock, rules = Clock(), rules_of(issuer)
        known = OidcAuthenticator(rules, keys_of(issuer, rules, clock))
        assert who(known, issuer.token()).tenant == "acme"
        issuer.keys = [SigningKey("second"), *issuer.keys]
        clock.now += 11
        assert who(known, issuer.token()).tenant == "acme"
        assert issuer.readings == 2
        for number in range(20):
            refused(known, issuer.token(key=SigningKey(f"stranger-{number}")))
        assert issuer.readings == 2
        clock.now += 11
        refused(known, issuer.token(key=SigningKey("stranger")))
        assert issuer.readings == 3

    def test_an_issuer_that_is_down_leaves_its_last_keys_for_a_while(
        self, issuer: TestIssuer
    ) -> None:
        clock, rules = Clock(), rules_of(issuer)
        keys = keys_of(issuer, rules, clock)
        known = OidcAuthenticator(rules, keys)
        token = issuer.token()
        assert who(known, token).tenant == "acme"
        issuer.status = 503
        for _ in range(11):
            clock.now += 301
            assert who(known, token).tenant == "acme"
            assert who(known, issuer.token(sub="new")).tenant == "acme"
            until(lambda: keys._pending is None)
        clock.now += 301
        for each in (token, issuer.token(sub="newer")):
            with pytest.raises(Unavailable) as caught:
                who(known, each)
            assert caught.value.retry_after == 1
        issuer.status = 200
        clock.now += 11
        assert who(known, token).tenant == "acme"

    def test_an_issuer_that_is_not_up_yet_is_asked_again(self, issuer: TestIssuer) -> None:
        issuer.status = 503
        clock, rules = Clock(), rules_of(issuer)
        keys = keys_of(issuer, rules, clock)
        known = OidcAuthenticator(rules, keys)
        with pytest.raises(Unavailable):
            who(known, issuer.token())
        issuer.status = 200
        clock.now += 11
        assert who(known, issuer.token()).tenant == "acme"

    @pytest.mark.parametrize(
        "content",
        [b"", b"[]", b"{}", b'{"keys": 3}', b'{"keys": []}', b"[" * 100_000, b"x" * (1 << 21)],
        ids=lambda content: content[:12].decode(),
    )
    def test_an_answer_that_is_no_jwks_changes_nothing(
        self, issuer: TestIssuer, content: bytes
    ) -> None:
        clock, rules = Clock(), rules_of(issuer)
        keys = keys_of(issuer, rules, clock)
        known = OidcAuthenticator(rules, keys)
        assert who(known, issuer.token()).tenant == "acme"
        issuer.documents["/jwks"] = content
        clock.now += 301
        with capture_logs() as logs:
            assert who(known, issuer.token(sub="b")).tenant == "acme"
            until(lambda: issuer.readings == 2 and keys._pending is None)
            until(lambda: logs)
        assert [each["event"] for each in logs] == ["issuer_keys_not_read"]
        assert who(known, issuer.token(sub="c")).tenant == "acme"

    def test_a_loop_is_not_blocked_while_keys_are_read(self, issuer: TestIssuer) -> None:
        issuer.gate.clear()
        known = authenticator(issuer)
        metadata = {"authorization": f"Bearer {issuer.token()}"}

        async def work() -> int:
            asking = asyncio.create_task(known.authenticate(metadata))
            turns = 0
            while not asking.done():
                await asyncio.sleep(0)
                turns += 1
                if turns == 100:
                    issuer.gate.set()
            assert (await asking).tenant == "acme"
            return turns

        assert asyncio.run(work()) >= 100

    def test_few_wait_and_the_others_are_told_to_call_again(self, issuer: TestIssuer) -> None:
        issuer.gate.clear()
        known = authenticator(issuer)
        metadata = {"authorization": f"Bearer {issuer.token()}"}

        async def work() -> list[Any]:
            asking = [known.authenticate(metadata) for _ in range(40)]
            calls = asyncio.gather(*asking, return_exceptions=True)
            await asyncio.sleep(0)
            issuer.gate.set()
            return await calls

        answers = asyncio.run(work())
        assert sum(isinstance(each, Caller) for each in answers) == 16
        assert sum(isinstance(each, Unavailable) for each in answers) == 24

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"use": "enc"}, "not for signatures"),
            ({"key_ops": ["sign"]}, "not for signatures"),
            ({"alg": "RS256"}, "no algorithm"),
            ({"kty": "oct", "k": "c2VjcmV0"}, "secret"),
            ({"d": "AAAA"}, "secret"),
            ({"kid": 7}, "kid of text"),
            ({"x": "!"}, "malformed"),
            ({"x": None}, "malformed"),
            ({"crv": "P-384"}, "no algorithm"),
        ],
        ids=str,
    )
    def test_keys_that_verify_nothing(self, changes: dict[str, Any], why: str) -> None:
        key = SigningKey("k")
        assert usable_key(key.public(), ["ES256"]).algorithms == ("ES256",)
        with pytest.raises(ValueError, match=why):
            usable_key(key.public(**changes), ["ES256"])

    def test_a_key_that_is_too_short(self) -> None:
        with pytest.raises(ValueError, match="1024 bits"):
            usable_key(SigningKey("k", "RS256", 1024).public(), ["RS256"])

    def test_a_token_need_not_name_the_only_key(self, issuer: TestIssuer) -> None:
        issuer.keys = [SigningKey(None)]
        known = authenticator(issuer)
        assert who(known, issuer.token()).tenant == "acme"
        issuer.keys = [SigningKey(None), SigningKey("other")]
        refused(authenticator(issuer), issuer.token())


class TestIssuers:
    @pytest.mark.parametrize(
        "url",
        [
            "http://issuer.example",
            "http://192.0.2.1/keys",
            "http://localhost.example.com",
            "ftp://127.0.0.1",
            "file:///etc/passwd",
            "issuer.example",
            "https://",
            "http://[::1",
            "",
        ],
    )
    def test_are_asked_over_https_alone(self, url: str) -> None:
        with pytest.raises(FailedPrecondition, match="https"):
            Issuer(url)
        with pytest.raises(FailedPrecondition, match="https"):
            Issuer("https://issuer.example", url)

    def test_lead_nowhere_else(self, issuer: TestIssuer) -> None:
        issuer.status = 302
        with pytest.raises(Unavailable, match="status 302"):
            Issuer(issuer.url).keys()
        assert issuer.asked == ["/.well-known/openid-configuration"]

    def test_a_discovery_document_must_be_its_own(self, issuer: TestIssuer) -> None:
        path = "/.well-known/openid-configuration"
        for document in (
            {"issuer": "https://other.example", "jwks_uri": f"{issuer.url}/jwks"},
            {"issuer": issuer.url, "jwks_uri": "http://other.example/jwks"},
            {"issuer": issuer.url},
        ):
            issuer.documents[path] = json.dumps(document).encode()
            with pytest.raises(Unavailable):
                Issuer(issuer.url).keys()
        assert len(Issuer(issuer.url, f"{issuer.url}/jwks").keys()) == 1

    def test_that_nobody_vouches_for(self) -> None:
        with pytest.raises(FailedPrecondition, match="cannot be read"):
            Issuer("https://issuer.example", ca=Path("missing.pem"))


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithms": ("none",)},
        {"algorithms": ("HS256",)},
        {"algorithms": ("RS256", "HS512")},
        {"algorithms": ()},
        {"audiences": ()},
        {"audiences": ("",)},
        {"grants": ("root",)},
        {"grants": ()},
    ],
    ids=str,
)
def test_rules_that_would_let_anyone_in(changes: dict[str, Any]) -> None:
    with pytest.raises(FailedPrecondition):
        replace(Rules("https://issuer.example", (AUDIENCE,)), **changes)


class TestServed:
    """Over both kinds of servers."""

    async def test_by_a_loop(self, issuer: TestIssuer) -> None:
        edge = Edge(authenticator(issuer), policy=POLICY)
        async with serve((add, Probe(edge)), edge=edge, tokens=IssuedTokens()) as served:
            known = (("authorization", f"Bearer {issuer.token('globex')}"),)
            answer = await Stub(served.channel).Ask(Question(), metadata=known)
        assert answer.text == "globex"

    async def test_by_threads(self, issuer: TestIssuer) -> None:
        issuer.gate.clear()
        edge = Edge(authenticator(issuer), policy=POLICY, threaded=True)
        threading.Timer(0.05, issuer.gate.set).start()
        part = (add_unary, Worker(edge, lambda question: Answer(text="done")))
        async with serve(part, edge=edge, tokens=IssuedTokens()) as served:
            known = (("authorization", f"Bearer {issuer.token()}"),)
            asking = [Stub(served.channel).Ask(Question(), metadata=known) for _ in range(4)]
            answers = await asyncio.gather(*asking)
        assert {answer.text for answer in answers} == {"done"}
