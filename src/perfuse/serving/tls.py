"""The server's certificate, read again when its file changes: certificates outlive no quarter.

gRPC asks at each handshake whether there is another one. Connections that are open stay as they
are; new ones get the new certificate. Files that are half changed, damaged, or do not belong
together change nothing: the last ones that were right keep serving, and the log says so once.
"""

from __future__ import annotations

from pathlib import Path

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from perfuse.errors import FailedPrecondition


def server_credentials(
    cert: Path, key: Path, client_ca: Path | None = None
) -> grpc.ServerCredentials:
    """Credentials from PEM files, which may change at any time.

    Args:
        cert: The server's certificate, and those that lead to its authority.
        key: Its private key.
        client_ca: Certificates of the authority for clients: no connection is made without one
            that it signed. None asks clients for none.

    Raises:
        FailedPrecondition: a file cannot be read now, or certificate and key are not a pair.
    """
    files = (cert, key) if client_ca is None else (cert, key, client_ca)
    held = _stamps(*files)
    first = _configuration(*files)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """What gRPC asks at each handshake, on a thread of its own; None for no change."""
        nonlocal held
        try:
            stamps = _stamps(*files)
            if stamps == held:
                return None
            held = stamps
            changed = _configuration(*files)
        except Exception as error:
            # gRPC takes an exception for the end of the connection.
            problem = str(error) if isinstance(error, FailedPrecondition) else type(error).__name__
            structlog.get_logger("perfuse.serving").error("certificate_fault", problem=problem)
            return None
        structlog.get_logger("perfuse.serving").info("certificate_read", file=str(cert))
        return changed

    return grpc.dynamic_ssl_server_credentials(
        first, fetch, require_client_authentication=client_ca is not None
    )


def _configuration(
    cert: Path, key: Path, client_ca: Path | None = None
) -> grpc.ServerCertificateConfiguration:
    """What the files hold.

    Raises:
        FailedPrecondition: they cannot be served.
    """
    chain, private = _read(cert), _read(key)
    if _public(key, private) != _certificates(cert, chain)[0].public_key():
        raise FailedPrecondition(
            f"{key} is not the key of the first certificate in {cert}; put both in place together"
        )
    if client_ca is None:
        return grpc.ssl_server_certificate_configuration([(private, chain)])
    authority = _read(client_ca)
    _certificates(client_ca, authority)
    return grpc.ssl_server_certificate_configuration([(private, chain)], authority)


def _public(path: Path, content: bytes) -> object:
    try:
        return serialization.load_pem_private_key(content, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise FailedPrecondition(
            f"{path} holds no private key that can be read; it must be a PEM file, without a "
            "password"
        ) from None


def _certificates(path: Path, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise FailedPrecondition(
            f"{path} holds no certificate that can be read; it must be a PEM file"
        ) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FailedPrecondition(
            f"{path} cannot be read ({error.strerror}); it must be a PEM file of TLS"
        ) from None


def _stamps(*paths: Path) -> list[tuple[int, int, int]]:
    try:
        found = [path.stat() for path in paths]
    except OSError as error:
        raise FailedPrecondition(
            f"{error.filename} cannot be read ({error.strerror}); it must be a PEM file of TLS"
        ) from None
    return [(status.st_mtime_ns, status.st_size, status.st_ino) for status in found]
