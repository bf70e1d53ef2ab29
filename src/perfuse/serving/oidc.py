"""Callers known by tokens that an issuer signed: OpenID Connect, or any other JWT with a JWKS.

A token vouches for its caller if its algorithm is one of those that settings name, its key the
issuer's, `iss` and `aud` are the ones that are expected, and it is in force; `exp`, `aud`, `iss`
and `sub` must be there. Tenant and roles are what named claims say. A role that the issuer may not
grant here counts for nothing.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
import structlog

from perfuse.errors import FailedPrecondition
from perfuse.names import ID
from perfuse.serving.identity import (
    SUBJECT,
    Caller,
    Peer,
    bearer_token,
    on_behalf,
    unknown_caller,
)
from perfuse.serving.issuer_keys import ALGORITHMS, IssuerKeys
from perfuse.serving.roles import ADMIN, GRANTED_BY, PUBLISHER, READER, RENDERER, TRAINER

TENANTS_ROLES = (READER, RENDERER, TRAINER, PUBLISHER, ADMIN)
_REQUIRED = ["exp", "aud", "iss", "sub"]
# More is no credential: gRPC's metadata ends at 8 KiB by itself.
_MAX_LENGTH = 16 << 10
_MAX_KNOWN = 10_000


@dataclass(frozen=True, slots=True)
class Rules:
    """What a token must say.

    Attributes:
        issuer: Its `iss`.
        audiences: One of them is in its `aud`.
        algorithms: It is signed with one of these.
        tenant_claim: Says the tenant: a claim's name, or a path of names with dots between.
        roles_claim: Says the roles: a list, or one text with spaces between; likewise.
        role_prefix: Before a role's name in the claim, such as `perfuse:`; others are not ours.
        grants: Roles that the issuer may grant.
        leeway_seconds: That clocks may differ by.
    """

    issuer: str
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...] = ("RS256", "ES256")
    tenant_claim: str = "tenant"
    roles_claim: str = "roles"
    role_prefix: str = ""
    grants: tuple[str, ...] = TENANTS_ROLES
    leeway_seconds: float = 30.0

    def __post_init__(self) -> None:
        known = {each for family in ALGORITHMS.values() for each in family}
        for what, given, allowed in (
            ("algorithm", self.algorithms, known),
            ("role", self.grants, set(GRANTED_BY)),
        ):
            if not given or not set(given) <= allowed:
                raise FailedPrecondition(
                    f"{', '.join(given) or 'nothing'!r} is no {what} of tokens here; choose of "
                    + ", ".join(sorted(allowed))
                )
        if not self.audiences or not all(self.audiences):
            raise FailedPrecondition(
                "tokens of any audience would be taken; name the one that is ours"
            )


class OidcAuthenticator:
    """Knows callers by an issuer's tokens.

    A token that was verified once is known by its digest until it expires or the issuer's keys
    change, so that a call costs no signature.

    Args:
        rules: That tokens keep.
        keys: The issuer's.
        clock: In seconds since 1970, for tokens that were verified before.
    """

    def __init__(
        self, rules: Rules, keys: IssuerKeys, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._rules, self._keys, self._clock = rules, keys, clock
        self._known: dict[bytes, tuple[Caller, float, int]] = {}
        self._lock = threading.Lock()
        self._log = structlog.get_logger("perfuse.serving.identity")

    async def authenticate(self, metadata: Mapping[str, str], peer: Peer | None = None) -> Caller:
        """The caller for whom the token in the metadata vouches.

        Raises:
            Unauthenticated: there is none, or it breaks a rule; the log says which.
            Unavailable: the issuer's keys cannot be had.
        """
        token = bearer_token(metadata)
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is not None:
            caller, ends, generation = known
            current = self._keys.age_well() and generation == self._keys.generation
            if current and self._clock() < ends:
                return on_behalf(caller, metadata)
        generation = self._keys.generation
        try:
            caller, ends = await self._verified(token)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            with self._lock:
                self._known.pop(digest, None)
            self._log.info("token_refused", why=type(error).__name__)
            raise unknown_caller() from None
        self._remember(digest, caller, ends, generation)
        return on_behalf(caller, metadata)

    async def _verified(self, token: str) -> tuple[Caller, float]:
        """The caller, and when the token ends, in seconds since 1970."""
        rules = self._rules
        if len(token) > _MAX_LENGTH:
            raise jwt.DecodeError("too long")
        header = jwt.get_unverified_header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in rules.algorithms:
            raise jwt.InvalidAlgorithmError
        if "crit" in header or not (kid is None or isinstance(kid, str)):
            raise jwt.DecodeError("a header that is not understood")
        key = await self._keys.find(kid, algorithm)
        if key is None:
            raise jwt.InvalidKeyError
        claims = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=list(rules.audiences),
            issuer=rules.issuer,
            leeway=rules.leeway_seconds,
            options={"require": _REQUIRED},
        )
        return self._caller(claims), float(claims["exp"]) + rules.leeway_seconds

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        tenant, subject = claim(claims, self._rules.tenant_claim), claims["sub"]
        if not (isinstance(tenant, str) and ID.fullmatch(tenant)):
            raise jwt.InvalidTokenError("its tenant is not an id")
        if not SUBJECT.fullmatch(subject):
            raise jwt.InvalidTokenError("its subject is not printable ASCII")
        told = claim(claims, self._rules.roles_claim)
        if isinstance(told, str):
            told = told.split()
        prefix = self._rules.role_prefix
        roles = {
            each.removeprefix(prefix)
            for each in (told if isinstance(told, list) else [])
            if isinstance(each, str) and each.startswith(prefix)
        }
        return Caller(tenant, subject, frozenset(roles & set(self._rules.grants)))

    def _remember(self, digest: bytes, caller: Caller, ends: float, generation: int) -> None:
        with self._lock:
            if len(self._known) >= _MAX_KNOWN:
                now = self._clock()
                self._known = {
                    each: known
                    for each, known in self._known.items()
                    if known[1] > now and known[2] == generation
                }
            if len(self._known) >= _MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[digest] = caller, ends, generation


def looks_signed(token: str) -> bool:
    """Whether a token is of three parts that begin as a JSON object does in base 64."""
    return token.startswith("ey") and token.count(".") == 2


def claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by the names that lead to it; None where there is none."""
    if path in claims:
        # Names may have dots themselves, as those that are URLs.
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value
