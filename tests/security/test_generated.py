"""Whatever is sent to whichever rpc, only documented codes come back, and the server goes on.

`PERFUSE_GENERATED` says how many requests each rpc gets; a few in the ordinary suite.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perfuse.v1 import errors_pb2
from security.generated import of
from security.planted import RENDERER, Place
from security.requests import METHODS

EXAMPLES = int(os.environ.get("PERFUSE_GENERATED", "10"))

DOCUMENTED = {
    "OK",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "FAILED_PRECONDITION",
    "ABORTED",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
}
"""What a caller with every role may be answered while all is well. UNAVAILABLE, DATA_LOSS and
UNAUTHENTICATED are documented too, but here nothing is away or damaged, and the token is good."""

# What waits is not waited for: a render's turn, an upload's next message, a run's next event.
_SECONDS = 20.0
_WAITING = {"DEADLINE_EXCEEDED"}
_REASONS = {
    name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.DESCRIPTOR.values_by_name
}


@pytest.mark.parametrize("rpc", METHODS)
def test_only_documented_codes_come_back(planted: Place, rpc: str) -> None:
    waits = METHODS[rpc].server_streaming or rpc.startswith(RENDERER)
    allowed = DOCUMENTED | (_WAITING if waits else set())

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize="PERFUSE_GENERATED" not in os.environ,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def every(data: st.DataObject) -> None:
        request: Any = data.draw(of(rpc, "fuzzer"))
        answer = planted.call(rpc, request, "everything", seconds=_SECONDS)
        assert answer.code in allowed, (answer.code, answer.words)
        if answer.code not in {"OK", *_WAITING}:
            _hold_to_its_form(dict(answer.metadata), answer.words)

    every()
    assert _is_serving(planted, rpc.split("/")[0])


def _hold_to_its_form(metadata: dict[str, bytes], words: str) -> None:
    """Exactly one ErrorInfo with a documented reason, and no library's words."""
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    infos = []
    for each in status.details:
        info = error_details_pb2.ErrorInfo()
        if each.Unpack(info):
            infos.append(info)
    (info,) = infos
    assert info.domain == "perfuse.dev"
    assert {info.reason, info.metadata.get("category")} & _REASONS, info
    for sign in ("Traceback", 'File "', "site-packages", "0x7f", "sqlalchemy", "psycopg"):
        assert sign not in words


def _is_serving(where: Place, service: str) -> bool:
    stub = health_pb2_grpc.HealthStub(where.channels[service])
    answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=_SECONDS)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
