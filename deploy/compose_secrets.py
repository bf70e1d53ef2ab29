"""Writes what compose.yaml needs: `secrets/`, readable by its owner alone, and `.env`.

    python deploy/compose_secrets.py --tenant acme

All is new and random, the certificates too: once for an installation, since the database keeps the
passwords that it was made with. `secrets/token` is the token of the tenant's administrator, and
`secrets/tls_ca` what its clients trust.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from trial_secrets import trial_secrets

DAYS = 825
NAMES = ("registry", "trainer", "renderer", "localhost")
_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


def compose_secrets(tenant: str) -> dict[str, str]:
    """Name of a file → its content."""
    made, token = trial_secrets(tenant)
    ca, cert, key = certificates()
    passwords = made["postgres-secrets"]
    return {
        "token": token,
        "tokens": made["perfuse-tokens"]["tokens"],
        "tls_ca": ca,
        "tls_cert": cert,
        "tls_key": key,
        **{name.replace("-", "_"): value for name, value in passwords.items()},
        "registry_database_url": made["registry-secrets"]["database-url"],
        "trainer_database_url": made["trainer-secrets"]["database-url"],
        "trainer_registry_token": made["trainer-secrets"]["registry-token"],
        "renderer_registry_token": made["renderer-secrets"]["registry-token"],
        "s3_access_key": made["minio-secrets"]["root-user"],
        "s3_secret_key": made["minio-secrets"]["root-password"],
    }


def certificates() -> tuple[str, str, str]:
    """PEM of an authority, of one certificate for the three services, and of its key."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name, name = _name("perfuse authority"), _name("perfuse")
    own = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    addresses = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    ca = (
        _certificate(ca_name, ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_SIGNS_CERTIFICATES, critical=True)
        .add_extension(own, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    cert = (
        _certificate(name, ca_name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName(
                [*map(x509.DNSName, NAMES), *map(x509.IPAddress, addresses)]
            ),
            critical=False,
        )
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return ca.public_bytes(pem).decode(), cert.public_bytes(pem).decode(), private.decode()


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=DAYS))
    )


def write(folder: Path, made: dict[str, str]) -> None:
    """Write `secrets/` and `.env` into a folder that has neither."""
    secrets = folder / "secrets"
    secrets.mkdir(mode=0o700)
    for name, content in made.items():
        with open(
            os.open(secrets / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w"
        ) as file:
            file.write(content)
    with (folder / ".env").open("x") as env:
        env.write(f"PERFUSE_USER={os.getuid()}:{os.getgid()}\n")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Secrets for compose.yaml.")
    parser.add_argument("--tenant", default="acme", help="whose administrator may call")
    parser.add_argument("--folder", type=Path, default=Path(), help="of compose.yaml")
    given = parser.parse_args()
    write(given.folder, compose_secrets(given.tenant))


if __name__ == "__main__":
    main()
