"""Callers known by their certificates: services that call services.

A file says which name is whose, one JSON object a line:

    {"tenant": "platform", "subject": "trainer", "roles": ["delegate"],
     "uri": "spiffe://prod/ns/perfuse/sa/trainer"}

Names are the URIs among a certificate's alternative names, written exactly so. gRPC tells them only
of a certificate that the server asked for and verified, so a server without an authority for its
clients knows nobody by this.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from perfuse.errors import Unauthenticated
from perfuse.serving.caller_file import CallerFile, Kind
from perfuse.serving.identity import Caller, Peer, on_behalf, unknown_caller

_URI = re.compile(r"[a-z][a-z0-9+.-]*://[!-~]{1,2000}")
_KIND = Kind(
    noun="certificate file",
    record="a certificate's record",
    field="uri",
    key=lambda text: text.encode() if _URI.fullmatch(text) else None,
    rule="a URI in printable ASCII, such as spiffe://prod/ns/perfuse/sa/trainer",
    remedy="write it anew",
    missing="write one line for each service that may call",
)
_TYPE, _NAMES = "transport_security_type", "peer_uri"


class CertificateAuthenticator:
    """Knows callers by the URIs of their certificates.

    Args:
        path: The file; see `CallerFile`.

    Raises:
        FailedPrecondition: the file is missing, others may write it, or a line breaks the rule.
    """

    def __init__(self, path: Path) -> None:
        self._callers = CallerFile(path, _KIND)

    async def authenticate(self, metadata: Mapping[str, str], peer: Peer | None = None) -> Caller:
        """The caller whose certificate the connection was made with.

        Raises:
            Unauthenticated: there is none, or none of its names is in the file, or several are.
        """
        found = {self._callers.find(name) for name in uris(peer)} - {None}
        if len(found) > 1:
            raise Unauthenticated(
                "the certificate's names are those of several callers; have one made for each"
            )
        for caller in found:
            if caller is not None:
                return on_behalf(caller, metadata)
        raise unknown_caller()


def uris(peer: Peer | None) -> list[bytes]:
    """The URIs of a peer's verified certificate; none of a peer without one."""
    if peer is None:
        return []
    told = peer.auth_context()
    if list(told.get(_TYPE, ())) != [b"ssl"]:
        return []
    return list(told.get(_NAMES, ()))
