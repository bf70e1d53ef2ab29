"""Many clients at once, on one server and on two that share everything."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar
from uuid import uuid4

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from perfuse.names import ConceptName
from perfuse.v1 import registry_pb2 as wire
from registry.linearizability import Called, Kind, is_linearizable
from registry.processes import PAIRS, TENANT, ServerProcess, fresh_place, furnish, start
from registry.samples import adapter, upload

T = TypeVar("T")


class Refused(Exception):
    """What a call was refused with: `code` and `reason`."""

    def __init__(self, error: grpc.RpcError) -> None:
        call: Any = error
        self.code = str(call.code().name)
        status = rpc_status.from_call(call)
        info = error_details_pb2.ErrorInfo()
        assert status is not None, error
        assert status.details[0].Unpack(info)
        self.reason = str(info.reason)
        super().__init__(f"{self.code} {self.reason}: {status.message}")


class Fleet:
    """Two servers over one place.

    Attributes:
        servers: Both.
    """

    def __init__(self, servers: Sequence[ServerProcess]) -> None:
        self.servers = servers
        self._concepts = 0

    def stubs(self, count: int, servers: int = 2) -> list[Any]:
        """So many clients, each with a connection of its own, in turn to so many servers."""
        return [self.servers[turn % servers].stub() for turn in range(count)]

    def concept(self, versions: int = 0) -> ConceptName:
        """A new concept with so many versions."""
        self._concepts += 1
        name = ConceptName(TENANT, f"tom-{self._concepts}")
        (stub,) = self.stubs(1)
        request = wire.CreateConceptRequest(parent=f"tenants/{TENANT}", concept_id=name.concept)
        request.concept.super_category = "cat"
        stub.CreateConcept(request)
        for seed in range(versions):
            stub.CreateVersion(upload(str(name), adapter(seed)))
        return name


@pytest.fixture(scope="module", params=PAIRS)
def fleet(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    with fresh_place(request.param, tmp_path_factory.mktemp("place")) as place:
        with place.registry() as registry:
            furnish(registry)
        servers = [start(place) for _ in range(2)]
        try:
            yield Fleet(servers)
        finally:
            for server in servers:
                server.kill()


def at_once(works: Sequence[Callable[[], T]]) -> list[T | Refused]:
    """What each returned or was refused with, all begun together."""
    results: list[Any] = [None] * len(works)
    barrier = threading.Barrier(len(works))

    def run(turn: int) -> None:
        barrier.wait()
        try:
            results[turn] = works[turn]()
        except grpc.RpcError as error:
            results[turn] = Refused(error)
        except BaseException as error:
            results[turn] = error

    threads = [threading.Thread(target=run, args=(turn,)) for turn in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, Refused):
            raise result
    return results


def successes(results: Sequence[T | Refused]) -> list[T]:
    return [result for result in results if not isinstance(result, Refused)]


def number_of(version: wire.Version) -> int:
    return int(version.name.rpartition("/")[2])


class TestNumbers:
    @pytest.mark.parametrize(
        ("servers", "writers", "each"), [(1, 16, 50), (2, 8, 25)], ids=["one-server", "two-servers"]
    )
    def test_they_are_distinct_and_consecutive_and_nobody_fails(
        self, fleet: Fleet, servers: int, writers: int, each: int
    ) -> None:
        concept = fleet.concept()

        def write(writer: int, stub: Any) -> list[int]:
            # Some bytes are another writer's too, at about the same time.
            requests = (upload(str(concept), adapter(writer // 2 * 1000 + n)) for n in range(each))
            return [number_of(stub.CreateVersion(request)) for request in requests]

        stubs = fleet.stubs(writers, servers)
        results = at_once([partial(write, turn, stub) for turn, stub in enumerate(stubs)])
        assert [result for result in results if isinstance(result, Refused)] == []
        numbers = successes(results)
        total = writers * each
        assert sorted(number for found in numbers for number in found) == list(range(1, total + 1))
        assert all(found == sorted(found) for found in numbers)
        # They did write at once, so the test was one.
        assert any(found != list(range(found[0], found[0] + each)) for found in numbers)
        listed = stubs[0].ListVersions(
            wire.ListVersionsRequest(parent=str(concept), page_size=1000)
        )
        assert [number_of(version) for version in listed.versions] == list(range(total, 0, -1))

    def test_one_request_id_makes_one_version_and_one_answer(self, fleet: Fleet) -> None:
        concept = fleet.concept()
        stubs = fleet.stubs(8)
        for turn in range(5):
            request = upload(str(concept), adapter(turn), request_id=str(uuid4()))
            answers = at_once([partial(stub.CreateVersion, request) for stub in stubs])
            assert answers == [answers[0]] * len(stubs)
            assert number_of(successes(answers)[0]) == turn + 1


class TestAliases:
    def test_of_moves_from_one_etag_exactly_one_wins(self, fleet: Fleet) -> None:
        racers, rounds = 10, 8
        concept = fleet.concept(versions=racers)
        stubs = fleet.stubs(racers)
        alias = stubs[0].CreateAlias(creation(concept, "prod", 1))
        course = [alias.version]
        for _ in range(rounds):
            requests = [
                wire.UpdateAliasRequest(
                    alias=wire.Alias(
                        name=alias.name, version=str(concept.version(turn + 1)), etag=alias.etag
                    )
                )
                for turn in range(racers)
            ]
            results = at_once(
                [
                    partial(stub.UpdateAlias, request)
                    for stub, request in zip(stubs, requests, strict=True)
                ]
            )
            (alias,) = successes(results)
            losers = [result for result in results if isinstance(result, Refused)]
            assert {(loser.code, loser.reason) for loser in losers} == {
                ("ABORTED", "ETAG_MISMATCH")
            }
            assert stubs[1].GetAlias(wire.GetAliasRequest(name=alias.name)) == alias
            course.append(alias.version)
        moves = stubs[0].ListAliasMoves(wire.ListAliasMovesRequest(parent=alias.name)).moves
        assert [move.to_version for move in reversed(moves)] == course
        assert [move.from_version for move in reversed(moves)] == ["", *course[:-1]]

    def test_none_points_at_a_version_that_is_deleted_at_the_same_moment(
        self, fleet: Fleet
    ) -> None:
        concept = fleet.concept(versions=1)
        stubs = fleet.stubs(4)
        mover = stubs[0].CreateAlias(creation(concept, "mover", 1))
        for turn in range(12):
            version = stubs[0].CreateVersion(upload(str(concept), adapter(turn))).name
            number = int(version.rpartition("/")[2])
            move = wire.UpdateAliasRequest(alias=replaced(mover, version))
            results = at_once(
                [
                    partial(stubs[0].DeleteVersion, wire.DeleteVersionRequest(name=version)),
                    partial(stubs[1].CreateAlias, creation(concept, f"a{number}", number)),
                    partial(stubs[2].CreateAlias, creation(concept, f"b{number}", number)),
                    partial(stubs[3].UpdateAlias, move),
                ]
            )
            pointing = successes(results[1:])
            reasons = [result.reason for result in results if isinstance(result, Refused)]
            if isinstance(results[0], Refused):
                assert reasons == ["ALIAS_IN_USE"]
                assert len(pointing) == 3
            else:
                assert reasons == ["NOT_FOUND"] * 3
            for alias in stubs[0].ListAliases(wire.ListAliasesRequest(parent=str(concept))).aliases:
                found = stubs[1].GetVersion(
                    wire.GetVersionRequest(name=alias.name.replace("/aliases/", "/versions/"))
                )
                assert found.name == alias.version
            mover = stubs[0].GetAlias(wire.GetAliasRequest(name=mover.name))


def creation(concept: ConceptName, alias_id: str, number: int) -> wire.CreateAliasRequest:
    return wire.CreateAliasRequest(
        parent=str(concept),
        alias_id=alias_id,
        alias=wire.Alias(version=str(concept.version(number))),
    )


def replaced(alias: wire.Alias, version: str) -> wire.Alias:
    return wire.Alias(name=alias.name, version=version, etag=alias.etag)


KINDS: tuple[Kind, ...] = ("get", "create", "move", "delete")


class Witness:
    """A client that calls at random and writes down what it saw."""

    def __init__(self, stub: Any, concept: ConceptName, seed: int) -> None:
        self.seen: dict[str, list[Called]] = defaultdict(list)
        self._stub, self._concept = stub, concept
        self._random = random.Random(seed)
        self._etags: dict[str, str] = {}

    def call(self, alias_id: str) -> None:
        """One call about the alias, chosen at random."""
        kind = self._random.choices(KINDS, (8, 5, 9, 3))[0]
        number = self._random.randint(1, 4)
        # Mostly the etag that was seen last, which others may have made an old one.
        etag = self._etags.get(alias_id, '"none"')
        if kind == "delete" and self._random.random() < 0.5:
            etag = ""
        name = str(self._concept.alias(alias_id))
        version = str(self._concept.version(number))
        act: Callable[[], Any] = {
            "get": lambda: self._stub.GetAlias(wire.GetAliasRequest(name=name)),
            "create": lambda: self._stub.CreateAlias(creation(self._concept, alias_id, number)),
            "move": lambda: self._stub.UpdateAlias(
                wire.UpdateAliasRequest(alias=wire.Alias(name=name, version=version, etag=etag))
            ),
            "delete": lambda: self._stub.DeleteAlias(wire.DeleteAliasRequest(name=name, etag=etag)),
        }[kind]
        outcome, pointing = "OK", None
        start = time.monotonic()
        try:
            answer = act()
        except grpc.RpcError as error:
            outcome = Refused(error).reason
        end = time.monotonic()
        if outcome == "OK" and kind != "delete":
            pointing = (int(answer.version.rpartition("/")[2]), answer.etag)
            self._etags[alias_id] = answer.etag
        self.seen[alias_id].append(
            Called(kind, start, end, outcome, pointing, number, "" if kind == "create" else etag)
        )


@pytest.fixture(scope="module")
def histories(fleet: Fleet) -> dict[str, list[Called]]:
    """What six clients of two servers saw of ten aliases."""
    concept = fleet.concept(versions=4)
    witnesses = [Witness(stub, concept, seed) for seed, stub in enumerate(fleet.stubs(6))]
    aliases = [f"a{turn}" for turn in range(10)]

    def work(witness: Witness) -> None:
        # All are busy with the same alias, and then with the next.
        for alias_id in aliases:
            for _ in range(8):
                witness.call(alias_id)

    at_once([partial(work, witness) for witness in witnesses])
    return {
        alias_id: [call for witness in witnesses for call in witness.seen[alias_id]]
        for alias_id in aliases
    }


class TestLinearizability:
    def test_what_clients_saw_of_each_alias_has_an_order(
        self, histories: dict[str, list[Called]]
    ) -> None:
        for alias_id, calls in histories.items():
            assert is_linearizable(calls), (alias_id, sorted(calls, key=lambda call: call.start))

    def test_they_saw_races(self, histories: dict[str, list[Called]]) -> None:
        calls = [call for found in histories.values() for call in found]
        assert len(calls) == 480
        seen = {(call.kind, call.outcome) for call in calls}
        assert {
            ("create", "ALREADY_EXISTS"), ("move", "ETAG_MISMATCH"), ("move", "NOT_FOUND"),
            *((kind, "OK") for kind in ("get", "create", "move", "delete")),
        } <= seen  # fmt: skip
        overlaps = sum(
            earlier.end > later.start
            for found in histories.values()
            for earlier, later in pairwise(sorted(found, key=lambda call: call.start))
        )
        assert overlaps > len(calls) / 4

    def test_a_stale_answer_planted_into_them_is_found(
        self, histories: dict[str, list[Called]]
    ) -> None:
        planted = 0
        for calls in histories.values():
            gets = [call for call in calls if call.kind == "get" and call.answer is not None]
            for late in gets:
                stale = [
                    call.answer
                    for call in gets
                    if call.answer is not None and is_past(calls, call.answer[1], late.start)
                ]
                if stale:
                    rest = [call for call in calls if call is not late]
                    assert not is_linearizable([*rest, replace(late, answer=stale[-1])])
                    planted += 1
        assert planted >= 3

    def test_a_second_winner_planted_into_them_is_found(
        self, histories: dict[str, list[Called]]
    ) -> None:
        planted = 0
        for calls in histories.values():
            for call in calls:
                if call.outcome == "ETAG_MISMATCH" and is_past(calls, call.etag, call.start):
                    won = replace(call, kind="move", outcome="OK", answer=(call.number, "new"))
                    rest = [other for other in calls if other is not call]
                    assert not is_linearizable([*rest, won])
                    planted += 1
        assert planted >= 3


def is_past(calls: Sequence[Called], etag: str, moment: float) -> bool:
    """Whether the alias surely had the etag once and surely had another before the moment."""
    ends = [
        call.end
        for call in calls
        if call.kind in ("create", "move") and call.answer is not None and call.answer[1] == etag
    ]
    return any(
        call.answer is not None
        and call.answer[1] != etag
        and call.end < moment
        and any(end < call.start for end in ends)
        for call in calls
    )


def called(kind: Kind, start: float, end: float, outcome: str = "OK", **more: Any) -> Called:
    return Called(kind, start, end, outcome, **more)


class TestTheChecker:
    CREATED = called("create", 0, 1, number=1, answer=(1, "a"))
    MOVED = called("move", 2, 5, number=2, etag="a", answer=(2, "b"))
    ALSO_MOVED = called("move", 3, 4, number=3, etag="a", answer=(3, "c"))
    LOST = called("move", 3, 4, "ETAG_MISMATCH", number=3, etag="a")

    @pytest.mark.parametrize(
        "calls",
        [
            [],
            [CREATED],
            [called("get", 0, 1, "NOT_FOUND"), CREATED],
            [CREATED, MOVED, LOST],
            # While a move is under way, either is true.
            [CREATED, MOVED, called("get", 3, 4, answer=(1, "a"))],
            [CREATED, MOVED, called("get", 3, 4, answer=(2, "b"))],
            [CREATED, called("delete", 2, 3), called("create", 4, 5, number=1, answer=(1, "d"))],
            [CREATED, called("delete", 2, 5), called("delete", 3, 4, "NOT_FOUND")],
            [CREATED, called("create", 1, 2, "ALREADY_EXISTS", number=2)],
        ],
    )
    def test_it_finds_an_order(self, calls: list[Called]) -> None:
        assert is_linearizable(calls)

    @pytest.mark.parametrize(
        "calls",
        [
            # From nothing, nothing comes.
            [called("get", 0, 1, answer=(1, "a"))],
            [CREATED, called("get", 2, 3, answer=(2, "a"))],
            # A write is forgotten, or only begins to be true after its end.
            [CREATED, called("get", 2, 3, "NOT_FOUND")],
            [CREATED, MOVED, called("get", 6, 7, answer=(1, "a"))],
            # Two readers see a move in two orders.
            [CREATED, MOVED, called("get", 2.5, 3, answer=(2, "b")),
             called("get", 3.5, 4, answer=(1, "a"))],
            # Two win from one etag, or all lose.
            [CREATED, MOVED, ALSO_MOVED],
            [CREATED, LOST],
            # A move that gives no new etag, or points elsewhere.
            [CREATED, replace(MOVED, answer=(1, "a"), number=1)],
            [CREATED, replace(MOVED, answer=(3, "b"))],
            [CREATED, called("delete", 2, 3), called("get", 4, 5, answer=(1, "a"))],
            [CREATED, called("create", 2, 3, number=2, answer=(2, "b"))],
            [CREATED, called("delete", 2, 3, etag="b")],
        ],
    )  # fmt: skip
    def test_it_finds_none(self, calls: list[Called]) -> None:
        assert not is_linearizable(calls)
