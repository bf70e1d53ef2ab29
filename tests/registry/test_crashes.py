"""The server killed at every fail point, and a fault raised at every one: what was promised holds.

Afterwards there is no version without its bytes, no number twice, no alias to a missing version;
what was asked for was done wholly or not at all; the same call again does it once and answers the
same twice; and two collections leave the bytes of versions, all of them and no others.
"""

from __future__ import annotations

import ast
import itertools
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import grpc
import pytest
from sqlalchemy import select, update

import perfuse.storage
import perfuse_registry
from perfuse.adapter import digest
from perfuse.names import ConceptName
from perfuse.storage.database import Database
from perfuse.storage.requests import Mutation
from perfuse.v1 import erasure_pb2
from perfuse.v1 import registry_pb2 as wire
from perfuse_registry.catalog.attachments import NewAttachments, NewPreview
from perfuse_registry.catalog.resources import Version
from perfuse_registry.failpoints import NAMES, Reached, arm, reach
from perfuse_registry.registry import Registry
from perfuse_registry.tables import BLOBS, LEASES, PREVIEWS, VERSIONS
from registry.processes import (
    PAIRS,
    TENANT,
    Place,
    ServerProcess,
    fresh_place,
    furnish,
    migrate,
    start,
)
from registry.samples import adapter, curve, picture, previews, upload

LEASE_SECONDS = 0.25
REFERRING = (VERSIONS, PREVIEWS)
ME = Mutation(TENANT, "tester")
TOM, TIM = (ConceptName(TENANT, concept) for concept in ("tom", "tim"))
NEW = adapter(9)
# Of tom's second version and of what is made anew; of tom's third; of tom's third alone.
PICTURES = (picture(1), picture(2), picture(3))
ABANDONED, FORSAKEN, STRANGE = (adapter(seed) for seed in (20, 21, 22))

Call = Callable[[Any], Any]
"""The call to be made, given a stub; the same each time, `request_id` included."""


@dataclass(frozen=True)
class Operation:
    """What is asked for on the way to some fail points.

    Attributes:
        prefixes: Of the points' names.
        prepare: Makes ready in the Registry what the call needs, and returns the call.
    """

    prefixes: tuple[str, ...]
    prepare: Callable[[Registry, Place], Call]

    @property
    def points(self) -> list[str]:
        """The fail points that the call comes by, on any store."""
        return [name for name in NAMES if name.startswith(self.prefixes)]


def repeatable(method: str, request: Any) -> Call:
    """The call with a `request_id` of its own."""
    request.request_id = str(uuid4())
    return lambda stub: getattr(stub, method)(request)


def creation(registry: Registry, place: Place) -> Call:
    new = previews(PICTURES[0], PICTURES[1], picture(4), caption="new")
    return repeatable("CreateVersion", upload(str(TOM), NEW, previews=new, curve=curve(0.5, 0.75)))


def alias_creation(registry: Registry, place: Place) -> Call:
    request = wire.CreateAliasRequest(parent=str(TOM), alias_id="next")
    request.alias.version = str(TOM.version(2))
    return repeatable("CreateAlias", request)


def alias_move(registry: Registry, place: Place) -> Call:
    prod = registry.aliases.get(TENANT, TOM.alias("prod"))
    request = wire.UpdateAliasRequest()
    request.alias.name, request.alias.etag = str(prod.name), prod.etag
    request.alias.version = str(TOM.version(2))
    return repeatable("UpdateAlias", request)


def alias_deletion(registry: Registry, place: Place) -> Call:
    return repeatable("DeleteAlias", wire.DeleteAliasRequest(name=str(TOM.alias("prod"))))


def version_deletion(registry: Registry, place: Place) -> Call:
    return repeatable("DeleteVersion", wire.DeleteVersionRequest(name=str(TOM.version(3))))


def concept_deletion(registry: Registry, place: Place) -> Call:
    return repeatable("DeleteConcept", wire.DeleteConceptRequest(name=str(TOM), force=True))


def concept_undeletion(registry: Registry, place: Place) -> Call:
    registry.concepts.delete(ME, TIM, "", force=True)
    return repeatable("UndeleteConcept", wire.UndeleteConceptRequest(name=str(TIM)))


