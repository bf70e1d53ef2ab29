"""Which authenticators a service has, as the environment says, and which of them is asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings

from perfuse.errors import FailedPrecondition
from perfuse.serving.certificates import CertificateAuthenticator
from perfuse.serving.identity import Authenticator, Caller, Peer, unknown_caller
from perfuse.serving.issuer import Issuer
from perfuse.serving.issuer_keys import IssuerKeys
from perfuse.serving.oidc import TENANTS_ROLES, OidcAuthenticator, Rules, looks_signed
from perfuse.serving.tokens import TokenAuthenticator


class AuthenticationSettings(BaseSettings):
    """Settings of what vouches for callers; any of the three kinds, or several.

    Attributes:
        token_file: Of `perfuse.serving.mint`.
        oidc_issuer: URL of the issuer of tokens, as they have it in `iss`.
        oidc_audience: What tokens for this service have in `aud`; several with commas between.
        oidc_keys_url: Of the issuer's JWKS; None asks its discovery document.
        oidc_ca: PEM file that vouches for the issuer; None trusts the system's authorities.
        oidc_algorithms: That tokens may be signed with, with commas between; never `none`, nor one
            with a shared secret.
        oidc_tenant_claim, oidc_roles_claim: Claims that say tenant and roles; a path has dots.
        oidc_role_prefix: Before a role's name in its claim; what lacks it is not ours.
        oidc_grants: Roles that the issuer may grant, with commas between.
        oidc_leeway_seconds: That the issuer's clock may differ by.
        oidc_keys_kept_minutes: How long the last keys serve while the issuer does not answer.
        certificate_file: Which certificate is whose; see `perfuse.serving.certificates`.
        tls_client_ca: PEM file of the authority for clients' certificates; every client needs one
            then.
    """

    token_file: Path | None = None
    oidc_issuer: str | None = None
    oidc_audience: str = ""
    oidc_keys_url: str | None = None
    oidc_ca: Path | None = None
    oidc_algorithms: str = "RS256,ES256"
    oidc_tenant_claim: str = "tenant"
    oidc_roles_claim: str = "roles"
    oidc_role_prefix: str = ""
    oidc_grants: str = ",".join(TENANTS_ROLES)
    oidc_leeway_seconds: float = Field(default=30.0, ge=0, le=300)
    oidc_keys_kept_minutes: float = Field(default=60.0, ge=5, le=10_080)
    certificate_file: Path | None = None
    tls_client_ca: Path | None = None

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        prefix = self.model_config.get("env_prefix", "")
        if self.certificate_file is not None and self.tls_client_ca is None:
            raise FailedPrecondition(
                f"{prefix}CERTIFICATE_FILE says whose certificates are, but no certificate is "
                f"verified: set {prefix}TLS_CLIENT_CA to the authority that makes them"
            )
        if self.oidc_issuer is not None and not self.oidc_audience:
            raise FailedPrecondition(
                f"tokens for other services would be taken: set {prefix}OIDC_AUDIENCE to what "
                f"those for this one have in aud"
            )
        return self

    @property
    def knows_callers(self) -> bool:
        """Whether there is an authenticator."""
        return any((self.token_file, self.oidc_issuer, self.certificate_file))

    def authenticator(self) -> Authenticator:
        """The authenticators, made one; the issuer is asked for its keys from now on.

        Raises:
            FailedPrecondition: there is none, or what one of them needs breaks a rule.
        """
        if not self.knows_callers:
            prefix = self.model_config.get("env_prefix", "")
            raise FailedPrecondition(
                f"nobody could call: {prefix}TOKEN_FILE is not set; mint a token into a file, and "
                f"set it to the file's path. Or set {prefix}OIDC_ISSUER, or "
                f"{prefix}CERTIFICATE_FILE"
            )
        file, certificates = self.token_file, self.certificate_file
        return ByKind(
            signed=self._oidc(),
            minted=TokenAuthenticator(file) if file else None,
            certified=CertificateAuthenticator(certificates) if certificates else None,
        )

    def _oidc(self) -> OidcAuthenticator | None:
        if self.oidc_issuer is None:
            return None
        rules = Rules(
            issuer=self.oidc_issuer,
            audiences=_parts(self.oidc_audience),
            algorithms=_parts(self.oidc_algorithms),
            tenant_claim=self.oidc_tenant_claim,
            roles_claim=self.oidc_roles_claim,
            role_prefix=self.oidc_role_prefix,
            grants=_parts(self.oidc_grants),
            leeway_seconds=self.oidc_leeway_seconds,
        )
        issuer = Issuer(self.oidc_issuer, self.oidc_keys_url, self.oidc_ca)
        kept = self.oidc_keys_kept_minutes * 60
        keys = IssuerKeys(issuer.keys, rules.algorithms, kept_seconds=kept)
        return OidcAuthenticator(rules, keys)


class ByKind:
    """Several authenticators; what the call carries decides alone which one is asked.

    The order: a token that looks signed is the issuer's to vouch for, any other `authorization` is
    looked up in the token file, and only a call that carries none is known by its certificate. So
    a bad token is never made good by a certificate.

    Args:
        signed: For tokens that an issuer signed.
        minted: For those of the token file.
        certified: For certificates.
    """

    def __init__(
        self,
        signed: Authenticator | None,
        minted: Authenticator | None,
        certified: Authenticator | None,
    ) -> None:
        self._signed, self._minted, self._certified = signed, minted, certified

    async def authenticate(self, metadata: Mapping[str, str], peer: Peer | None = None) -> Caller:
        """The caller for whom the one authenticator vouches.

        Raises:
            Unauthenticated: it does not, or there is none for such a credential.
        """
        given = metadata.get("authorization")
        if given is None:
            chosen = self._certified
        elif self._signed is not None and looks_signed(given[7:]):
            chosen = self._signed
        else:
            chosen = self._minted
        if chosen is None:
            raise unknown_caller()
        return await chosen.authenticate(metadata, peer)


def _parts(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))
