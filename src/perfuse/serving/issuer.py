"""Where an issuer of tokens tells its keys: a JWKS, or a discovery document that leads to one.

Only over HTTPS, or plain HTTP on this machine; what answers with a redirect is not followed, since
it could lead anywhere.
"""

from __future__ import annotations

import ipaddress
import json
import ssl
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from perfuse.errors import FailedPrecondition, Unavailable

_SECONDS = 5.0
_MAX_BYTES = 1 << 20
_WELL_KNOWN = "/.well-known/openid-configuration"


class Issuer:
    """An issuer, asked for its keys.

    Args:
        name: As tokens have it in `iss`; the URL under which its discovery document lies.
        keys_url: Of the JWKS; None has the discovery document say.
        ca: PEM file that vouches for both; None trusts the system's authorities.

    Raises:
        FailedPrecondition: a URL is not of HTTPS, or the file cannot be read.
    """

    def __init__(self, name: str, keys_url: str | None = None, ca: Path | None = None) -> None:
        self.name = name
        self._keys_url = None if keys_url is None else safe_url(keys_url)
        if keys_url is None:
            safe_url(name)
        self._ca = ca
        self._tls: ssl.SSLContext | None = None
        if ca is not None or (keys_url or name).startswith("https"):
            self._tls = _context(ca)

    def keys(self) -> list[Any]:
        """The keys of its JWKS, as they are; takes some seconds at most for each of two answers.

        Raises:
            Unavailable: it does not answer, or not as it should.
        """
        url = self._keys_url or self._discovered()
        keys = self._read(url).get("keys")
        if not isinstance(keys, list):
            raise Unavailable(f"{url} holds no list of keys; it must be a JWKS")
        return keys

    def _discovered(self) -> str:
        url = self.name.rstrip("/") + _WELL_KNOWN
        document = self._read(url)
        if document.get("issuer") != self.name:
            raise Unavailable(f"{url} is of another issuer than {self.name}")
        try:
            return safe_url(str(document.get("jwks_uri")))
        except FailedPrecondition as error:
            raise Unavailable(f"{url}: {error}") from None

    def _read(self, url: str) -> dict[str, Any]:
        handlers: list[Any] = [_Stay()]
        if url.startswith("https"):
            self._tls = self._tls or _context(self._ca)
            handlers.append(urllib.request.HTTPSHandler(context=self._tls))
        if _is_local(url):
            handlers.append(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(url, headers={"Accept": "application/json"})
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=_SECONDS) as answer:
                content = answer.read(_MAX_BYTES + 1)
        except HTTPError as error:
            error.close()
            raise Unavailable(f"{url} answers with status {error.code}") from None
        except (OSError, ValueError) as error:
            raise Unavailable(f"{url} does not answer ({error})") from None
        if len(content) > _MAX_BYTES:
            raise Unavailable(f"{url} answers with more than {_MAX_BYTES} bytes")
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise Unavailable(f"{url} does not answer with an object of JSON")
        return document


class _Stay(urllib.request.HTTPRedirectHandler):
    """Takes a redirect for an error."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def safe_url(url: str) -> str:
    """`url`, if nobody between here and there could change what it holds.

    Raises:
        FailedPrecondition: somebody could.
    """
    try:
        scheme, host = urlsplit(url).scheme, urlsplit(url).hostname
    except ValueError:
        scheme, host = "", None
    if host and (scheme == "https" or (scheme == "http" and _is_local(url))):
        return url
    raise FailedPrecondition(
        f"{url!r} is not an https:// URL, and whoever could change its answer could let anyone in; "
        "http:// may be used on this machine's loopback alone"
    )


def _context(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        raise FailedPrecondition(
            f"{ca} cannot be read ({error}); it must be a PEM file that vouches for the issuer"
        ) from None


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
