"""What listens at an address, found without gRPC: anything at all, and in plain text or TLS."""

from __future__ import annotations

import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Listening", "look"]

Speech = Literal["PLAIN", "TLS", "UNRESOLVED", "REFUSED", "SILENT"]
"""What was found:

- PLAIN: something that does not speak TLS;
- TLS: something that does;
- UNRESOLVED: the host's name has no address;
- REFUSED: nothing listens on the port;
- SILENT: no answer in time, as behind a firewall.
"""


@dataclass(frozen=True, slots=True)
class Listening:
    """What listens at an address.

    Attributes:
        speech: see `Speech`.
        distrust: why a TLS server's certificate is not trusted; empty where it is.
        detail: the system's own words where nothing was found.
    """

    speech: Speech
    distrust: str = ""
    detail: str = ""


def look(address: str, ca: Path | None = None, *, timeout: float = 3.0) -> Listening:
    """Connect, and see how far TLS comes; never raises, and takes no longer than 4 timeouts.

    Args:
        address: `host:port`.
        ca: PEM file that is to vouch for a TLS server; None for the system's authorities.
        timeout: seconds for each of resolving, connecting and two handshakes.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    problem = _unresolved(host, int(port), timeout)
    if problem is not None:
        return Listening("UNRESOLVED", detail=problem)
    try:
        with socket.create_connection((host, int(port)), timeout) as connection:
            if not _handshakes(connection):
                return Listening("PLAIN")
        return Listening("TLS", distrust=_distrust(host, int(port), ca, timeout))
    except TimeoutError:
        return Listening("SILENT", detail=f"nothing within {timeout:g} seconds")
    except OSError as error:
        return Listening("REFUSED", detail=error.strerror or str(error))


def _unresolved(host: str, port: int, timeout: float) -> str | None:
    """Why a name has no address; None if it has one. The system's resolver keeps no deadline."""
    found: list[str | None] = []

    def resolve() -> None:
        try:
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            found.append(getattr(error, "strerror", None) or str(error))
        else:
            found.append(None)

    thread = threading.Thread(target=resolve, name="perfuse-resolve", daemon=True)
    thread.start()
    thread.join(timeout)
    return found[0] if found else f"no answer of the resolver within {timeout:g} seconds"


def _handshakes(connection: socket.socket) -> bool:
    """Whether the other side speaks TLS, whoever it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with context.wrap_socket(connection):
            return True
    except ssl.SSLError as error:
        # A TLS server may refuse us, for want of a certificate of ours; it says so in TLS.
        return "ALERT" in (error.reason or "")
    except ConnectionError:
        return False


def _distrust(host: str, port: int, ca: Path | None, timeout: float) -> str:
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection((host, port), timeout) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return ""
    except ssl.SSLCertVerificationError as error:
        return error.verify_message or str(error)
    except (OSError, ValueError) as error:
        return str(error)