def concept_erasure(registry: Registry, place: Place) -> Call:
    etag = registry.concepts.get(TENANT, TOM).etag
    request = erasure_pb2.EraseConceptRequest(name=str(TOM), etag=etag)
    return repeatable("EraseConcept", request)


def collection(registry: Registry, place: Place) -> Call:
    """There is something to do for every step of a collection."""
    for data in (ABANDONED, FORSAKEN):
        made = version(registry, TOM, data, picture(5))
        registry.versions.delete(ME, made.name, "")
        if data is ABANDONED:
            registry.garbage.collect()
    with place.registry(concept_retention=timedelta(0)) as forgetful:
        forgetful.concepts.delete(ME, TIM, "", force=True)
    database = Database(place.url)
    # Condemned though a version refers to it, as when a version came while it was condemned.
    kept = update(BLOBS).where(BLOBS.c.digest == digest(adapter(1)))
    database.transact(
        lambda connection: connection.execute(
            kept.values(condemn_time=select(BLOBS.c.touch_time).limit(1).scalar_subquery())
        )
    )
    database.close()
    place.store().put(TENANT, digest(STRANGE), STRANGE)
    return lambda stub: stub.CollectGarbage(wire.CollectGarbageRequest())


OPERATIONS = {
    "create": Operation(("version.", "lease.", "blob.", "preview."), creation),
    "alias-create": Operation(("alias_create.",), alias_creation),
    "alias-move": Operation(("alias_move.",), alias_move),
    "alias-delete": Operation(("alias_delete.",), alias_deletion),
    "version-delete": Operation(("version_delete.",), version_deletion),
    "concept-delete": Operation(("concept_delete.",), concept_deletion),
    "concept-undelete": Operation(("concept_undelete.",), concept_undeletion),
    "erase": Operation(("erasure.", "erasure_bytes."), concept_erasure),
    "collect": Operation(("garbage.",), collection),
}


# What takes SQLite several statements takes PostgreSQL one, and a bucket takes bytes in one step.
BETWEEN_STATEMENTS = {"lease.uncommitted", "version.numbered"}


# Of a collection: no death at one point keeps the next run from the others of its step.
STEPS = (
    ("garbage.purge_uncommitted", "garbage.purge_committed"),
    ("garbage.locked", "garbage.removed", "garbage.uncommitted"),
    ("garbage.condemn_uncommitted", "garbage.condemned"),
    ("garbage.forgotten", "garbage.adopted", "garbage.swept"),
)


def is_of(pair: str, point: str) -> bool:
    """Whether the call comes by the point there."""
    if pair.startswith("postgresql") and point in BETWEEN_STATEMENTS:
        return False
    return not (point.startswith("blob.put.") and pair.endswith("s3"))


def is_behind(point: str) -> bool:
    """Whether it lies behind the commit of what was asked for."""
    return point.endswith(".committed") or point.startswith("erasure_bytes.")


CASES = [
    pytest.param(pair, point, id=f"{pair}-{point}")
    for pair in PAIRS
    for point in NAMES
    if is_of(pair, point)
]


def armed(points: list[str], action: str) -> str:
    # A store's self test puts twice before anybody can call.
    return ",".join(
        f"{point}={action}" + ("@3" if point.startswith("blob.put.") else "") for point in points
    )


def version(registry: Registry, concept: ConceptName, data: bytes, *pictures: bytes) -> Version:
    """A new version with these previews."""
    brought = tuple(NewPreview(each, digest(each), 100, "kept") for each in pictures)
    return registry.versions.create(
        ME, concept, data, digest(data), attached=NewAttachments(brought)
    )


def furnish_database(url: str) -> None:
    """tom has versions 1 to 3, of which prod was moved to 1; tim has the bytes of tom's first."""
    migrate(url)
    with (
        TemporaryDirectory() as elsewhere,
        Place(url, {"PERFUSE_REGISTRY_BLOB_DIRECTORY": elsewhere}).registry() as registry,
    ):
        furnish(registry, "tom", "tim")
        version(registry, TOM, adapter(1))
        version(registry, TOM, adapter(2), PICTURES[0])
        version(registry, TOM, adapter(3), *PICTURES[1:])
        version(registry, TIM, adapter(1))
        prod = registry.aliases.create(ME, TOM.alias("prod"), TOM.version(3))
        registry.aliases.move(ME, prod.name, TOM.version(1), prod.etag)


