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
    variable: str, target: str, ca_file: Path | None
) -> grpc.ChannelCredentials | None:
    """The credentials of a channel to another service; None for plain text on loopback.

    Args:
        variable: of the environment that names `ca_file`, for messages.
        target: `host:port`.
        ca_file: PEM file that vouches for it.

    Raises:
        FailedPrecondition: the service is elsewhere, and nothing vouches for it.
    """
    if ca_file is not None:
        return grpc.ssl_channel_credentials(ca_file.read_bytes())
    if is_loopback(target):
        return None
    raise FailedPrecondition(
        f"the service at {target} would get callers' tokens in plain text: set {variable} to a PEM "
        "file that vouches for it"
    )
