"""What every call passes before and after its method: who calls, may they, is the request right.

A servicer has an attribute `edge`, and each of its methods is decorated:

    class Registry(RegistryServiceServicer):
        def __init__(self, edge: Edge) -> None:
            self.edge = edge

        @rpc
        async def GetConcept(self, request: GetConceptRequest, call: Call) -> Concept:
            return to_wire(await call.in_thread(self.catalog.get, call.caller, request.name))

        @rpc
        async def UploadImages(self, requests: AsyncIterator[Part], call: Call) -> ImageSet: ...

        @rpc
        async def WatchTrainingRun(self, request: Watch, call: Call) -> AsyncIterator[Event]:
            yield ...

The order is: request id, credential, role, deadline, the proto's rules, the tenant in the request's
names, the method. Who fails at one learns nothing of the next; role and names are those of the
method's row in `perfuse.serving.policy`. What a method raises becomes a status by
`perfuse.serving.status`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message
from opentelemetry.trace import Tracer
from prometheus_client import Histogram

from perfuse.errors import (
    InvalidArgument,
    PerfuseError,
    QuotaExceeded,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from perfuse.serving import logs
from perfuse.serving.call import Call as Call
from perfuse.serving.call import new_request_id
from perfuse.serving.guard import Guard, full_name
from perfuse.serving.identity import (
    THROUGH,
    Authenticator,
    Caller,
    Peer,
    read_metadata,
    require_custodian,
)
from perfuse.serving.metrics import Metrics
from perfuse.serving.policy import POLICY, Policy, Row
from perfuse.serving.refused import Refused
from perfuse.serving.request_stream import RequestStream
from perfuse.serving.status import REQUEST_ID, DeadlinePassed, code_of, status_of, to_grpc
from perfuse.serving.threaded import Arriving, CallerGone, OnThread
from perfuse.serving.threads import InPlace, Threads
from perfuse.serving.tracing import CallSpan
from perfuse.serving.validation import Malformed, Validator, refusal

_REQUEST_ID = re.compile(r"[!-~]{1,64}")
# Codes that are the service's fault: they are logged as errors, with what raised them.
_FAULTS = {"INTERNAL", "UNKNOWN", "DATA_LOSS"}


class Edge:
    """What the methods of one or more servicers share.

    Args:
        authenticator: Tells who calls.
        validator: Tells whether a request keeps its proto's rules; None where there are none.
        policy: Says who may call what.
        metrics: Counts calls; by default into a registry of its own.
        tracer: Makes a span of each call; None for no tracing.
        threads: Threads for synchronous code.
        backlog: Pieces of synchronous work that may wait for a thread.
        threaded: Whether each call has a thread, on which its synchronous code runs: faster, for
            servicers without streams whose methods await nothing but `Call.in_thread`.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        validator: Validator | None = None,
        *,
        policy: Policy = POLICY,
        metrics: Metrics | None = None,
        tracer: Tracer | None = None,
        threads: int = 16,
        backlog: int = 1024,
        threaded: bool = False,
    ) -> None:
        self.policy = policy
        self.metrics = metrics or Metrics()
        self.threads = InPlace() if threaded else Threads(threads, backlog)
        self.thread_count, self.backlog, self.threaded = threads, backlog, threaded
        self._authenticator = authenticator
        self._validator = validator
        self._tracer = tracer
        self._log = structlog.get_logger("perfuse.serving")
        self._methods: dict[tuple[type, str], _Method] = {}
        self.on_refusal: Callable[[Refused], None] | None = None
        """Told of each refused call that would have changed something; it runs on a thread."""
        self.calls = 0
        """How many have come, refused ones included."""
        self.draining = False
        """Whether the server is about to end: what could go on for hours should end now."""
        self.max_message_bytes: int | None = None
        """Of an answer, as the server says; None for any."""

    async def close(self) -> None:
        """Give up what waits for a thread, and wait for what runs on one."""
        await self.threads.close()

    async def answer(self, guard: Guard, servicer: Any, request: Any, context: Any) -> Any:
        """Take a call from its arrival to its status; a decorated method does no more than this."""
        self.calls += 1
        on_thread = isinstance(context, OnThread)
        began = context.arrived if on_thread else time.perf_counter()
        key = (type(servicer), guard.name)
        method = self._methods.get(key)
        if method is None:
            method = self._methods[key] = _Method(full_name(*key), self.policy, self.metrics)
        metadata = read_metadata(context.invocation_metadata())
        request_id = metadata.get(REQUEST_ID)
        if request_id is None or not _REQUEST_ID.fullmatch(request_id):
            request_id = new_request_id()
        context.set_trailing_metadata(((REQUEST_ID, request_id),))
        logs.request_id.set(request_id)
        span = CallSpan(self._tracer, method.name, metadata) if self._tracer else None
        remaining = context.time_remaining()
        deadline = None if remaining is None else time.monotonic() + remaining
        caller: Caller | None = None
        fault: BaseException | None = None
        seen: list[Message] = []
        code = "OK"
        method.in_flight.inc()
        try:
            try:
                caller = await self._authenticate(metadata, context)
                method.row.check_role(caller.roles, caller.subject)
                if _is_past(deadline):
                    raise DeadlinePassed
                through = await self._through_custodian(metadata)
                given = metadata.get("authorization", "")
                call = Call(
                    caller, request_id, deadline, self.threads, given, context.peer(), through
                )
                return await self._perform(
                    guard, method.row, servicer, request, context, call, seen
                )
            except asyncio.CancelledError as error:
                if _is_cancelled():
                    code = "DEADLINE_EXCEEDED" if _is_past(deadline) else "CANCELLED"
                    raise
                # Something that the method waited for was cancelled, and not the call. gRPC would
                # send no status for this, and the caller would wait for ever.
                fault = error
            except CallerGone as gone:
                code = "DEADLINE_EXCEEDED" if _is_past(deadline) else "CANCELLED"
                raise gone.error from None
            except Exception as error:
                fault = error
            code = code_of(fault)
            if self.on_refusal is not None and caller is not None and not method.row.reads:
                told = Refused.of(method.row, caller, seen, code, request_id, context.peer())
                # A call that is refused for want of threads must not want one more.
                with suppress(PerfuseError):
                    await self.threads.run(self.on_refusal, told)
            await context.abort_with_status(to_grpc(status_of(fault, request_id), request_id))
        finally:
            if on_thread and code == "OK" and context.is_over():
                code = "DEADLINE_EXCEEDED" if _is_past(deadline) else "CANCELLED"
            seconds = time.perf_counter() - began
            method.in_flight.dec()
            method.observe(code, seconds)
            if span is not None:
                span.end(code, grpc.StatusCode[code].value[0])
            fields: dict[str, Any] = {
                "method": method.name,
                "tenant": caller.tenant if caller else None,
                "code": code,
                "ms": round(seconds * 1000, 3),
                "request_id": request_id,
            }
            if isinstance(fault, PerfuseError):
                fields["reason"] = fault.reason
            if isinstance(fault, QuotaExceeded):
                self.metrics.quota_refusals.labels(fault.quota).inc()
            if code in _FAULTS:
                self._log.error("rpc", **fields, exc_info=fault)
            else:
                self._log.info("rpc", **fields)

    async def _authenticate(self, metadata: Mapping[str, str], peer: Peer | None) -> Caller:
        try:
            return await self._authenticator.authenticate(metadata, peer)
        except (Unauthenticated, Unavailable):
            raise
        except Exception as error:
            self._log.error("authenticator_fault", exc_info=error)
            raise Unavailable("credentials cannot be checked at this moment; call again") from None

    async def _through_custodian(self, metadata: Mapping[str, str]) -> bool:
        """Whether a custodian asks; that it is who it says it is not the caller's to vouch for."""
        credential = metadata.get(THROUGH)
        if credential is None:
            return False
        require_custodian(await self._authenticate({"authorization": credential}, None))
        return True

    async def _perform(
        self,
        guard: Guard,
        row: Row,
        servicer: Any,
        request: Any,
        context: Any,
        call: Call,
        seen: list[Message],
    ) -> Message | None:
        def check(message: Message | Malformed) -> None:
            if not seen and isinstance(message, Message):
                seen.append(message)
            self._check(message)
            row.check_names(call.caller.tenant, message)

        if isinstance(request, Arriving):
            request = request.read()
        if isinstance(request, (Message, Malformed)):
            check(request)
        else:
            request = RequestStream(context, check)
        if guard.gives_stream:
            # Closed here and not by the garbage collector: a stream's end frees what it holds.
            async with aclosing(guard.method(servicer, request, call)) as responses:
                async for response in responses:
                    try:
                        await context.write(response)
                    except grpc.aio.BaseError as error:
                        raise CallerGone(error) from error
            return None
        response = await guard.method(servicer, request, call)
        if not isinstance(response, Message):
            raise TypeError(f"{guard.name} returned a {type(response).__name__}, not a message")
        size = response.ByteSize()
        if self.max_message_bytes is not None and size > self.max_message_bytes:
            # gRPC would say so in its own words, without an ErrorInfo.
            raise ResourceExhausted(
                f"the answer has {size} bytes, and at most {self.max_message_bytes} are sent. Ask "
                "for fewer things at once"
            )
        return response

    def _check(self, request: Message | Malformed) -> None:
        if isinstance(request, Malformed):
            raise InvalidArgument(
                f"the request's bytes are not a {request.kind}; compile the client from the protos "
                "of this release"
            )
        if self._validator is not None:
            violations = self._validator.validate(request)
            if violations:
                raise refusal(violations)


class _Method:
    """What is known of one method, looked up once: its row in the policy, and its measures."""

    def __init__(self, name: str, policy: Policy, metrics: Metrics) -> None:
        self.name, self.row = name, policy.row(name)
        self.in_flight = metrics.in_flight.labels(name)
        self._metrics = metrics
        self._seconds: dict[str, Histogram] = {}

    def observe(self, code: str, seconds: float) -> None:
        histogram = self._seconds.get(code)
        if histogram is None:
            histogram = self._seconds[code] = self._metrics.seconds.labels(self.name, code)
        histogram.observe(seconds)


def _is_past(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
