"""Refusals on the wire, over a real server, and read back: nothing is lost, nothing is too long."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from perfuse import errors
from perfuse.adapter import errors as adapter_errors
from perfuse.client import from_rpc_error
from perfuse.errors import (
    AdapterRefused,
    AlreadyExists,
    BaseModelMismatch,
    InvalidArgument,
    NotFound,
    PerfuseError,
    QuotaExceeded,
    ResourceExhausted,
    Unavailable,
)
from perfuse.quotas import exceeded
from perfuse.serving.status import MAX_BYTES, MAX_VIOLATIONS, status_of
from perfuse.serving.testing import serve
from perfuse.v1 import errors_pb2
from serving.probe import Question, Stub, add, probe


def classes(module: Any) -> list[type[PerfuseError]]:
    return [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, PerfuseError)
    ]


TREE = classes(errors)
FINER = [kind for kind in classes(adapter_errors) if kind not in TREE]
TEXT = "naïve 'tom' 东京 100% \U0001f600\n\tnot so"


async def sent(error: BaseException) -> grpc.aio.AioRpcError:
    """What a client of a real server gets for what a method raises."""

    def answer() -> Any:
        raise error

    tokens, edge, servicer = probe(ask=answer)
    async with serve((add, servicer), edge=edge, tokens=tokens) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.stub(Stub).Ask(Question(text="ask"))
    return caught.value


def rich(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    return status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])


def details(status: status_pb2.Status, kind: Any) -> list[Any]:
    found = []
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):
            message = kind()
            packed.Unpack(message)
            found.append(message)
    return found


class TestRoundTrip:
    @pytest.mark.parametrize("kind", TREE)
    async def test_every_class_comes_back(self, kind: type[PerfuseError]) -> None:
        error = await sent(kind(TEXT))
        back = from_rpc_error(error)
        assert type(back) is kind
        assert str(back) == TEXT
        assert error.code().name == back.status == kind.status
        assert back.reason == kind("").reason
        (info,) = details(rich(error), error_details_pb2.ErrorInfo)
        assert (info.domain, info.reason) == ("perfuse.dev", back.reason)
        assert info.metadata["request_id"] == dict(error.trailing_metadata())["x-request-id"]
        assert back.__notes__ == [f"request {info.metadata['request_id']}"]

    @pytest.mark.parametrize("kind", FINER)
    async def test_a_finer_case_comes_back_too(self, kind: type[PerfuseError]) -> None:
        error = await sent(kind(TEXT))
        assert type(from_rpc_error(error)) is kind
        (info,) = details(rich(error), error_details_pb2.ErrorInfo)
        assert info.reason == kind("").reason
        assert (
            f"ERROR_REASON_{info.metadata['category']}"
            in errors_pb2.ErrorReason.DESCRIPTOR.values_by_name
        )

    async def test_an_unknown_case_comes_back_as_what_it_is_a_case_of(self) -> None:
        class SomethingNew(AdapterRefused):
            pass

        error = await sent(SomethingNew(TEXT))
        renamed = rich(error)
        SomethingNew.__name__ = "Forgotten"
        back = from_rpc_error(error)
        assert type(back) is AdapterRefused
        assert details(renamed, error_details_pb2.ErrorInfo)[0].reason == "SOMETHING_NEW"

    async def test_what_an_error_carries_comes_back(self) -> None:
        fault = InvalidArgument("two wrong")
        fault.violations = (('labels["ä"]', "too long"), ("", "both at once"))
        assert from_rpc_error(await sent(fault)).violations == fault.violations  # type: ignore[attr-defined]
        name = "tenants/acme/concepts/tom"
        for kind in (NotFound, AlreadyExists, BaseModelMismatch):
            fault = kind("as it is")
            fault.resource = name
            assert from_rpc_error(await sent(fault)).resource == name
        for kind in (Unavailable, ResourceExhausted):
            fault = kind("not now")
            fault.retry_after = 2.5
            assert from_rpc_error(await sent(fault)).retry_after == 2.5

    async def test_a_quota_that_is_used_up_comes_back_as_it_was(self) -> None:
        for retry_after in (None, 2.5):
            fault = exceeded("acme", "images_per_minute", 12.9, "Wait", retry_after)
            error = await sent(fault)
            back = from_rpc_error(error)
            assert isinstance(back, QuotaExceeded)
            assert (back.quota, back.limit) == ("images_per_minute", 12)
            assert (back.resource, back.retry_after) == ("tenants/acme", retry_after)
            (detail,) = details(rich(error), error_details_pb2.QuotaFailure)
            (violation,) = detail.violations
            assert violation.quota_metric == "images_per_minute"
            assert violation.description == str(fault)
            told = details(rich(error), error_details_pb2.RetryInfo)
            assert bool(told) is (retry_after is not None)

    async def test_a_fault_within_comes_back_without_its_words(self) -> None:
        error = await sent(ValueError("canary"))
        back = from_rpc_error(error)
        assert type(back) is PerfuseError
        assert "canary" not in f"{error!r}{error.trailing_metadata()}"
        assert dict(error.trailing_metadata())["x-request-id"] in str(back)


class TestDetails:
    def test_a_resource_has_its_type(self) -> None:
        fault = NotFound("gone")
        for name, kind in (
            ("tenants/acme/concepts/tom", "perfuse.dev/Concept"),
            ("tenants/acme/concepts/tom/versions/3", "perfuse.dev/Version"),
            ("baseModels/toybox", "perfuse.dev/BaseModel"),
            ("elsewhere/x", ""),
            ("bare", ""),
        ):
            fault.resource = name
            (info,) = details(status_of(fault, "r"), error_details_pb2.ResourceInfo)
            assert (info.resource_type, info.resource_name) == (kind, name)

    def test_a_precondition_has_its_reason_for_type(self) -> None:
        status = status_of(BaseModelMismatch("made for another"), "r")
        (failure,) = details(status, error_details_pb2.PreconditionFailure)
        assert failure.violations[0].type == "BASE_MODEL_MISMATCH"
        assert failure.violations[0].description == "made for another"

    def test_no_more_violations_than_fit(self) -> None:
        fault = InvalidArgument("many wrong")
        fault.violations = tuple((f"f{n}", "x") for n in range(100))
        (bad,) = details(status_of(fault, "r"), error_details_pb2.BadRequest)
        assert len(bad.field_violations) == MAX_VIOLATIONS


LONG = st.text(st.characters(exclude_categories=()), max_size=40).map(lambda text: text * 60)


class TestLength:
    """Beyond about 8 KiB of trailers gRPC would answer RESOURCE_EXHAUSTED in the error's place."""

    @settings(deadline=None, max_examples=60, derandomize=True)
    @given(
        st.sampled_from([*TREE, *FINER]),
        LONG,
        LONG,
        st.lists(st.tuples(LONG, LONG), max_size=40),
    )
    def test_a_status_is_never_too_long(
        self, kind: type[PerfuseError], text: str, resource: str, violations: list[tuple[str, str]]
    ) -> None:
        fault = kind(text)
        fault.resource, fault.retry_after = resource, 1.0
        if isinstance(fault, InvalidArgument):
            fault.violations = tuple(violations)
        status = status_of(fault, "r" * 64)
        assert len(details(status, error_details_pb2.ErrorInfo)) == 1
        assert len({packed.type_url for packed in status.details}) == len(status.details)
        text_bytes = sum(1 if 32 <= b < 127 and b != 37 else 3 for b in status.message.encode())
        assert text_bytes + status.ByteSize() * 4 / 3 <= MAX_BYTES + 4

    @pytest.mark.parametrize("letter", ["x", "%", "\U0001f600", "\udc00"])
    async def test_the_longest_get_through_as_what_they_are(self, letter: str) -> None:
        fault = InvalidArgument(letter * 20_000)
        fault.violations = tuple((letter * 500, letter * 5000) for _ in range(100))
        fault.resource = letter * 5000
        error = await sent(fault)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        back = from_rpc_error(error)
        assert isinstance(back, InvalidArgument)
        assert len(back.violations) > 3
        assert str(back).endswith("...")
