"""What a service is told of its surroundings: base models on disk, and the Registry."""

from __future__ import annotations

from pathlib import Path

import grpc

from perfuse.errors import FailedPrecondition
from perfuse.names import check_id
from perfuse.serving.settings import is_loopback


def base_directories(variable: str, value: str) -> dict[str, Path]:
    """Id of a base model → its directory, from `id=directory` pairs with commas between.

    Args:
        variable: of the environment, for messages.
        value: what it says.

    Raises:
        FailedPrecondition: none is named, or not as it should be.
        InvalidArgument: an id is none.
    """
    found: dict[str, Path] = {}
    for entry in filter(None, (part.strip() for part in value.split(","))):
        base_id, _, directory = entry.partition("=")
        if not directory:
            raise FailedPrecondition(f"{variable} has {entry!r}; write id=directory")
        found[check_id(variable, base_id)] = Path(directory)
    if not found:
        raise FailedPrecondition(f"there is no base model: set {variable} to id=directory")
    return found


def channel_credentials(
    prefix: str, target: str, ca: Path | None, cert: Path | None = None, key: Path | None = None
) -> grpc.ChannelCredentials | None:
    """The credentials of a channel to the Registry; None for plain text on loopback.

    Args:
        prefix: of the environment's variables, for messages.
        target: `host:port`.
        ca: PEM file that vouches for it.
        cert, key: PEM files of the service's own certificate, both or neither; read now, so that a
            process that outlives it must be started anew.

    Raises:
        FailedPrecondition: the Registry is elsewhere, and nothing vouches for it; or a file is
            missing.
    """
    if (cert is None) != (key is None):
        raise FailedPrecondition(
            f"{prefix}REGISTRY_CERT and {prefix}REGISTRY_KEY belong together: set both, or neither"
        )
    if ca is None and cert is not None:
        raise FailedPrecondition(
            f"{prefix}REGISTRY_CERT is for TLS: set {prefix}REGISTRY_CA to a PEM file that vouches "
            "for the Registry"
        )
    if ca is not None:
        return grpc.ssl_channel_credentials(
            *(None if path is None else _read(path) for path in (ca, key, cert))
        )
    if is_loopback(target):
        return None
    raise FailedPrecondition(
        f"the Registry at {target} would get callers' tokens in plain text: set "
        f"{prefix}REGISTRY_CA to a PEM file that vouches for it"
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FailedPrecondition(
            f"{path} cannot be read ({error.strerror}); it must be a PEM file of TLS"
        ) from None
