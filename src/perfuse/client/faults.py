"""What a service refused, read back from the wire into the exceptions of `perfuse.errors`.

The class is chosen by ErrorInfo's reason; where this release does not know the reason, by its
category (a documented reason that it is a case of), and else by the status code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from perfuse.errors import InvalidArgument, PerfuseError, QuotaExceeded

DOMAIN = "perfuse.dev"
_DETAILS = "grpc-status-details-bin"
_REQUEST_ID = "x-request-id"


def from_rpc_error(error: grpc.RpcError) -> PerfuseError:
    """The exception that a service raised, from what gRPC raised here.

    It has the service's message and status, and `violations`, `resource`, `retry_after`, `quota`
    and `limit` as they were sent. What gRPC itself found, as that a server is away, has gRPC's code
    and words. The request's id, by which the service's log knows the call, is added as a note.

    Args:
        error: A `grpc.aio.AioRpcError`, or what a synchronous stub raises.
    """
    read_code = getattr(error, "code", None)
    code = read_code() if callable(read_code) else None
    if not isinstance(code, grpc.StatusCode):
        return PerfuseError(str(error) or "the call failed, and gRPC does not say how")
    metadata = dict(error.trailing_metadata() or ())
    status = _status(metadata.get(_DETAILS), code)
    # gRPC's own refusals carry no details; the text of ours is whole in both places.
    text = status.message or error.details() or code.name
    info = error_details_pb2.ErrorInfo()
    _unpack(status, info)
    fault = _fault(info, code.name, text)
    bad, resource = error_details_pb2.BadRequest(), error_details_pb2.ResourceInfo()
    retry, failure = error_details_pb2.RetryInfo(), error_details_pb2.PreconditionFailure()
    if isinstance(fault, InvalidArgument) and _unpack(status, bad):
        fault.violations = tuple((each.field, each.description) for each in bad.field_violations)
    if _unpack(status, resource):
        fault.resource = resource.resource_name
    elif _unpack(status, failure):
        fault.resource = next((each.subject for each in failure.violations if each.subject), None)
    exhausted = error_details_pb2.QuotaFailure()
    if isinstance(fault, QuotaExceeded) and _unpack(status, exhausted) and exhausted.violations:
        first = exhausted.violations[0]
        fault.quota, fault.limit = first.quota_metric, first.quota_value
        fault.resource = first.subject or None
    if _unpack(status, retry):
        fault.retry_after = retry.retry_delay.ToMilliseconds() / 1000
    request_id = metadata.get(_REQUEST_ID)
    if request_id:
        fault.add_note(f"request {request_id}")
    return fault


def is_of_a_service(error: grpc.RpcError) -> bool:
    """Whether a service of ours said so, and not gRPC on the way there."""
    read = getattr(error, "trailing_metadata", None)
    return callable(read) and _DETAILS in dict(read() or ())


def _status(raw: object, code: grpc.StatusCode) -> status_pb2.Status:
    """The rich status, empty where there is none or where it speaks of another code."""
    try:
        status = status_pb2.Status.FromString(raw) if isinstance(raw, bytes) else None
    except DecodeError:
        status = None
    if status is None or status.code != code.value[0]:
        return status_pb2.Status()
    return status


def _unpack(status: status_pb2.Status, into: Any) -> bool:
    for detail in status.details:
        if detail.Is(into.DESCRIPTOR):
            try:
                return bool(detail.Unpack(into))
            except DecodeError:
                into.Clear()
    return False


def _fault(info: error_details_pb2.ErrorInfo, code: str, text: str) -> PerfuseError:
    kinds = list(_tree(PerfuseError))
    if info.domain == DOMAIN:
        for reason in (info.reason, info.metadata.get("category")):
            for kind in kinds:
                if kind.__new__(kind).reason == reason and kind.status == code:
                    return kind(text)
    for kind in kinds:
        if kind.status == code:
            return kind(text)
    fault = PerfuseError(text)
    fault.status = code
    return fault


def _tree(kind: type[PerfuseError]) -> Iterator[type[PerfuseError]]:
    """A class and all below it, parents first."""
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)
