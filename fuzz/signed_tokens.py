"""Tokens that an issuer signs, from a stranger and from the issuer itself.

An input's first byte says what it is: a token's text, or a header and claims, a line each, that are
signed with the issuer's key, so that what stands behind the signature is reached too.

Laws: only Unauthenticated, which says the same to all; what the issuer did not sign vouches for
nobody; and a caller has a tenant's id, a printable subject and no role beyond those that the issuer
may grant.
"""

from __future__ import annotations

import asyncio
import atexit
import base64
import json
import time
from functools import cache

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from serving.issuing import SigningKey

from perfuse.errors import Unauthenticated
from perfuse.names import ID
from perfuse.serving.identity import SUBJECT, Caller, unknown_caller
from perfuse.serving.issuer_keys import IssuerKeys
from perfuse.serving.oidc import TENANTS_ROLES, OidcAuthenticator, Rules

_ISSUER, _AUDIENCE = "https://issuer.test", "perfuse"
_KEY = SigningKey("first")
_LOOP = asyncio.new_event_loop()
atexit.register(_LOOP.close)
_SAME = str(unknown_caller())
_GOOD = {
    "iss": _ISSUER, "aud": _AUDIENCE, "sub": "alice", "exp": 9999999999, "iat": 1, "tenant": "acme",
    "roles": ["reader"],
}  # fmt: skip


def seeds() -> dict[str, bytes]:
    """Claims of every kind, and slips; none is signed but here."""
    header, whole = '{"alg":"ES256","kid":"first"}', json.dumps(_GOOD)
    types = {"iss": [_ISSUER], "aud": {}, "sub": 1, "exp": "soon", "tenant": [], "roles": 1}
    parts = {
        "good": (header, whole),
        "expired": (header, json.dumps(_GOOD | {"exp": 1})),
        "roles-text": (header, json.dumps(_GOOD | {"roles": "reader operator delegate"})),
        "audiences": (header, json.dumps(_GOOD | {"aud": ["other", _AUDIENCE]})),
        "odd-types": (header, json.dumps(types)),
        "early": (header, json.dumps(_GOOD | {"nbf": 9999999999, "iat": 9999999999})),
        "none": ('{"alg":"none"}', whole),
        "crit": ('{"alg":"ES256","crit":["x"]}', whole),
        "unpacked": ('{"alg":"ES256","kid":"first","b64":false}', whole),
        "hmac": ('{"alg":"HS256","kid":"first"}', whole),
        "kid": ('{"alg":"ES256","kid":[]}', whole),
        "list": (header, "[]"),
        "infinite": (header, '{"exp":Infinity,"nbf":NaN,"aud":"perfuse"}'),
        "deep": (header, "[" * 2000),
    }
    texts = ("a.b.c", "....", "perfuse_x", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.")
    return {
        **{name: f"\2{first}\n{second}".encode() for name, (first, second) in parts.items()},
        **{f"text-{index}": f"\1{text}".encode() for index, text in enumerate(texts)},
    }


def one(data: bytes) -> None:
    """Ask for whom one token vouches."""
    kind, rest = data[:1], data[1:]
    signed = kind == b"\2"
    token = _signed(rest) if signed else rest.decode(errors="replace")
    try:
        asking = _authenticator().authenticate({"authorization": f"Bearer {token}"})
        caller: Caller = _LOOP.run_until_complete(asking)
    except Unauthenticated as refusal:
        assert str(refusal) == _SAME
        return
    assert signed, "nobody signed it"
    assert ID.fullmatch(caller.tenant)
    assert SUBJECT.fullmatch(caller.subject)
    assert caller.roles <= set(TENANTS_ROLES)
    claims = json.loads(rest.partition(b"\n")[2])
    assert claims["iss"] == _ISSUER
    assert _AUDIENCE in claims["aud"]
    assert float(claims["exp"]) > time.time() - 60


def _signed(content: bytes) -> str:
    header, _, claims = content.partition(b"\n")
    signing = b".".join(map(_encoded, (header, claims)))
    # The key itself, since a library would refuse to sign what is odd.
    der = _KEY.private.sign(signing, ec.ECDSA(hashes.SHA256()))
    raw = b"".join(number.to_bytes(32, "big") for number in utils.decode_dss_signature(der))
    return (signing + b"." + _encoded(raw)).decode()


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@cache
def _authenticator() -> OidcAuthenticator:
    years = 1e9
    keys = IssuerKeys(
        lambda: [_KEY.public()],
        ("ES256", "RS256"),
        kept_seconds=years,
        refresh_seconds=years,
        pause_seconds=years,
    )
    return OidcAuthenticator(Rules(_ISSUER, (_AUDIENCE,)), keys)
