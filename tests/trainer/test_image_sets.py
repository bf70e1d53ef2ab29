"""Image sets: made, read, listed, deleted, emptied when nobody needs their images any more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from perfuse.errors import ImageSetInUse
from perfuse.names import ImageSetName
from perfuse.storage.requests import Mutation
from perfuse.v1 import trainer_pb2 as wire
from perfuse_trainer.resources import ENDED, RunState
from perfuse_trainer.sets.image_sets import release
from perfuse_trainer.tables import IMAGE_SETS, IMAGES, RUNS
from trainer.served import (
    Client,
    Installation,
    Refusal,
    Tenant,
    at_once,
    parts,
    refused,
)
from trainer.test_images import saved, scene

PICTURE = saved(scene(), "PNG")
GOING_ON = sorted(set(RunState) - ENDED)


def create(tenant: Tenant, **fields: Any) -> wire.CreateImageSetRequest:
    return wire.CreateImageSetRequest(parent=tenant.name, **fields)


def delete(name: str, **fields: Any) -> wire.DeleteImageSetRequest:
    return wire.DeleteImageSetRequest(name=name, **fields)


def key_of(tenant: Tenant, name: str) -> int:
    (row,) = tenant.installation.rows(
        IMAGE_SETS, tenant=tenant.id, image_set_id=name.rpartition("/")[2]
    )
    return int(row.id)


def seconds_kept(made: wire.ImageSet) -> float:
    return float((made.expire_time.ToDatetime() - made.create_time.ToDatetime()).total_seconds())


# Made and read.


def test_a_new_set_is_empty_and_kept_for_a_week(acme: Tenant) -> None:
    made = acme.image_set("tom")
    assert made.name == f"{acme.name}/imageSets/tom"
    assert seconds_kept(made) == timedelta(days=7).total_seconds()
    assert (made.keep, made.emptied, list(made.images)) == (False, False, [])
    assert made.create_time == made.update_time
    assert made.uid
    assert made.etag
    assert acme.get(made.name) == made


def test_it_is_made_as_asked(acme: Tenant) -> None:
    made = acme.image_set(keep=True, ttl=Duration(seconds=90))
    assert made.keep
    assert seconds_kept(made) == 90
    assert not made.HasField("ttl")


def test_ids_are_drawn(acme: Tenant) -> None:
    names = {acme.image_set().name for _ in range(5)}
    assert len(names) == 5
    for name in names:
        ImageSetName.parse(name)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"image_set_id": "Tom"}, "image_set_id"),
        ({"image_set_id": "-"}, "image_set_id"),
        ({"image_set": wire.ImageSet(ttl=Duration(seconds=59))}, "image_set.ttl"),
        ({"image_set": wire.ImageSet(ttl=Duration(seconds=31_536_001))}, "image_set.ttl"),
        ({"image_set": wire.ImageSet(ttl=Duration(seconds=-9))}, "image_set.ttl"),
        ({"request_id": "1"}, "request_id"),
    ],
)
def test_what_breaks_a_rule_is_refused(acme: Tenant, fields: dict[str, Any], field: str) -> None:
    with refused("INVALID_ARGUMENT", field=field):
        acme.call.CreateImageSet(create(acme, **fields))
    assert acme.installation.rows(IMAGE_SETS, tenant=acme.id) == []


def test_a_name_is_taken_once(acme: Tenant) -> None:
    made = acme.image_set("tom")
    with refused("ALREADY_EXISTS") as caught:
        acme.image_set("tom", keep=True)
    assert caught.value.resource == made.name
    acme.call.DeleteImageSet(delete(made.name))
    assert acme.image_set("tom").uid != made.uid


# Requests.


def test_a_repeated_creation_gives_the_first_answer(acme: Tenant) -> None:
    request = create(acme, request_id=str(uuid4()))
    first = acme.call.CreateImageSet(request)
    assert acme.call.CreateImageSet(request) == first
    request.request_id = request.request_id.upper()
    assert acme.call.CreateImageSet(request) == first
    request.image_set.keep = True
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED"):
        acme.call.CreateImageSet(request)
    assert len(acme.installation.rows(IMAGE_SETS, tenant=acme.id)) == 1


def test_a_repeated_deletion_takes_nothing_else(acme: Tenant) -> None:
    request = delete(acme.image_set("tom").name, request_id=str(uuid4()))
    acme.call.DeleteImageSet(request)
    later = acme.image_set("tom")
    acme.call.DeleteImageSet(request)
    assert acme.get(later.name) == later
    other = delete(acme.image_set("tim").name, request_id=request.request_id)
    with refused("INVALID_ARGUMENT", "REQUEST_ID_REUSED"):
        acme.call.DeleteImageSet(other)
    acme.call.DeleteImageSet(delete(later.name))
    with refused("NOT_FOUND"):
        acme.call.DeleteImageSet(delete(later.name))


def test_eight_at_once_make_one(acme: Tenant) -> None:
    """Also where a call is repeated while the first one is under way, and finds what that made."""
    for number in range(6):
        request = create(acme, image_set_id=f"tom-{number}", request_id=str(uuid4()))
        made = at_once(*[partial(acme.call.CreateImageSet, request)] * 8)
        assert made == [made[0]] * 8
        gone = delete(made[0].name, request_id=str(uuid4()))  # type: ignore[attr-defined]
        deleted = at_once(*[partial(acme.call.DeleteImageSet, gone)] * 8)
        assert deleted == [deleted[0]] * 8
    request.request_id = ""
    request.image_set_id = "tim"
    made = at_once(*[partial(acme.call.CreateImageSet, request)] * 8)
    assert sum(isinstance(one, wire.ImageSet) for one in made) == 1
    codes = {one.code for one in made if isinstance(one, Refusal)}
    assert codes <= {"ALREADY_EXISTS", "ABORTED"}


# Lists.


def list_all(tenant: Tenant, **query: Any) -> list[str]:
    names: list[str] = []
    while True:
        page = tenant.call.ListImageSets(
            wire.ListImageSetsRequest(parent=tenant.name, page_size=2, **query)
        )
        assert len(page.image_sets) <= 2
        names += [one.name.rpartition("/")[2] for one in page.image_sets]
        query["page_token"] = page.next_page_token
        if not page.next_page_token:
            return names


def test_lists_by_page_filter_and_order(acme: Tenant, rival: Tenant) -> None:
    rival.image_set("c0")
    made = [
        acme.image_set(f"c{index * 2 % 5}", ttl=Duration(seconds=100 * (1 + index % 2)))
        for index in range(5)
    ]
    ids = [one.name.rpartition("/")[2] for one in made]
    acme.upload(made[0].name, ("a.png", PICTURE))
    assert list_all(acme) == ids[::-1]
    assert list_all(acme, order_by="create_time") == ids
    assert list_all(acme, order_by="image_set_id") == sorted(ids)
    assert list_all(acme, filter='image_set_id = "c2"') == ["c2"]
    assert list_all(acme, order_by="create_time", filter="image_set_id = c*") == ids
    middle = made[2].create_time.ToJsonString()
    assert list_all(acme, filter=f"create_time > {middle}") == ids[:2:-1]
    assert list_all(acme, filter=f"expire_time < {middle}") == []
    page = acme.call.ListImageSets(wire.ListImageSetsRequest(parent=acme.name, page_size=2))
    for query in ({"filter": "image_set_id = c1"}, {"order_by": "image_set_id"}):
        with refused("INVALID_ARGUMENT", field="page_token"):
            acme.call.ListImageSets(
                wire.ListImageSetsRequest(
                    parent=acme.name, page_token=page.next_page_token, **query
                )
            )
    for field, query in (("filter", {"filter": "keep = true"}), ("order_by", {"order_by": "uid"})):
        with refused("INVALID_ARGUMENT", field=field):
            list_all(acme, **query)
    # A page shows sets and not their images.
    everything = acme.call.ListImageSets(wire.ListImageSetsRequest(parent=acme.name))
    assert [list(one.images) for one in everything.image_sets] == [[]] * 5
    assert [one.etag for one in everything.image_sets][-1] == acme.get(made[0].name).etag


# Whose.

NAMING: dict[str, Callable[[str], Any]] = {
    "CreateImageSet": lambda tenant: wire.CreateImageSetRequest(parent=tenant, image_set_id="tom"),
    "UploadImages": lambda tenant: parts(f"{tenant}/imageSets/tom", ("a.png", PICTURE)),
    "GetImageSet": lambda tenant: wire.GetImageSetRequest(name=f"{tenant}/imageSets/tom"),
    "ListImageSets": lambda tenant: wire.ListImageSetsRequest(parent=tenant),
    "DeleteImageSet": lambda tenant: wire.DeleteImageSetRequest(name=f"{tenant}/imageSets/tom"),
}
each = pytest.mark.parametrize("method", NAMING)


def told(client: Client, method: str, tenant: str) -> tuple[object, ...]:
    """All that a refusal tells, without the tenant's name."""
    try:
        getattr(client, method)(NAMING[method](tenant))
    except Refusal as refusal:
        found = (refusal.code, refusal.reason, refusal.message, str(refusal.details))
        return tuple(text.replace(tenant, "T") for text in found)
    raise AssertionError("it was answered")


