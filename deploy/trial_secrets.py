"""Writes the Secrets of the overlay `kind` for `kubectl create -f -`: all of them new and random.

    python deploy/trial_secrets.py --tenant acme --token-file token | kubectl create -f -

Once for an installation: the database keeps the passwords that it was made with. In production the
same Secrets come from your own keeper of secrets; docs/kubernetes.md lists their keys.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import tempfile
from pathlib import Path
from typing import Any

from perfuse.serving import mint

Keys = dict[str, dict[str, str]]


def trial_secrets(tenant: str) -> tuple[Keys, str]:
    """Name of a Secret → its keys and values, and the token of the tenant's administrator."""
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens"
        token = mint(tokens, tenant, "admin", ["admin", "operator"])
        delegate = mint(tokens, "platform", "trainer", ["delegate"])
        custodian = mint(tokens, "platform", "renderer", ["custodian"])
        digests = tokens.read_text()
    passwords = {name: secrets.token_hex(24) for name in ("postgres", "registry", "trainer")}
    user, password = secrets.token_hex(8), secrets.token_hex(24)

    def stores(name: str) -> dict[str, str]:
        return {
            "database-url": f"postgresql://{name}:{passwords[name]}@postgres:5432/{name}",
            "s3-access-key": user,
            "s3-secret-key": password,
        }

    made = {
        "perfuse-tokens": {"tokens": digests},
        "registry-secrets": stores("registry"),
        "trainer-secrets": {**stores("trainer"), "registry-token": delegate},
        "renderer-secrets": {"registry-token": custodian},
        "postgres-secrets": {f"{name}-password": value for name, value in passwords.items()},
        "minio-secrets": {"root-user": user, "root-password": password},
    }
    return made, token


def listed(made: Keys, namespace: str) -> dict[str, Any]:
    """As Kubernetes reads them."""
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": namespace},
                "stringData": keys,
            }
            for name, keys in made.items()
        ],
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Secrets for a trial in one cluster.")
    parser.add_argument("--tenant", default="acme", help="whose administrator may call")
    parser.add_argument("--namespace", default="perfuse")
    parser.add_argument("--token-file", type=Path, required=True, help="where its token goes")
    given = parser.parse_args()
    made, token = trial_secrets(given.tenant)
    with open(os.open(given.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(token)
    json.dump(listed(made, given.namespace), sys.stdout)


if __name__ == "__main__":
    main()
