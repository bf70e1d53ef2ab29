"""What the three services are told when `perfuse up` starts them, all of it by environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from perfuse.cli.platform_home import PlatformHome
from perfuse.client import Connection

__all__ = ["PlatformSettings", "environment"]

# Of a platform elsewhere, perhaps left in this shell: storage that is not in the folder, TLS.
_NOT_HERE = (
    *("S3_ENDPOINT", "S3_BUCKET"),
    *("TLS_CERT", "TLS_KEY", "TLS_CLIENT_CA", "CERTIFICATE_FILE"),
    *("REGISTRY_CA", "REGISTRY_CERT", "REGISTRY_KEY"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformSettings:
    """How a platform is to be.

    Attributes:
        tenant: whose token is made.
        port: of the Registry; the Trainer's and the Renderer's follow.
        bases: id of a base model → absolute directory.
        ray: run training and rendering on Ray.
        pack: runs that a worker trains in one pass; None for the Trainer's own default.
        workers: of the Trainer; None likewise.
    """

    tenant: str
    port: int
    bases: Mapping[str, Path]
    ray: bool = False
    pack: int | None = None
    workers: int | None = None

    @property
    def addresses(self) -> dict[str, str]:
        """Service → address."""
        return {
            name: f"127.0.0.1:{self.port + place}"
            for place, name in enumerate(("registry", "trainer", "renderer"))
        }

    def connection(self, token: str) -> Connection:
        """How callers reach it."""
        return Connection(
            registry=self.addresses["registry"],
            trainer=self.addresses["trainer"],
            renderer=self.addresses["renderer"],
            tenant=self.tenant,
            token=token,
        )


def environment(service: str, settings: PlatformSettings, home: PlatformHome) -> dict[str, str]:
    """The whole environment of a service. What is set by the folder's owner and not here, holds.

    Args:
        service: `registry`, `trainer` or `renderer`.
    """
    prefix = f"PERFUSE_{service.upper()}_"
    folder, addresses = home.folder, settings.addresses
    bases = ",".join(f"{name}={directory}" for name, directory in settings.bases.items())
    told = {"BIND": addresses[service], "TOKEN_FILE": str(home.tokens)}
    if service != "registry":
        told |= {"REGISTRY": addresses["registry"], "BASE_MODELS": bases}
    if service == "renderer":
        told |= {
            "ADAPTER_DIRECTORY": str(folder / "renderer"),
            "REGISTRY_TOKEN": home.custodian_token(),
            "BACKEND": "serve" if settings.ray else "local",
        }
    else:
        blobs = folder / ("adapters" if service == "registry" else "trainer")
        told |= {
            "DATABASE_URL": f"sqlite:///{folder / service}.db",
            "BLOB_DIRECTORY": str(blobs),
        }
    if service == "trainer":
        told |= {
            "REGISTRY_TOKEN": home.delegate_token(),
            "RUNNER": "ray" if settings.ray else "local",
        }
        for name, number in (("PACK", settings.pack), ("WORKERS", settings.workers)):
            if number is not None:
                told[name] = str(number)
    # On one's own machine nobody wants to wait long after Ctrl-C, nor read JSON.
    chosen = {
        "GRACE_SECONDS": "10",
        "LOG_FORMAT": "console",
        # The toybox's colours run over at the 7.5 that larger base models want.
        **(
            {"GUIDANCE": "3"} if service == "renderer" and set(settings.bases) == {"toybox"} else {}
        ),
        **{
            name.removeprefix(prefix): value
            for name, value in os.environ.items()
            if name.startswith(prefix) and name.removeprefix(prefix) not in _NOT_HERE
        },
    }
    rest = {
        name: value
        for name, value in os.environ.items()
        # Not those of another service, which may be secrets; nor the client's.
        if not name.startswith("PERFUSE_")
    }
    return {
        **rest,
        # Its imports remark on picture processors that nothing here uses.
        "TRANSFORMERS_VERBOSITY": os.environ.get("TRANSFORMERS_VERBOSITY", "error"),
        **{f"{prefix}{name}": value for name, value in {**chosen, **told}.items()},
    }
