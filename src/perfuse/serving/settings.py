"""What the environment says about a server, and what it must not say."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Self

import grpc
from pydantic import Field, ValidationError, model_validator
from pydantic_settings import SettingsConfigDict

from perfuse.errors import FailedPrecondition
from perfuse.serving.authentication import AuthenticationSettings

SECRETS_DIRECTORY = "PERFUSE_SECRETS_DIRECTORY"
"""Names a folder with a secret in each file, called like the variable that it stands for."""


class ServingSettings(AuthenticationSettings):
    """Settings that every service has. A subclass gives the prefix, its port, and its own fields:

        class RegistrySettings(ServingSettings):
            model_config = SettingsConfigDict(env_prefix="PERFUSE_REGISTRY_")
            bind: str = "127.0.0.1:7071"

    Attributes:
        bind: Address that is served, `host:port`; beyond loopback only with TLS and an
            authenticator, of which `AuthenticationSettings` tells.
        tls_cert, tls_key: PEM files, both or neither; read again when they change.
        metrics_address: Where Prometheus asks, `host:port`; None for nowhere.
        health_address: Where `grpc.health.v1` is told in plain text as well, `host:port`, for
            probes that speak no TLS and have no certificate; None for nowhere else than `bind`.
        grace_seconds: That calls in flight may take when the server ends.
        max_message_bytes: Of a request or a response.
        threads: For synchronous code.
        log_level, log_format: See `perfuse.serving.logs.configure`.

    Raises:
        FailedPrecondition: settings that would serve strangers.
    """

    # A value may be a secret, as a database's address is: errors name the setting alone.
    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    bind: str = "127.0.0.1:7070"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    metrics_address: str | None = None
    health_address: str | None = None
    grace_seconds: float = Field(default=20.0, ge=0, le=3600)
    max_message_bytes: int = Field(default=8 << 20, ge=1 << 16, le=1 << 30)
    threads: int = Field(default=16, ge=1, le=512)
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    log_format: Literal["json", "console"] = "json"

    @classmethod
    def load(cls) -> Self:
        """The settings, from the environment and, where it lacks one, from the file of that name
        in the folder that PERFUSE_SECRETS_DIRECTORY names.

        Raises:
            FailedPrecondition: one of them breaks its rule; the message names the variable, and
                never the value. Or there is no such folder.
        """
        folder = os.environ.get(SECRETS_DIRECTORY)
        if folder is not None and not Path(folder).is_dir():
            raise FailedPrecondition(
                f"{SECRETS_DIRECTORY} is {folder}, which is no folder; name one that has secrets "
                "in files, or unset it"
            )
        made: Callable[..., Self] = cls
        try:
            return made(_secrets_dir=folder)
        except ValidationError as error:
            prefix = cls.model_config.get("env_prefix", "")
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            name = prefix + "_".join(str(part) for part in first["loc"]).upper()
            raise FailedPrecondition(f"{name}: {first['msg']}; set it anew") from None

    @model_validator(mode="after")
    def _serves_no_strangers(self) -> Self:
        host_port(self.bind)
        prefix = self.model_config.get("env_prefix", "")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise FailedPrecondition(
                f"{prefix}TLS_CERT and {prefix}TLS_KEY belong together: set both, or neither"
            )
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise FailedPrecondition(
                f"{prefix}TLS_CLIENT_CA verifies clients of TLS, but there is none: set "
                f"{prefix}TLS_CERT and {prefix}TLS_KEY"
            )
        lacking = [] if self.tls_cert else [f"{prefix}TLS_CERT", f"{prefix}TLS_KEY"]
        if not self.knows_callers:
            kinds = ("TOKEN_FILE", "OIDC_ISSUER", "CERTIFICATE_FILE")
            lacking.append(" or ".join(prefix + kind for kind in kinds))
        if lacking and not is_loopback(self.bind):
            raise FailedPrecondition(
                f"{self.bind} can be reached from other machines, which needs TLS and credentials: "
                f"set {' and '.join(lacking)}, or bind to 127.0.0.1"
            )
        return self

    def credentials(self) -> grpc.ServerCredentials | None:
        """The credentials of TLS, None for plain text on loopback.

        Raises:
            FailedPrecondition: a file of them cannot be read.
        """
        if self.tls_cert is None or self.tls_key is None:
            return None
        from perfuse.serving.tls import server_credentials

        return server_credentials(self.tls_cert, self.tls_key, self.tls_client_ca)


def host_port(address: str) -> tuple[str, int]:
    """The parts of `host:port`, brackets of an IPv6 address taken off.

    Raises:
        FailedPrecondition: it is no such address.
    """
    host, _, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not host or not port.isdecimal() or int(port) > 65535 or (":" in host and not bracketed):
        raise FailedPrecondition(
            f"{address!r} is not an address: it must be host:port, as 127.0.0.1:7070 or [::1]:7070"
        )
    return host.strip("[]"), int(port)


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach `host:port`."""
    host, _ = host_port(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