@contextmanager
def furnished(pair: str, folder: Path) -> Iterator[tuple[Place, Registry]]:
    """A place with what `furnish_database` says, and its bytes."""
    with fresh_place(pair, folder, furnish_database) as place:
        store = place.store()
        for data in (*map(adapter, (1, 2, 3)), *PICTURES):
            store.put(TENANT, digest(data), data)
        with place.registry(store=store, concept_retention=timedelta(days=1)) as registry:
            yield place, registry


def serve(place: Place, failpoints: str = "", *, command: bool = False) -> ServerProcess:
    return start(
        place,
        failpoints=failpoints,
        command=command,
        garbage_grace_hours=0,
        lease_minutes=LEASE_SECONDS / 60,
    )


def seen(stub: Any) -> dict[str, Any]:
    """All that callers see, by name; it keeps the promises that hold at any moment."""
    found: dict[str, Any] = {}
    listed = stub.ListConcepts(
        wire.ListConceptsRequest(parent=f"tenants/{TENANT}", show_deleted=True)
    )
    for concept in listed.concepts:
        found[concept.name] = concept
        if concept.HasField("delete_time"):
            continue
        versions = stub.ListVersions(
            wire.ListVersionsRequest(parent=concept.name, page_size=1000)
        ).versions
        names = [version.name for version in versions]
        assert len(set(names)) == len(names)
        assert concept.latest_version == names[0]
        for version in versions:
            whole = found[version.name] = stub.GetVersion(wire.GetVersionRequest(name=version.name))
            kept = sum(each.size_bytes for each in whole.previews)
            assert whole.attachment_bytes >= kept
            assert (whole.attachment_bytes > kept) == bool(whole.curve)
            for each in whole.previews:
                asked = wire.DownloadPreviewRequest(name=version.name, digest=each.digest)
                assert digest(stub.DownloadPreview(asked).picture) == each.digest
            answer = stub.DownloadAdapter(wire.DownloadAdapterRequest(name=version.name))
            assert digest(answer.adapter) == version.digest
        for alias in stub.ListAliases(wire.ListAliasesRequest(parent=concept.name)).aliases:
            found[alias.name] = alias
            assert alias.version in names
        for alias_id in ("prod", "next"):
            name = f"{concept.name}/aliases/{alias_id}"
            moves = found[f"{name}/moves"] = moves_of(stub, name)
            # Each began where the one before had ended, and the last one is what the alias says.
            ends = ["", *(move.to_version for move in moves)]
            assert [move.from_version for move in moves] == ends[:-1]
            assert ends[-1] == (found[name].version if name in found else "")
    return found


def moves_of(stub: Any, name: str) -> list[wire.AliasMove]:
    """An alias's history, oldest first; empty where it never was."""
    try:
        moves = stub.ListAliasMoves(wire.ListAliasMovesRequest(parent=name)).moves
    except grpc.RpcError as error:
        if code_of(error) != "NOT_FOUND":
            raise
        return []
    return list(reversed(moves))


def settle(place: Place, stub: Any, since: float) -> None:
    """Two collections, once every lease is over, leave what versions refer to and nothing else."""
    time.sleep(max(0.0, since + LEASE_SECONDS + 0.05 - time.monotonic()))
    for _ in range(2):
        stub.CollectGarbage(wire.CollectGarbageRequest())
    kept = {(row.tenant, row.digest) for table in REFERRING for row in place.rows(table)}
    known = {(row.tenant, row.digest) for row in place.rows(BLOBS)}
    store = place.store()
    assert {(blob.tenant, blob.digest) for blob in store.listing()} == kept
    assert [entry for entry in store.strays() if entry.plain] == []
    assert known == kept
    assert place.rows(LEASES) == []
    report = stub.VerifyIntegrity(wire.VerifyIntegrityRequest())
    assert (report.checked_count, report.damaged_count) == (len(kept), 0)
    assert report.unreferenced_count == 0


def code_of(error: BaseException) -> str:
    return str(error.code().name) if isinstance(error, grpc.RpcError) else type(error).__name__


