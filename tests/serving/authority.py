"""A certificate authority in a test: certificates for servers on 127.0.0.1 and for clients."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM


class Authority:
    """An authority; whoever trusts its `certificate` trusts what it issued."""

    def __init__(self, name: str = "authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self.certificate = _signed(
            self._name,
            self._name,
            self._key,
            self._key,
            x509.BasicConstraints(ca=True, path_length=None),
        )

    def issue(
        self, name: str, *uris: str, hosts: Sequence[str] = (), hours: float = 1
    ) -> tuple[bytes, bytes]:
        """A certificate for 127.0.0.1, these hosts and URIs, for so long, and its key; PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName(
            [
                x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                *map(x509.DNSName, hosts),
                *map(x509.UniformResourceIdentifier, uris),
            ]
        )
        private = key.private_bytes(
            _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return _signed(_named(name), self._name, key, self._key, names, hours), private

    def install(self, folder: Path, name: str = "server", *uris: str) -> None:
        """Write `cert.pem` and `key.pem` of a new certificate, and `ca.pem`."""
        cert, key = self.issue(name, *uris)
        (folder / "cert.pem").write_bytes(cert)
        (folder / "key.pem").write_bytes(key)
        (folder / "ca.pem").write_bytes(self.certificate)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
    hours: float = 1,
) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=2))
        .not_valid_after(now + datetime.timedelta(hours=hours))
        .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        .sign(signer, hashes.SHA256())
        .public_bytes(_PEM)
    )
