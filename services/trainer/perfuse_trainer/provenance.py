"""Provenance: which pictures a run learned from, told apart without keeping a picture.

A run keeps a keyed digest of each of its pictures: HMAC-SHA256, under a key of the tenant's own, of
the digest of the file that was sent. Whoever has the file can ask whether it was among them, long
after the pictures are gone; whoever has the database alone can tell neither what a picture was nor
whether two tenants used the same one.

A tenant's key is derived (HKDF-SHA256, RFC 5869) from a secret of the installation. The secrets
have ids, which stand before the digests: the first makes new digests, the others prove old ones.
Whoever removes a secret makes what it made unprovable for good.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from perfuse.errors import FailedPrecondition

OWN_SECRET = "own"
"""Id of the secret that a Trainer makes for itself, which its settings may not give to another."""

_SALT = b"perfuse provenance 1"
_ENTRY = re.compile(r"([a-z0-9-]{1,32})=([0-9a-f]{64,256})")


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret of the installation; it is in no representation."""

    id: str
    value: bytes

    def __repr__(self) -> str:
        return f"Secret({self.id!r})"


class Provenance:
    """Makes keyed digests and finds them again.

    Args:
        secrets: The first makes new ones.
    """

    def __init__(self, secrets: Sequence[Secret]) -> None:
        self._secrets = tuple(secrets)

    def of(self, tenant: str, digests: Iterable[str]) -> list[str]:
        """The keyed digests of a tenant's files, `id:hexadecimal`.

        Args:
            tenant: Whose.
            digests: `sha256:` and hexadecimal digits.
        """
        current = self._secrets[0]
        return [_keyed(current, tenant, digest) for digest in digests]

    def knows(self, tenant: str, digest: str, kept: Iterable[str]) -> bool:
        """Whether a file is among those whose keyed digests were kept.

        Raises:
            FailedPrecondition: they were made with a secret that is not here any more, so that
                nobody can tell.
        """
        kept = set(kept)
        if any(_keyed(secret, tenant, digest) in kept for secret in self._secrets):
            return True
        here = {secret.id for secret in self._secrets}
        if not {each.partition(":")[0] for each in kept} <= here:
            raise FailedPrecondition(
                "the run's digests were made with a secret that this Trainer does not have, so "
                "that nothing can be proved. Its operator adds it to "
                "PERFUSE_TRAINER_PROVENANCE_KEYS, if it was kept"
            )
        return False


def read_secrets(text: str) -> list[Secret]:
    """Secrets as the settings have them: `id=hexadecimal` with commas between.

    Raises:
        FailedPrecondition: an entry is none, or an id is there twice; without its content.
    """
    secrets: list[Secret] = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        match = _ENTRY.fullmatch(entry)
        if match is None or match[1] in {OWN_SECRET, *(secret.id for secret in secrets)}:
            raise FailedPrecondition(
                f"entry {len(secrets) + 1} of PERFUSE_TRAINER_PROVENANCE_KEYS is not id=SECRET "
                "with an id of its own and 64 to 256 hexadecimal digits; make one with: "
                "openssl rand -hex 32"
            )
        secrets.append(Secret(match[1], bytes.fromhex(match[2])))
    return secrets


def _keyed(secret: Secret, tenant: str, digest: str) -> str:
    key = tenant_key(secret.value, tenant)
    return f"{secret.id}:{hmac.new(key, digest.encode(), hashlib.sha256).hexdigest()}"


@lru_cache(maxsize=1024)
def tenant_key(secret: bytes, tenant: str) -> bytes:
    """A tenant's key, 32 bytes: HKDF-SHA256 of the secret, with the tenant's id as the info."""
    pseudorandom = hmac.new(_SALT, secret, hashlib.sha256).digest()
    return hmac.new(pseudorandom, tenant.encode() + b"\x01", hashlib.sha256).digest()
