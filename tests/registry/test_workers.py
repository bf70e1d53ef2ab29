"""A Registry of several processes keeps the promises of one, while its processes are killed."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import grpc
import psutil
import pytest

from perfuse.v1 import registry_pb2 as wire
from registry.processes import PAIRS, TENANT, Place, ServerProcess, fresh_place, furnish, start
from registry.samples import adapter, upload

WORKERS = 3
WRITERS = 8
EACH = 10
TOM, TIM = (f"tenants/{TENANT}/concepts/{concept}" for concept in ("tom", "tim"))


@pytest.fixture(scope="module", params=PAIRS)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    with fresh_place(request.param, tmp_path_factory.mktemp("workers")) as found:
        with found.registry() as registry:
            furnish(registry, "tom", "tim")
        yield found


# Four processes begin with all that they import: one server for all tests of a place.
@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[ServerProcess]:
    running = start(place, command=True, workers=WORKERS)
    workers = psutil.Process(running.pid).children()
    yield running
    running.kill()
    # They drain, having no parent.
    psutil.wait_procs(workers, timeout=30)


def again(call: Any, request: Any) -> Any:
    """What a call gives in the end, whichever worker dies meanwhile."""
    while True:
        try:
            return call(request, wait_for_ready=True)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise


def test_numbers_are_consecutive_and_what_was_made_is_seen_everywhere(
    server: ServerProcess,
) -> None:
    made: list[int] = []
    half = threading.Event()

    def write(writer: int) -> list[int]:
        stub, numbers = server.stub(), []
        for count in range(EACH):
            data = adapter(seed=writer * EACH + count)
            request = upload(TOM, data, request_id=str(uuid4()))
            name = again(stub.CreateVersion, request).name
            # Over another connection, thus as often as not from another process.
            elsewhere = server.stub()
            assert again(elsewhere.GetVersion, wire.GetVersionRequest(name=name)).name == name
            latest = again(
                elsewhere.GetVersion, wire.GetVersionRequest(name=f"{TOM}/versions/latest")
            )
            assert number(latest.name) >= number(name)
            numbers.append(number(name))
            made.append(number(name))
            if len(made) > WRITERS * EACH // 2:
                half.set()
        return numbers

    with ThreadPoolExecutor(WRITERS) as pool:
        writing = [pool.submit(write, writer) for writer in range(WRITERS)]
        assert half.wait(120)
        victim = psutil.Process(server.pid).children()[0]
        os.kill(victim.pid, signal.SIGKILL)
        numbers = [each.result() for each in writing]
    # A retry of what was done already gives the number that it has.
    assert all(one == sorted(one) for one in numbers)
    assert sorted(itertools.chain.from_iterable(numbers)) == list(range(1, WRITERS * EACH + 1))


def number(name: str) -> int:
    return int(name.rpartition("/")[2])


def test_of_racing_moves_one_wins(server: ServerProcess) -> None:
    stubs = [server.stub() for _ in range(WRITERS)]
    for seed in range(2):
        again(stubs[0].CreateVersion, upload(TIM, adapter(seed=seed)))
    alias = stubs[0].CreateAlias(
        wire.CreateAliasRequest(
            parent=TIM, alias_id="prod", alias=wire.Alias(version=f"{TIM}/versions/1")
        )
    )
    for turn in range(5):
        wanted = wire.Alias(
            name=alias.name, version=f"{TIM}/versions/{2 - turn % 2}", etag=alias.etag
        )

        def move(stub: Any, wanted: wire.Alias = wanted) -> str:
            try:
                stub.UpdateAlias(wire.UpdateAliasRequest(alias=wanted))
            except grpc.RpcError as error:
                return str(error.code().name)
            return "OK"

        with ThreadPoolExecutor(WRITERS) as pool:
            codes = sorted(pool.map(move, stubs))
        assert codes == ["ABORTED"] * (WRITERS - 1) + ["OK"]
        alias = stubs[turn].GetAlias(wire.GetAliasRequest(name=alias.name))
        assert alias.version == wanted.version
