"""The probe: a service with a method of each shape, compiled from `probe.proto` on import."""

from __future__ import annotations

import asyncio
import importlib
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from grpc_tools import protoc

from perfuse.serving import Call, Edge, rpc
from perfuse.serving.policy import Policy, Row
from perfuse.serving.testing import IssuedTokens

_HERE = Path(__file__).parent


def _compiled() -> tuple[Any, Any]:
    with tempfile.TemporaryDirectory() as folder:
        flags = (f"-I{_HERE}", f"--python_out={folder}", f"--grpc_python_out={folder}")
        assert protoc.main(["protoc", *flags, str(_HERE / "probe.proto")]) == 0
        sys.path.insert(0, folder)
        try:
            return importlib.import_module("probe_pb2"), importlib.import_module("probe_pb2_grpc")
        finally:
            sys.path.remove(folder)


probe_pb2, probe_pb2_grpc = _compiled()
SERVICE = probe_pb2.DESCRIPTOR.services_by_name["ProbeService"]
Question, Answer = probe_pb2.Question, probe_pb2.Answer
Stub = probe_pb2_grpc.ProbeServiceStub
add = probe_pb2_grpc.add_ProbeServiceServicer_to_server
POLICY = Policy(
    {
        SERVICE.full_name: (
            Row("Ask", "reader", own=("name", "names"), delegate=True),
            Row("Publish", "publisher", within=("name",)),
            Row("Operate", "operator"),
            Row("Watch", "reader"),
            Row("Upload", "publisher", own=("name",)),
            Row("Talk", "reader"),
        )
    }
)


class NoBadText:
    """A validator with two rules, enough to be seen at work."""

    def validate(self, message: Any) -> Sequence[tuple[str, str]]:
        found = []
        if "bad" in message.text:
            found.append(("text", "must not be bad"))
        if message.count < 0:
            found.append(("count", "must be at least 0"))
        return found


class Probe(probe_pb2_grpc.ProbeServiceServicer):
    """Answers by the function it was given for a question's text, and keeps what it saw."""

    def __init__(self, edge: Edge, **answers: Callable[[], Any]) -> None:
        self.edge = edge
        self.answers = answers
        self.calls: list[Call] = []
        self.seen: list[Any] = []
        self.ended = asyncio.Event()

    async def _answer(self, question: Any, call: Call) -> Any:
        self.calls.append(call)
        self.seen.append(question)
        answer = self.answers.get(question.text)
        if answer is None:
            return Answer(text=call.caller.tenant, count=question.count)
        result = answer()
        return await result if asyncio.iscoroutine(result) else result

    @rpc
    async def Ask(self, request: Any, call: Call) -> Any:
        return await self._answer(request, call)

    @rpc
    async def Publish(self, request: Any, call: Call) -> Any:
        return await self._answer(request, call)

    @rpc
    async def Operate(self, request: Any, call: Call) -> Any:
        return await self._answer(request, call)

    @rpc
    async def Watch(self, request: Any, call: Call) -> AsyncIterator[Any]:
        try:
            for number in range(request.count):
                yield Answer(count=number)
                await asyncio.sleep(0)
            await self._answer(request, call)
        finally:
            self.ended.set()

    @rpc
    async def Upload(self, requests: AsyncIterator[Any], call: Call) -> Any:
        total = 0
        async for question in requests:
            await self._answer(question, call)
            total += question.count
        self.ended.set()
        return Answer(count=total)

    @rpc
    async def Talk(self, requests: AsyncIterator[Any], call: Call) -> AsyncIterator[Any]:
        async for question in requests:
            yield await self._answer(question, call)


def probe(**answers: Callable[[], Any]) -> tuple[IssuedTokens, Edge, Probe]:
    tokens = IssuedTokens()
    edge = Edge(tokens, NoBadText(), policy=POLICY)
    return tokens, edge, Probe(edge, **answers)