class TestKilled:
    @pytest.mark.parametrize(("pair", "point"), CASES)
    def test_it_was_done_wholly_or_not_at_all_and_is_done_once_when_repeated(
        self, outcomes: dict[tuple[str, str], Future[None]], pair: str, point: str
    ) -> None:
        outcomes[pair, point].result()

    def test_the_command_itself_dies_and_starts_again(self, tmp_path: Path) -> None:
        kill_and_repeat(PAIRS[0], ["version.uncommitted"], tmp_path, command=True)


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, str], Future[None]]]:
    """Every chosen case by pair and point, two at a time: much of a case is waiting."""
    chosen = [
        (str(item.callspec.params["pair"]), str(item.callspec.params["point"]))
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.cls is TestKilled
        and hasattr(item, "callspec")
    ]
    chains = chained(chosen)
    for pair in {pair for pair, _ in chosen}:
        with furnished(pair, tmp_path_factory.mktemp("first")):
            pass  # What all of a kind share is made by one thread.
    with ThreadPoolExecutor(2) as pool:
        done = [
            pool.submit(kill_and_repeat, pair, points, tmp_path_factory.mktemp(pair))
            for pair, points in chains
        ]
        yield {
            (pair, point): future
            for (pair, points), future in zip(chains, done, strict=True)
            for point in points
        }
        pool.shutdown(cancel_futures=True)


