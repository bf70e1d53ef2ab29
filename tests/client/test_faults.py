"""Reading refusals that no service of ours wrote; the rest is held in tests/serving."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import error_details_pb2, status_pb2

from perfuse.client import from_rpc_error
from perfuse.errors import InvalidArgument, NotFound, PerfuseError, Unavailable


class Refused(grpc.RpcError):
    """What gRPC raises, with what a server sent."""

    def __init__(self, code: grpc.StatusCode, text: str | None, trailers: Any) -> None:
        super().__init__()
        self._code, self._text, self._trailers = code, text, trailers

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._text

    def trailing_metadata(self) -> Any:
        return self._trailers


def refused(code: grpc.StatusCode, *details: Any, status_code: int | None = None) -> Refused:
    status = status_pb2.Status(
        code=code.value[0] if status_code is None else status_code, message="rich"
    )
    for detail in details:
        if isinstance(detail, Packed):
            status.details.append(detail)
        else:
            status.details.add().Pack(detail)
    return Refused(code, "plain", (("grpc-status-details-bin", status.SerializeToString()),))


INFO = error_details_pb2.ErrorInfo(reason="NOT_FOUND", domain="perfuse.dev")


class TestForeign:
    @pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0]])
    def test_every_code_is_some_error_with_that_status(self, code: grpc.StatusCode) -> None:
        for trailers in (None, (), (("grpc-status-details-bin", b"\xff"),)):
            fault = from_rpc_error(Refused(code, "plain", trailers))
            assert (fault.status, str(fault)) == (code.name, "plain")
        assert str(from_rpc_error(Refused(code, None, ()))) == code.name

    def test_another_domains_reason_is_not_ours(self) -> None:
        info = error_details_pb2.ErrorInfo(reason="DIGEST_MISMATCH", domain="example.com")
        fault = from_rpc_error(refused(grpc.StatusCode.INVALID_ARGUMENT, info))
        assert type(fault) is InvalidArgument

    def test_a_reason_of_another_status_is_not_believed(self) -> None:
        fault = from_rpc_error(refused(grpc.StatusCode.UNAVAILABLE, INFO))
        assert type(fault) is Unavailable

    def test_details_of_another_code_are_left_out(self) -> None:
        error = refused(grpc.StatusCode.NOT_FOUND, INFO, status_code=3)
        assert str(from_rpc_error(error)) == "plain"

    def test_details_that_lie_about_their_type_are_left_out(self) -> None:
        lies = [
            Packed(type_url=f"type.googleapis.com/google.rpc.{name}", value=b"\xff")
            for name in ("ErrorInfo", "BadRequest", "ResourceInfo", "RetryInfo")
        ]
        empty = error_details_pb2.PreconditionFailure()
        fault = from_rpc_error(refused(grpc.StatusCode.NOT_FOUND, *lies, empty))
        assert type(fault) is NotFound
        assert (str(fault), fault.resource, fault.retry_after) == ("rich", None, None)

    def test_an_error_without_a_code(self) -> None:
        assert type(from_rpc_error(grpc.RpcError("odd"))) is PerfuseError


def test_a_server_that_is_away_is_unavailable() -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/perfuse.probe.ProbeService/Ask")(b"", timeout=10)
        assert type(from_rpc_error(caught.value)) is Unavailable


def test_a_synchronous_stubs_error_is_read_as_well() -> None:
    def refuse(request: bytes, context: Any) -> bytes:
        trailers = (refused(grpc.StatusCode.NOT_FOUND, INFO).trailing_metadata()[0],)
        context.set_trailing_metadata(trailers)
        context.abort(grpc.StatusCode.NOT_FOUND, "rich")

    handler = grpc.method_handlers_generic_handler(
        "perfuse.probe.ProbeService", {"Ask": grpc.unary_unary_rpc_method_handler(refuse)}
    )
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((handler,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/perfuse.probe.ProbeService/Ask")(b"", timeout=10)
            fault = from_rpc_error(caught.value)
        server.stop(None).wait()
    assert type(fault) is NotFound
    assert str(fault) == "rich"
