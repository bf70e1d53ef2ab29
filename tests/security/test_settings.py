"""A service that cannot start says why, and none of the secrets that its settings hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import platform_up
import ports
import pytest

from perfuse.serving import mint

SECRETS = ("hush-password", "hush-access", "hush-key", "hush-token")


@pytest.mark.parametrize("service", ["registry", "trainer"])
def test_a_service_whose_database_is_away_tells_no_secret(service: str, tmp_path: Path) -> None:
    first = ports.free_ports(4)
    mint(tmp_path / "tokens", "acme", "anna", ["admin"])
    settings = {
        "BIND": f"127.0.0.1:{first}",
        "DATABASE_URL": f"postgresql://perfuse:hush-password@127.0.0.1:{first + 1}/perfuse",
        "S3_ENDPOINT": f"http://127.0.0.1:{first + 2}",
        "S3_BUCKET": "perfuse",
        "S3_ACCESS_KEY": "hush-access",
        "S3_SECRET_KEY": "hush-key",
        "TOKEN_FILE": str(tmp_path / "tokens"),
        "LOG_LEVEL": "debug",
    }
    if service == "trainer":
        settings |= {
            "REGISTRY": f"127.0.0.1:{first + 3}",
            "REGISTRY_TOKEN": "hush-token",
            "BASE_MODELS": f"tiny={tmp_path}",
        }
    done = subprocess.run(
        [sys.executable, "-m", f"perfuse_{service}", "serve", "--migrate"],
        env=platform_up.without_perfuse()
        | {f"PERFUSE_{service.upper()}_{name}": value for name, value in settings.items()},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "database" in said
    assert "Traceback" not in said
    assert not [secret for secret in SECRETS if secret in said]
