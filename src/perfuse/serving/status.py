"""What a refusal looks like on the wire: a `google.rpc.Status` with its details.

Every refusal carries exactly one ErrorInfo (domain `perfuse.dev`, the error's reason, the
request's id), and beside it what its kind calls for:

    InvalidArgument                  BadRequest from `violations`
    NotFound, AlreadyExists          ResourceInfo, where the error has a `resource` (its name)
    FailedPrecondition               PreconditionFailure of the type `reason`
    QuotaExceeded                    QuotaFailure with the quota, its limit and whose it is
    Unavailable, ResourceExhausted   RetryInfo, where the error has a `retry_after` (seconds)

The whole stays under `MAX_BYTES`: beyond
about 8 KiB of trailing metadata, gRPC replaces the status by RESOURCE_EXHAUSTED.
`perfuse.client.faults` reads all this back into exceptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from perfuse import errors
from perfuse.errors import PerfuseError
from perfuse.v1 import errors_pb2

DOMAIN = "perfuse.dev"
REQUEST_ID = "x-request-id"
MAX_VIOLATIONS = 32
MAX_BYTES = 7 * 1024

_MESSAGE_BYTES = 1536
_FIELD_BYTES = 128
_DESCRIPTION_BYTES = 256
_NAME_BYTES = 256
_CUT = "..."

# What gRPC sends as it is within `grpc-message`: printable ASCII but the percent sign.
_UNQUOTED = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")

_RESOURCE_TYPES = {
    "tenants": "Tenant",
    "concepts": "Concept",
    "versions": "Version",
    "aliases": "Alias",
    "baseModels": "BaseModel",
    "imageSets": "ImageSet",
    "trainingRuns": "TrainingRun",
}
_REASONS = frozenset(
    name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.DESCRIPTOR.values_by_name
)


class DeadlinePassed(Exception):
    """A call's deadline was over before its work began."""

    code = "DEADLINE_EXCEEDED"
    text = "the deadline passed before the call's work began; nothing was done, so call again"


def code_of(error: BaseException) -> str:
    """The name of the gRPC code that answers an exception."""
    if isinstance(error, PerfuseError):
        return error.status
    return DeadlinePassed.code if isinstance(error, DeadlinePassed) else "INTERNAL"


def status_of(error: BaseException, request_id: str) -> status_pb2.Status:
    """The status that a caller receives for an exception.

    Anything but a PerfuseError is INTERNAL with a text that tells the request's id alone.
    """
    metadata = {"request_id": request_id}
    code = code_of(error)
    if isinstance(error, DeadlinePassed):
        return _pack(code, error.text, code, metadata, [])
    if not isinstance(error, PerfuseError):
        text = f"a fault within the service; ask its operator about request {request_id}"
        return _pack(code, text, code, metadata, [])
    reason = error.reason
    if reason not in _REASONS:
        # A finer case of a documented reason, as those of perfuse.adapter: readers that do not
        # know the case find the reason that they do know.
        metadata["category"] = _documented(type(error))
    violations = getattr(error, "violations", ())[:MAX_VIOLATIONS]
    while True:
        details = _details(error, reason, violations)
        status = _pack(code, str(error), reason, metadata, details)
        if not violations or _wire_bytes(status) <= MAX_BYTES:
            return status
        violations = violations[:-1]


def to_grpc(status: status_pb2.Status, request_id: str) -> grpc.Status:
    """The same for `context.abort_with_status`, with the request's id beside it."""
    made = rpc_status.to_status(status)
    return made._replace(trailing_metadata=(*made.trailing_metadata, (REQUEST_ID, request_id)))


def _pack(
    code: str, message: str, reason: str, metadata: dict[str, str], details: list[Message]
) -> status_pb2.Status:
    status = status_pb2.Status(code=grpc.StatusCode[code].value[0], message=_shortened(message))
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)
    for detail in (info, *details):
        status.details.add().Pack(detail)
    return status


def _details(
    error: PerfuseError, reason: str, violations: Sequence[tuple[str, str]]
) -> list[Message]:
    details: list[Message] = []
    if violations:
        bad = error_details_pb2.BadRequest()
        for field, description in violations:
            bad.field_violations.add(
                field=_clip(field, _FIELD_BYTES),
                description=_clip(description, _DESCRIPTION_BYTES),
            )
        details.append(bad)
    resource = error.resource
    if resource is not None and isinstance(error, (errors.NotFound, errors.AlreadyExists)):
        parts = resource.split("/")
        kind = _RESOURCE_TYPES.get(parts[-2]) if len(parts) > 1 else None
        details.append(
            error_details_pb2.ResourceInfo(
                resource_type=f"{DOMAIN}/{kind}" if kind else "",
                resource_name=_clip(resource, _NAME_BYTES),
            )
        )
    if isinstance(error, errors.FailedPrecondition):
        failure = error_details_pb2.PreconditionFailure()
        failure.violations.add(
            type=reason,
            subject=_clip(resource or "", _NAME_BYTES),
            description=_clip(str(error), _DESCRIPTION_BYTES),
        )
        details.append(failure)
    if isinstance(error, errors.QuotaExceeded):
        quota = error_details_pb2.QuotaFailure()
        quota.violations.add(
            subject=_clip(resource or "", _NAME_BYTES),
            description=_clip(str(error), _DESCRIPTION_BYTES),
            quota_metric=error.quota,
            quota_value=error.limit or 0,
        )
        details.append(quota)
    retry_after = error.retry_after
    if retry_after is not None and isinstance(
        error, (errors.Unavailable, errors.ResourceExhausted)
    ):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(retry_after * 1000))
        details.append(retry)
    return details


def _documented(kind: type[PerfuseError]) -> str:
    for ancestor in kind.__mro__:
        if issubclass(ancestor, PerfuseError):
            reason = ancestor.__new__(ancestor).reason
            if reason in _REASONS:
                return reason
    return "INTERNAL"


def _wire_bytes(status: status_pb2.Status) -> int:
    """Trailing metadata at its dearest: the message in percent signs, the details in base 64."""
    return len(quote(status.message, safe=_UNQUOTED)) + (int(status.ByteSize()) + 2) // 3 * 4


def _shortened(text: str) -> str:
    """The text, no longer than `_MESSAGE_BYTES` as gRPC sends it."""
    text = _clip(text, _MESSAGE_BYTES)
    while len(quote(text, safe=_UNQUOTED)) > _MESSAGE_BYTES:
        text = text[: len(text) * 3 // 4].removesuffix(_CUT) + _CUT
    return text


def _clip(text: str, size: int) -> str:
    """The text in at most `size` bytes of UTF-8, lone surrogates replaced."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= size:
        return raw.decode("utf-8")
    return raw[: size - len(_CUT)].decode("utf-8", "ignore") + _CUT
