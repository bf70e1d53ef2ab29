"""Where the services are and who is calling: from arguments, the environment, or a file.

What is given beats the environment, and the environment beats the file:

| argument | environment | in the file |
|---|---|---|
| `registry` | `PERFUSE_REGISTRY` | `registry = "127.0.0.1:7071"` |
| `trainer` | `PERFUSE_TRAINER` | `trainer = "127.0.0.1:7072"` |
| `renderer` | `PERFUSE_RENDERER` | `renderer = "127.0.0.1:7073"` |
| `tenant` | `PERFUSE_TENANT` | `tenant = "acme"` |
| `token` | `PERFUSE_TOKEN` | `token = "perfuse_..."` |
| `token_file` | `PERFUSE_TOKEN_FILE` | `token_file = "/run/perfuse/token"` |
| `ca` | `PERFUSE_CA` | `ca = "/etc/perfuse/ca.pem"` |
| `client_cert` | `PERFUSE_CLIENT_CERT` | `client_cert = "/etc/perfuse/me.pem"` |
| `client_key` | `PERFUSE_CLIENT_KEY` | `client_key = "/etc/perfuse/me.key"` |

The file is `PERFUSE_CONFIG`; without that, `config.toml` in the home folder, which is yours;
without that, `up.toml` there, which `perfuse up` leaves. The home folder is `PERFUSE_HOME`, or
`~/.perfuse`.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import grpc

from perfuse.errors import FailedPrecondition, InvalidArgument, NotFound
from perfuse.names import check_id

_TOKENS = {"token", "token_file"}
_FILES = {"ca", "token_file", "client_cert", "client_key"}

LEFT_BY_UP = "up.toml"
"""In the home folder: how to reach what `perfuse up` started last."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Endpoints and credential of one caller.

    Attributes:
        registry, trainer, renderer: `host:port`.
        tenant: whose names are meant where a short id stands; the token's own tenant.
        token: as `perfuse-registry token` printed it, or an issuer signed it; or what gives one,
            asked at every call, which must not take long.
        token_file: file that has the token, read at every call, so that whoever renews it may do so
            at any time; `token` beats it.
        ca: PEM file that vouches for the services; None trusts the system's authorities, and on
            loopback speaks in plain text.
        client_cert, client_key: PEM files of the caller's own certificate, both or neither; read
            when the first call is made. Alone they are a credential where a service knows them.

    Raises:
        InvalidArgument: an address or the tenant is malformed, or a certificate lacks its key.
    """

    registry: str = "127.0.0.1:7071"
    trainer: str = "127.0.0.1:7072"
    renderer: str = "127.0.0.1:7073"
    tenant: str = ""
    token: str | Callable[[], str] = field(default="", repr=False)
    ca: Path | None = None
    token_file: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None

    def __post_init__(self) -> None:
        for service in ("registry", "trainer", "renderer"):
            _host(service, getattr(self, service))
        if self.tenant:
            check_id("tenant", self.tenant)
        if (self.client_cert is None) != (self.client_key is None):
            raise InvalidArgument.in_field(
                "client_key", "a certificate and its key belong together; give both, or neither"
            )

    @classmethod
    def find(
        cls, config: Path | None = None, **given: str | Path | Callable[[], str] | None
    ) -> Connection:
        """The connection that arguments, environment and file say.

        Args:
            config: the file, in place of those that are looked for.
            given: any of the attributes; None counts as not given.

        Raises:
            NotFound: `config`, or the file that the environment names, is not there.
            InvalidArgument: the file, or a value, is malformed.
        """
        said = {each.name: os.environ.get(f"PERFUSE_{each.name.upper()}") for each in fields(cls)}
        environment = {name: value for name, value in said.items() if value}
        arguments = {name: value for name, value in given.items() if value is not None}
        found: dict[str, Any] = {}
        for source in (_read(config), environment, arguments):
            if source.keys() & _TOKENS:
                # Where a better source says who calls, what others say of it counts for nothing.
                found = {name: value for name, value in found.items() if name not in _TOKENS}
            found.update(source)
        for name in _FILES & found.keys():
            found[name] = Path(found[name])
        return cls(**found)

    @property
    def identified(self) -> bool:
        """Whether there is anything to call with."""
        return bool(self.token or self.token_file or self.client_cert)

    def bearer(self) -> str:
        """The token at this moment; empty where there is none.

        Raises:
            FailedPrecondition: `token_file` cannot be read, or is empty.
        """
        if self.token:
            return self.token if isinstance(self.token, str) else self.token()
        if self.token_file is None:
            return ""
        try:
            token = self.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not ASCII"
            raise FailedPrecondition(
                f"{self.token_file} cannot be read ({why}); it must hold a token"
            ) from None
        if not token:
            raise FailedPrecondition(f"{self.token_file} is empty; it must hold a token")
        return token

    def credentials(self, service: str) -> grpc.ChannelCredentials | None:
        """Of the channel to `registry`, `trainer` or `renderer`; None for plain text on loopback.

        Raises:
            FailedPrecondition: a file cannot be read.
        """
        if self.ca is None and self.client_cert is None and self.is_local(service):
            return None
        # A token must not travel in plain text; so elsewhere it is TLS or nothing.
        return grpc.ssl_channel_credentials(
            _pem(self.ca, "that vouches for the services"),
            _pem(self.client_key, "with the key of the certificate"),
            _pem(self.client_cert, "with the caller's certificate"),
        )

    def is_local(self, service: str) -> bool:
        """Whether only this machine can reach `registry`, `trainer` or `renderer`."""
        host = _host(service, getattr(self, service))
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def home() -> Path:
    """The home folder: `PERFUSE_HOME`, or `~/.perfuse`."""
    said = os.environ.get("PERFUSE_HOME")
    return Path(said) if said else Path.home() / ".perfuse"


def config_file() -> Path | None:
    """The file that is read where none is given; None where there is none."""
    if said := os.environ.get("PERFUSE_CONFIG"):
        return Path(said)
    for name in ("config.toml", LEFT_BY_UP):
        if (path := home() / name).is_file():
            return path
    return None


def _read(config: Path | None) -> Mapping[str, str]:
    path = config or config_file()
    if path is None:
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"{path} is not there; it is to say where Perfuse's services are") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, OSError) as error:
        raise InvalidArgument(f"{path} is not readable TOML: {error}") from error
    known = {each.name for each in fields(Connection)}
    for name, value in content.items():
        if name not in known or not isinstance(value, str):
            raise InvalidArgument(
                f"{path} has {name} = {value!r}; it may have {', '.join(sorted(known))}, each text"
            )
    return content


def _pem(path: Path | None, what: str) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise FailedPrecondition(
            f"{path} cannot be read ({error.strerror}); it must be a PEM file {what}"
        ) from error


def _host(service: str, address: str) -> str:
    host, _, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not host or not port.isdecimal() or int(port) > 65535 or (":" in host and not bracketed):
        raise InvalidArgument.in_field(
            service, f"{address!r} is not an address; write host:port, as 127.0.0.1:7071"
        )
    return host.strip("[]")