@each
def test_anothers_and_missing_read_alike(acme: Tenant, rival: Tenant, method: str) -> None:
    rival.upload(rival.image_set("tom").name, ("a.png", PICTURE))
    before = rival.get(f"{rival.name}/imageSets/tom")
    missing = told(acme.call, method, "tenants/nobody-at-all")
    assert missing[0] == "NOT_FOUND"
    assert told(acme.call, method, rival.name) == missing
    assert rival.get(before.name) == before
    if method not in {"CreateImageSet", "ListImageSets"}:
        assert told(acme.call, method, acme.name) == missing


@each
def test_roles(acme: Tenant, method: str) -> None:
    acme.image_set("tom")
    nobody, reader = acme.installation.client(acme.id), acme.installation.client(acme.id, "reader")
    assert told(nobody, method, acme.name)[0] == "UNAUTHENTICATED"
    if method in {"GetImageSet", "ListImageSets"}:
        assert isinstance(getattr(reader, method)(NAMING[method](acme.name)), Message)
    else:
        assert told(reader, method, acme.name)[0] == "PERMISSION_DENIED"


# Deletion.


def test_a_deleted_set_is_gone_with_its_files(acme: Tenant) -> None:
    made, other = acme.image_set("tom"), acme.image_set("tim")
    mask = saved(scene().convert("L"), "PNG")
    acme.upload(made.name, ("a.png", PICTURE), ("b.png", PICTURE, mask))
    acme.upload(other.name, ("a.png", PICTURE))
    kept = acme.installation.rows(IMAGES, image_set=key_of(acme, other.name))
    assert len(acme.stored()) == 4
    acme.call.DeleteImageSet(delete(made.name))
    with refused("NOT_FOUND"):
        acme.get(made.name)
    assert acme.installation.rows(IMAGES, tenant=acme.id) == kept
    assert acme.stored() == [kept[0].blob]


