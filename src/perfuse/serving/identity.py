"""Who is calling: a caller, and what vouches for callers.

There are three authenticators: minted tokens (`perfuse.serving.tokens`), tokens that an issuer
signed (`perfuse.serving.oidc`), and clients' certificates (`perfuse.serving.certificates`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from perfuse.errors import Unauthenticated
from perfuse.names import ID
from perfuse.serving.roles import CUSTODIAN, DELEGATE

ON_BEHALF_OF = "perfuse-tenant"
"""Metadata in which a caller with the role `delegate` says for which tenant it acts."""

THROUGH = "perfuse-service"
"""Metadata in which a service with the role `custodian` vouches for itself, as `authorization` does
for the caller on whose behalf it asks."""

SUBJECT = re.compile(r"[!-~]([ -~]{0,126}[!-~])?")
"""How a caller's subject is written: printable ASCII."""

_SCHEME = "bearer "


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling, as the credential says and not the request.

    Attributes:
        tenant: The owner on whose behalf the call is made.
        subject: The person or service within the tenant.
        roles: What the caller may do; see `perfuse.serving.roles`.
    """

    tenant: str
    subject: str
    roles: frozenset[str]


class Peer(Protocol):
    """The other end of the connection, as gRPC's context of a call tells of it."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """What TLS found out about it; nothing of a certificate that was not verified."""
        ...


class Authenticator(Protocol):
    """Tells who is calling."""

    async def authenticate(self, metadata: Mapping[str, str], peer: Peer | None = None) -> Caller:
        """The caller whose credential the metadata carries (keys are lower-case), or the peer.

        Raises:
            Unauthenticated: there is none, or nobody vouches for it.
        """
        ...


def unknown_caller() -> Unauthenticated:
    """The one refusal of all whom nobody vouches for, whatever they sent."""
    return Unauthenticated(
        "the call carries no credential that is known here; send the metadata "
        "'authorization: Bearer TOKEN' with a token that is in force"
    )


def bearer_token(metadata: Mapping[str, str]) -> str:
    """The token of `authorization: Bearer <token>`.

    Raises:
        Unauthenticated: there is no such metadata.
    """
    value = metadata.get("authorization", "")
    if value[:7].lower() != _SCHEME or len(value) == len(_SCHEME):
        raise unknown_caller()
    return value[7:]


def read_metadata(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """A call's metadata by key; of two credentials none is better than the other: both are empty.

    Args:
        pairs: As gRPC has them.
    """
    metadata = dict(pairs)
    if len(metadata) < len(pairs):
        for credential in ("authorization", THROUGH):
            if sum(key == credential for key, _ in pairs) > 1:
                metadata[credential] = ""
    return metadata


def require_custodian(service: Caller) -> None:
    """Refuse, beside a caller's credential, that of anyone but a custodian.

    Raises:
        Unauthenticated: it is someone else's.
    """
    if CUSTODIAN not in service.roles:
        raise Unauthenticated(
            f"the metadata {THROUGH!r} carries a credential without the role {CUSTODIAN!r}; mint "
            "one with it for the service, or leave the metadata out"
        )


def on_behalf(caller: Caller, metadata: Mapping[str, str]) -> Caller:
    """The caller as whom a delegate acts: of the one tenant that it names, and a delegate alone.

    The Trainer publishes so, long after the credential of whoever queued the run has expired. What
    a delegate may call, the policy says row by row. Who is no delegate acts as itself, whatever it
    names.

    Raises:
        Unauthenticated: a delegate names no tenant, or none that could be one.
    """
    if DELEGATE not in caller.roles:
        return caller
    tenant = metadata.get(ON_BEHALF_OF, "")
    if not ID.fullmatch(tenant):
        raise Unauthenticated(
            f"a delegate acts for one tenant; name it in the metadata {ON_BEHALF_OF!r}"
        )
    return Caller(tenant, caller.subject, frozenset({DELEGATE}))
