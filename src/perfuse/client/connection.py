"""Where the services are and who is calling: from arguments, the environment, or a file.

What is given beats the environment, and the environment beats the file:

| argument | environment | in the file |
|---|---|---|
| `registry` | `PERFUSE_REGISTRY` | `registry = "127.0.0.1:7071"` |
| `trainer` | `PERFUSE_TRAINER` | `trainer = "127.0.0.1:7072"` |
| `renderer` | `PERFUSE_RENDERER` | `renderer = "127.0.0.1:7073"` |
| `tenant` | `PERFUSE_TENANT` | `tenant = "acme"` |
| `token` | `PERFUSE_TOKEN` | `token = "perfuse_..."` |
| `ca` | `PERFUSE_CA` | `ca = "/etc/perfuse/ca.pem"` |

The file is `PERFUSE_CONFIG`; without that, `config.toml` in the home folder, which is yours;
without that, `up.toml` there, which `perfuse up` leaves. The home folder is `PERFUSE_HOME`, or
`~/.perfuse`.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import grpc

from perfuse.errors import FailedPrecondition, InvalidArgument, NotFound
from perfuse.names import check_id

LEFT_BY_UP = "up.toml"
"""In the home folder: how to reach what `perfuse up` started last."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Endpoints and credential of one caller.

    Attributes:
        registry, trainer, renderer: `host:port`.
        tenant: whose names are meant where a short id stands; the token's own tenant.
        token: as `perfuse-registry token` printed it.
        ca: PEM file that vouches for the services; None trusts the system's authorities, and on
            loopback speaks in plain text.

    Raises:
        InvalidArgument: an address or the tenant is malformed.
    """

    registry: str = "127.0.0.1:7071"
    trainer: str = "127.0.0.1:7072"
    renderer: str = "127.0.0.1:7073"
    tenant: str = ""
    token: str = field(default="", repr=False)
    ca: Path | None = None

    def __post_init__(self) -> None:
        for service in ("registry", "trainer", "renderer"):
            _host(service, getattr(self, service))
        if self.tenant:
            check_id("tenant", self.tenant)

    @classmethod
    def find(cls, config: Path | None = None, **given: str | Path | None) -> Connection:
        """The connection that arguments, environment and file say.

        Args:
            config: the file, in place of those that are looked for.
            given: any of the attributes; None counts as not given.

        Raises:
            NotFound: `config`, or the file that the environment names, is not there.
            InvalidArgument: the file, or a value, is malformed.
        """
        found: dict[str, str | Path] = {}
        found.update(_read(config))
        for each in fields(cls):
            if value := os.environ.get(f"PERFUSE_{each.name.upper()}"):
                found[each.name] = value
        found.update((name, value) for name, value in given.items() if value is not None)
        if found.get("ca"):
            found["ca"] = Path(found["ca"])
        return cls(**found)  # type: ignore[arg-type]

    def credentials(self, service: str) -> grpc.ChannelCredentials | None:
        """Of the channel to `registry`, `trainer` or `renderer`; None for plain text on loopback.

        Raises:
            FailedPrecondition: `ca` cannot be read.
        """
        if self.ca is not None:
            try:
                return grpc.ssl_channel_credentials(self.ca.read_bytes())
            except OSError as error:
                raise FailedPrecondition(
                    f"{self.ca} cannot be read ({error.strerror}); it must be a PEM file that "
                    "vouches for the services"
                ) from error
        # A token must not travel in plain text; so elsewhere it is TLS or nothing.
        return None if self.is_local(service) else grpc.ssl_channel_credentials()

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


def _host(service: str, address: str) -> str:
    host, _, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not host or not port.isdecimal() or int(port) > 65535 or (":" in host and not bracketed):
        raise InvalidArgument.in_field(
            service, f"{address!r} is not an address; write host:port, as 127.0.0.1:7071"
        )
    return host.strip("[]")
