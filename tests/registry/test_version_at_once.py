"""A version in one statement of PostgreSQL: as in several, and once where the connection breaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, text

from perfuse.adapter import digest
from perfuse.names import ConceptName
from perfuse.storage.database import Database
from perfuse.storage.requests import Mutation
from perfuse_registry.catalog import version_at_once
from perfuse_registry.registry import Registry
from perfuse_registry.tables import AUDIT_EVENTS, CONCEPTS, LEASES, REQUESTS, VERSIONS
from registry.processes import TENANT, Place, fresh_place, furnish
from registry.samples import adapter

TOM = ConceptName(TENANT, "tom")
DATA = adapter(1, training={"note": 'a "number":0 in a text', "steps": 0})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("at-once")
    with fresh_place("postgresql+directory", folder) as place:
        with place.registry() as registry:
            furnish(registry, "tom")
        yield place


@pytest.fixture
def registry(place: Place) -> Iterator[Registry]:
    with place.registry() as registry:
        yield registry


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What became of each statement that made a version, or was to."""
    told: list[str] = []
    statement = version_at_once._AT_ONCE

    class Told:
        def first(self, connection: Connection, **values: Any) -> Any:
            told.append("failed")
            row = statement.first(connection, **values)
            told[-1] = "made" if row else "nothing"
            return row

    monkeypatch.setattr(version_at_once, "_AT_ONCE", Told())
    return told


def mutation(request_id: str | None = None) -> Mutation:
    return Mutation(TENANT, "tester", str(uuid4()) if request_id is None else request_id, "call")


def test_it_leaves_what_the_transaction_leaves(
    place: Place, registry: Registry, statements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words: dict[str, Any] = {"description": 'the "number":0', "labels": {"a": "b"}}
    ours, theirs = mutation(), mutation()
    made = [registry.versions.create(ours, TOM, DATA, digest(DATA), **words)]
    assert statements == ["made"]
    monkeypatch.setattr("perfuse_registry.catalog.versions.may_be_at_once", lambda *_: False)
    made.append(registry.versions.create(theirs, TOM, DATA, digest(DATA), **words))
    assert statements == ["made"]

    first, second = made
    assert second.number == first.number + 1
    for each, by in zip(made, (ours, theirs), strict=True):
        assert registry.versions.get(TENANT, each.name) == each
        assert registry.versions.create(by, TOM, DATA, digest(DATA), **words) == each

    def differing(table: Any, *others: str) -> list[dict[str, Any]]:
        """The newest two rows, without what differs between any two."""
        rows = [row._asdict() for row in place.rows(table)[-2:]]
        return [{key: row[key] for key in row if key not in others} for row in rows]

    one, other = differing(VERSIONS, "id", "uid", "number", "create_time", "update_time")
    assert one == other
    events = differing(AUDIT_EVENTS, "id", "event_time", "request_id")
    assert [event.pop("resource") for event in events] == [str(each.name) for each in made]
    assert events[0] == events[1]
    answers = {row.request_id: row for row in place.rows(REQUESTS)}
    kept = [answers[by.request_id].answer for by in (ours, theirs)]
    times = ("create_time", "update_time")
    for answer, each in zip(kept, made, strict=True):
        assert f'"number":{each.number},' in answer
        assert f'"uid":"{each.uid}"' in answer
        assert all(f'"{time}":"' in answer for time in times)
    (concept,) = place.rows(CONCEPTS)
    assert (concept.latest_number, concept.next_number) == (second.number, second.number + 1)
    assert place.rows(LEASES) == []


@pytest.mark.parametrize("is_done", [True, False], ids=["after", "before"])
def test_a_connection_that_breaks_leaves_one_version(
    place: Place, registry: Registry, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    """After it was done, or before."""
    statement = version_at_once._AT_ONCE

    class Broken:
        def first(self, connection: Connection, **values: Any) -> Any:
            if is_done:
                statement.first(connection, **values)
            driver: Any = connection.connection.dbapi_connection
            terminate(place, driver.info.backend_pid)
            return statement.first(connection, **values)

    before = len(place.rows(VERSIONS))
    monkeypatch.setattr(version_at_once, "_AT_ONCE", Broken())
    by = mutation()
    made = registry.versions.create(by, TOM, DATA, digest(DATA))
    assert len(place.rows(VERSIONS)) == before + 1
    assert registry.versions.get(TENANT, made.name) == made
    assert registry.versions.create(by, TOM, DATA, digest(DATA)) == made
    assert [row.resource for row in place.rows(AUDIT_EVENTS)].count(str(made.name)) == 1


def test_without_a_request_id_it_is_a_transaction(
    registry: Registry, statements: list[str]
) -> None:
    registry.versions.create(mutation(""), TOM, DATA, digest(DATA))
    assert statements == []


def terminate(place: Place, pid: int) -> None:
    """End one connection, from the server's side."""
    database = Database(place.url)
    ended = text("SELECT pg_terminate_backend(:pid, 5000)")
    assert database.read(lambda connection: connection.execute(ended, {"pid": pid}).scalar())
    database.close()