def chained(chosen: list[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """The points that one place serves: an operation's before its commit, each other by itself.

    Of a collection, which on its way does for good what it comes by, those of one step. The longest
    come first, so that none is left running alone.
    """
    chains: dict[tuple[str, str], list[str]] = {}
    for pair, point in chosen:
        (name,) = (name for name, operation in OPERATIONS.items() if point in operation.points)
        if is_behind(point):
            name = point
        elif name == "collect":
            name = next((points[0] for points in STEPS if point in points), point)
        chains.setdefault((pair, name), []).append(point)
    return sorted(
        ((pair, points) for (pair, _), points in chains.items()),
        key=lambda chain: len(chain[1]),
        reverse=True,
    )


def kill_and_repeat(pair: str, points: list[str], folder: Path, *, command: bool = False) -> None:
    """Kill a call at each of these points of one operation in turn, each time on a new server, and
    then let it be. What all the dead left is gone in the end."""
    with furnished(pair, folder) as (place, registry):
        (operation,) = (each for each in OPERATIONS.values() if points[0] in each.points)
        call = operation.prepare(registry, place)
        states = []
        for point in points:
            doomed = serve(place, armed([point], "kill"), command=command)
            stub = doomed.stub()
            states.append(seen(stub))
            with pytest.raises(grpc.RpcError) as caught:
                call(stub)
            killed = time.monotonic()
            assert code_of(caught.value) == "UNAVAILABLE", point
            assert doomed.wait() == -signal.SIGKILL, point

        server = serve(place, command=command)
        try:
            stub = server.stub()
            states.append(seen(stub))
            first, second = call(stub), call(stub)
            settle(place, stub, killed)
            before, after = states[0], seen(stub)
            if isinstance(first, wire.CollectGarbageResponse):
                assert all(state in (before, after) for state in states)
            else:
                assert first == second
                left = [after if is_behind(point) else before for point in points]
                assert states == [before, *left]
            assert after != before
        finally:
            server.kill()


class TestKilledUnderLoad:
    @pytest.mark.parametrize("pair", PAIRS)
    def test_every_call_that_is_repeated_until_it_is_answered_is_done_once(
        self, pair: str, tmp_path: Path
    ) -> None:
        writers, each, kills = 5, 10, 4
        with fresh_place(pair, tmp_path) as place:
            with place.registry() as registry:
                furnish(registry, "tom")
            running = [serve(place)]
            unanswered = 0

            def write(writer: int) -> list[int]:
                nonlocal unanswered
                server = running[-1]
                numbers: list[int] = []
                stub = server.stub()
                for turn in range(each):
                    # Half of the bytes are other writers' too.
                    data = adapter(turn if turn % 2 else 1000 * writer + turn)
                    request = upload(str(TOM), data, request_id=str(uuid4()))
                    while len(numbers) == turn:
                        if server is not running[-1]:
                            server = running[-1]
                            stub = server.stub()
                        try:
                            name = stub.CreateVersion(request).name
                        except (grpc.RpcError, ValueError) as error:
                            # A ValueError is what gRPC has for a channel that was closed meanwhile.
                            if code_of(error) not in {"UNAVAILABLE", "CANCELLED", "ValueError"}:
                                raise
                            unanswered += 1
                            time.sleep(0.02)
                        else:
                            numbers.append(int(name.rpartition("/")[2]))
                return numbers

            with ThreadPoolExecutor(writers) as pool:
                writing = [pool.submit(write, writer) for writer in range(writers)]
                for turn in range(kills):
                    time.sleep(0.1 + 0.07 * turn)
                    running[-1].kill()
                    running.append(serve(place))
                numbers = [number for written in writing for number in written.result()]
            killed = time.monotonic()
            assert sorted(numbers) == list(range(1, writers * each + 1))
            assert unanswered >= kills
            try:
                stub = running[-1].stub()
                found = seen(stub)
                versions = [version for name, version in found.items() if "/versions/" in name]
                assert len(versions) == len(numbers)
                settle(place, stub, killed)
            finally:
                running[-1].kill()


class TestRaised:
    @pytest.mark.parametrize("pair", PAIRS)
    @pytest.mark.parametrize("name", OPERATIONS)
    def test_the_call_fails_without_a_word_about_it_and_the_next_ones_go_on(
        self, tmp_path: Path, pair: str, name: str
    ) -> None:
        """All points of an operation are armed at once; each call stumbles over the next one."""
        points = [point for point in OPERATIONS[name].points if is_of(pair, point)]
        with furnished(pair, tmp_path) as (place, registry):
            call = OPERATIONS[name].prepare(registry, place)
            server = serve(place, armed(points, "raise"))
            try:
                stub = server.stub()
                before = seen(stub)
                states = []
                for _ in points:
                    with pytest.raises(grpc.RpcError) as caught:
                        call(stub)
                    assert code_of(caught.value) == "INTERNAL"
                    told = str(caught.value) + repr(caught.value.trailing_metadata())
                    assert "Reached" not in told
                    assert not any(point in told for point in points)
                    states.append(seen(stub))
                first, second = call(stub), call(stub)
                settle(place, stub, time.monotonic())
                after = seen(stub)
            finally:
                server.kill()
        assert all(state in (before, after) for state in states)
        assert after != before
        if name != "collect":
            assert first == second
            assert states == [after if is_behind(point) else before for point in points]


class TestTheList:
    def test_every_point_is_in_the_code_and_every_point_of_the_code_is_listed(self) -> None:
        reached = []
        folders = [Path(each.__file__).parent for each in (perfuse_registry, perfuse.storage)]
        for path in itertools.chain.from_iterable(each.rglob("*.py") for each in folders):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                if name in {"reach", "_reach"}:
                    (argument,) = node.args
                    assert isinstance(argument, ast.Constant), f"{path}:{node.lineno}"
                    reached.append(str(argument.value))
        assert sorted(reached) == sorted(NAMES)

    def test_every_point_belongs_to_one_operation(self) -> None:
        points = [point for operation in OPERATIONS.values() for point in operation.points]
        assert sorted(points) == sorted(NAMES)

    def test_a_point_acts_once_at_its_turn(self) -> None:
        arm("version.stored=raise@2,version.leased=raise")
        try:
            reach("version.stored")
            for point in ("version.stored", "version.leased"):
                with pytest.raises(Reached, match=point):
                    reach(point)
                reach(point)
            reach("version.judged")
        finally:
            arm("")
        reach("version.leased")

    @pytest.mark.parametrize(
        "entry",
        ["version.stored", "version.stored=", "version.stored=die", "version.stored=kill@0",
         "version.stord=kill", "version.stored=kill;version.leased=kill", "=kill"],
    )  # fmt: skip
    def test_what_is_no_entry_is_refused(self, entry: str) -> None:
        with pytest.raises(ValueError, match="PERFUSE_REGISTRY_FAILPOINTS"):
            arm(entry)
        reach("version.stored")