@pytest.mark.parametrize("state", GOING_ON)
def test_a_set_in_use_is_not_deleted(acme: Tenant, state: RunState) -> None:
    made = acme.image_set("tom")
    acme.upload(made.name, ("a.png", PICTURE))
    before = acme.get(made.name)
    for ended in ENDED:
        acme.run(made.name, ended)
    run = acme.run(made.name, state)
    with refused("FAILED_PRECONDITION", "IMAGE_SET_IN_USE"):
        acme.call.DeleteImageSet(delete(made.name))
    assert acme.get(made.name) == before
    assert acme.stored() == acme.named()
    acme.installation.change(RUNS, run, state=RunState.FAILED.value)
    acme.call.DeleteImageSet(delete(made.name))
    assert acme.stored() == []
    rows = acme.installation.rows(RUNS, tenant=acme.id)
    assert [(row.image_set, row.image_set_id) for row in rows] == [(None, "tom")] * 4


# Release.


def let_go(installation: Installation, run: int, image_set: int) -> list[str]:
    """End a run as its worker does; what `release` says is left."""

    def work(connection: Any) -> list[str]:
        ended = RUNS.update().where(RUNS.c.id == run).values(state=RunState.SUCCEEDED.value)
        connection.execute(ended)
        return release(connection, image_set)

    return installation.database.transact(work)


