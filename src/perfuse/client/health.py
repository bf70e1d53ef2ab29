"""Whether a service can be asked, as `grpc.health.v1` tells without any credential."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

__all__ = ["SERVICES", "Health", "State", "check"]

State = Literal["SERVING", "NOT_SERVING", "STRANGER", "AWAY", "SILENT"]
"""What was found:

- SERVING: it can be asked;
- NOT_SERVING: it lives, but what it needs does not, or it drains;
- STRANGER: a gRPC server, but not of this service;
- AWAY: no connection, or none that speaks gRPC as was expected;
- SILENT: no answer in time.
"""

SERVICES = {
    "registry": "perfuse.v1.RegistryService",
    "trainer": "perfuse.v1.TrainerService",
    "renderer": "perfuse.v1.RendererService",
}
"""Names under which the services tell their health."""

_STATES: dict[int, State] = {
    health_pb2.HealthCheckResponse.SERVING: "SERVING",
    health_pb2.HealthCheckResponse.NOT_SERVING: "NOT_SERVING",
}
_BY_CODE: dict[grpc.StatusCode, State] = {
    grpc.StatusCode.NOT_FOUND: "STRANGER",
    grpc.StatusCode.UNIMPLEMENTED: "STRANGER",
    grpc.StatusCode.DEADLINE_EXCEEDED: "SILENT",
}


@dataclass(frozen=True, slots=True)
class Health:
    """What a check found.

    Attributes:
        state: see `State`.
        detail: gRPC's own words where there was no answer.
    """

    state: State
    detail: str = ""


def check(
    address: str,
    credentials: grpc.ChannelCredentials | None = None,
    *,
    service: str = "",
    timeout: float = 1.0,
) -> Health:
    """Ask once, on a connection of its own; never raises, and never takes longer than `timeout`.

    Args:
        address: `host:port`.
        credentials: of TLS; None for plain text.
        service: one of `SERVICES`' values; empty for the server as a whole.
        timeout: seconds.
    """
    # Without its own connections, a server that came up a moment ago would be looked for only
    # after the back-off of the last check.
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel: Any = (
        grpc.insecure_channel(address, options=options)
        if credentials is None
        else grpc.secure_channel(address, credentials, options=options)
    )
    try:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service), timeout=timeout
        )
    except grpc.RpcError as error:
        told: Any = error
        return Health(_BY_CODE.get(told.code(), "AWAY"), told.details() or "")
    finally:
        channel.close()
    return Health(_STATES.get(answer.status, "STRANGER"))
