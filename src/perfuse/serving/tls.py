"""The server's certificate, read again when its file changes: certificates outlive no quarter."""

from __future__ import annotations

from pathlib import Path

import grpc
import structlog

from perfuse.errors import FailedPrecondition


def server_credentials(cert: Path, key: Path) -> grpc.ServerCredentials:
    """Credentials from two PEM files. A file that cannot be read later keeps the last ones.

    Raises:
        FailedPrecondition: a file cannot be read now.
    """
    held = _stamps(cert, key)
    first = _configuration(cert, key)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """What gRPC asks at each handshake, on a thread of its own; None for no change."""
        nonlocal held
        try:
            stamps = _stamps(cert, key)
            if stamps == held:
                return None
            held = stamps
            return _configuration(cert, key)
        except FailedPrecondition as error:
            structlog.get_logger("perfuse.serving").error("certificate_fault", problem=str(error))
            return None

    return grpc.dynamic_ssl_server_credentials(first, fetch)


def _configuration(cert: Path, key: Path) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(_read(key), _read(cert))])


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
