"""A mutation repeated while its first call is under way is answered like the first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from perfuse.v1 import registry_pb2 as wire
from registry.served import Tenant


def at_once(count: int, call: Callable[[], Any]) -> list[Any]:
    """What so many calls at once give, their exceptions included."""
    barrier, found = threading.Barrier(count), []

    def one() -> None:
        barrier.wait()
        try:
            found.append(call())
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("round_number", range(5))
def test_twins_of_a_creation_and_of_a_deletion_are_answered_alike(
    acme: Tenant, round_number: int
) -> None:
    create = wire.CreateConceptRequest(
        parent=acme.name,
        concept_id="tom",
        concept=wire.Concept(super_category="cat"),
        request_id=str(uuid4()),
    )
    made = at_once(6, lambda: acme.call.CreateConcept(create))
    assert {str(each) for each in made} == {str(made[0])}, made
    acme.version(0)
    number = f"{acme.name}/concepts/tom/versions/1"
    delete = wire.DeleteVersionRequest(name=number, request_id=str(uuid4()))
    gone = at_once(6, lambda: acme.call.DeleteVersion(delete))
    assert {str(each) for each in gone} == {""}, gone