def test_the_last_run_to_end_empties_its_set(acme: Tenant) -> None:
    made = acme.image_set()
    acme.upload(made.name, ("a.png", PICTURE, PICTURE), ("b.png", PICTURE))
    before, files, key = acme.get(made.name), acme.named(), key_of(acme, made.name)
    first, last = acme.run(made.name), acme.run(made.name)
    assert let_go(acme.installation, first, key) == []
    assert acme.get(made.name) == before
    assert sorted(let_go(acme.installation, last, key)) == files
    after = acme.get(made.name)
    assert (after.emptied, list(after.images)) == (True, [])
    assert after.etag != before.etag
    assert let_go(acme.installation, last, key) == []
    assert acme.get(made.name) == after
    with refused("FAILED_PRECONDITION", "IMAGE_SET_EMPTY"):
        acme.upload(made.name, ("c.png", PICTURE))


def test_a_set_that_is_to_be_kept_is(acme: Tenant) -> None:
    made = acme.image_set(keep=True)
    acme.upload(made.name, ("a.png", PICTURE))
    before, key = acme.get(made.name), key_of(acme, made.name)
    assert let_go(acme.installation, acme.run(made.name), key) == []
    assert acme.get(made.name) == before
    # Its time was over while it was in use: there is nothing more to keep it for.
    run = acme.run(made.name)
    acme.installation.expire(made)
    assert len(let_go(acme.installation, run, key)) == 1
    assert acme.get(made.name).emptied


def test_a_set_that_is_gone_is_let_go_of_too(acme: Tenant) -> None:
    assert let_go(acme.installation, 0, 10**12) == []


def test_of_runs_that_end_at_once_one_empties_the_set(acme: Tenant) -> None:
    for _ in range(4):
        made = acme.image_set()
        acme.upload(made.name, ("a.png", PICTURE))
        key, runs = key_of(acme, made.name), [acme.run(made.name) for _ in range(4)]
        left = at_once(*(partial(let_go, acme.installation, run, key) for run in runs))
        assert sorted(map(len, left)) == [0, 0, 0, 1], left  # type: ignore[arg-type]
        assert acme.get(made.name).emptied


def test_deletion_and_a_run_exclude_each_other(acme: Tenant) -> None:
    """Whoever creates a run holds the set's row, as an upload does; one of the two comes first."""
    installation = acme.installation

    def queue(name: ImageSetName, key: int) -> bool:
        def work(connection: Any) -> bool:
            chosen = IMAGE_SETS.select().where(IMAGE_SETS.c.id == key).with_for_update()
            if connection.execute(chosen).first() is None:
                return False
            row = {"image_set": key, "run_id": f"run-{uuid4().hex[:12]}"}
            connection.execute(RUNS.insert().values(**{**template, **row}))
            return True

        return installation.database.transact(work)

    (template,) = installation.rows(RUNS, id=acme.run(acme.image_set().name))
    template = {key: value for key, value in template._mapping.items() if key != "id"}
    for _ in range(8):
        made = acme.image_set()
        name, key = ImageSetName.parse(made.name), key_of(acme, made.name)
        queued, deleted = at_once(
            partial(queue, name, key),
            partial(installation.image_sets.delete, Mutation(acme.id, "tester"), name),
        )
        there = bool(installation.rows(IMAGE_SETS, id=key))
        assert there is queued
        assert deleted is None if not queued else isinstance(deleted, ImageSetInUse), deleted
