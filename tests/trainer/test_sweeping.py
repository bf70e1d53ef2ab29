"""Sweeping: what expired and what nobody names goes; what anybody names stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import insert

from perfuse.errors import DeadlineExceeded, InvalidArgument
from perfuse.names import ImageSetName
from perfuse.storage.blobs import INCOMING
from perfuse.storage.moments import now
from perfuse.storage.mutation import Mutation
from perfuse.v1 import trainer_pb2 as wire
from perfuse_trainer import sweeping
from perfuse_trainer.resources import ENDED, EventKind, RunState
from perfuse_trainer.sets.uploads import Uploads
from perfuse_trainer.sweeping import Sweeper, Swept
from perfuse_trainer.tables import EVENTS, IMAGE_SETS, IMAGES, REQUESTS, RUNS
from trainer.served import (
    Installation,
    Tenant,
    at_once,
    eventually,
    refused,
    trainer_installation,
)
from trainer.test_images import saved, scene
from trainer.test_uploads import opened, sent

PICTURE = saved(scene(), "PNG")
AT_ONCE = timedelta(0)


@pytest.fixture
def alone(backend: str, tmp_path: Path) -> Iterator[Installation]:
    """An installation that nobody else keeps anything in."""
    with trainer_installation(backend, tmp_path) as found:
        yield found


@pytest.fixture
def acme(alone: Installation) -> Tenant:
    return alone.tenant()


def sweeper(installation: Installation, **options: Any) -> Sweeper:
    """One that waits for nothing."""
    defaults = {"grace": AT_ONCE, "upload_limit": AT_ONCE}
    return Sweeper(installation.database, installation.vault, **(defaults | options))


def filled(tenant: Tenant, **fields: Any) -> wire.ImageSet:
    made = tenant.image_set(**fields)
    return tenant.upload(made.name, ("a.png", PICTURE, PICTURE), ("b.png", PICTURE))


def grow_older(installation: Installation) -> None:
    """Let every file be older than no time at all."""
    # S3 tells moments in whole seconds.
    time.sleep(1.1 if installation.backend.endswith("s3") else 0.05)


def stay(tenant: Tenant, *sets: wire.ImageSet) -> None:
    """These sets are as they were, with all their files, and there are no others."""
    for one in sets:
        assert tenant.get(one.name) == one
    assert sorted(tenant.stored()) == tenant.named()


def test_a_sweep_of_nothing_does_nothing(alone: Installation, acme: Tenant) -> None:
    made = filled(acme)
    assert sweeper(alone).sweep() == Swept()
    stay(acme, made)


def test_what_expired_is_emptied(alone: Installation, acme: Tenant) -> None:
    gone, kept, stays = filled(acme), filled(acme, keep=True), filled(acme)
    for state in ENDED:
        acme.run(kept.name, state)
    for made in (gone, kept):
        alone.expire(made)
    before = acme.stored()
    expected = Swept(expired_sets=2)
    assert sweeper(alone).sweep(dry_run=True) == expected
    assert acme.stored() == before
    assert sweeper(alone).sweep() == expected
    for made in (gone, kept):
        after = acme.get(made.name)
        assert (after.emptied, list(after.images)) == (True, [])
        assert after.etag != made.etag
    stay(acme, stays)
    assert len(acme.stored()) == 3
    assert sweeper(alone).sweep() == Swept()
    with refused("FAILED_PRECONDITION", "IMAGE_SET_EMPTY"):
        acme.upload(gone.name, ("c.png", PICTURE))
    acme.call.DeleteImageSet(wire.DeleteImageSetRequest(name=gone.name))


def test_runs_that_use_an_expired_set_end_first(alone: Installation, acme: Tenant) -> None:
    made = filled(acme)
    runs = [acme.run(made.name, state) for state in sorted(set(RunState) - ENDED)]
    alone.expire(made)
    expired = acme.get(made.name)
    for run in runs:
        assert sweeper(alone).sweep(dry_run=True) == Swept()
        assert sweeper(alone).sweep() == Swept()
        stay(acme, expired)
        alone.change(RUNS, run, state=RunState.CANCELLED.value)
    assert sweeper(alone).sweep() == Swept(expired_sets=1)
    assert acme.stored() == []


def test_files_that_no_row_names_go_after_the_grace(alone: Installation, acme: Tenant) -> None:
    made = filled(acme)
    lost = {acme.id: [alone.vault.put(acme.id, bytes(size)) for size in (1, 2000)]}
    lost["another"] = [alone.vault.put("another", b"x")]
    patient = sweeper(alone, grace=timedelta(hours=1))
    assert patient.sweep(dry_run=True) == patient.sweep() == Swept()
    grow_older(alone)
    expected = Swept(orphans=3, orphan_bytes=2002 + 3 * 16)
    assert sweeper(alone).sweep(dry_run=True) == expected
    for tenant, digests in lost.items():
        for digest in digests:
            assert alone.vault.blobs.stat(tenant, digest) is not None
    assert sweeper(alone).sweep() == expected
    for tenant, digests in lost.items():
        for digest in digests:
            assert alone.vault.blobs.stat(tenant, digest) is None
    stay(acme, made)


def test_whatever_a_row_names_stays(alone: Installation, acme: Tenant) -> None:
    made = filled(acme)
    run = acme.run(made.name, RunState.RUNNING)
    checkpoint, adapter, preview = (alone.vault.put(acme.id, b"x") for _ in range(3))
    alone.change(RUNS, run, checkpoint_blob=checkpoint, adapter_blob=adapter)
    event = insert(EVENTS).values(
        run=run, sequence=1, event_time=now(), kind=EventKind.PREVIEW.value, body={},
        tenant=acme.id, blob=preview,
    )  # fmt: skip
    alone.database.transact(lambda connection: connection.execute(event))
    grow_older(alone)
    assert sweeper(alone).sweep() == Swept()
    assert {checkpoint, adapter, preview} < set(acme.stored())
    assert len(acme.stored()) == 6


def test_files_are_looked_up_in_batches(
    alone: Installation, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "_BATCH", 4)
    made = filled(acme)
    for number in range(13):
        alone.vault.put(acme.id, bytes(number))
    grow_older(alone)
    assert sweeper(alone).sweep().orphans == 13
    stay(acme, made)


def test_remains_of_crashed_puts_go(tmp_path: Path) -> None:
    with trainer_installation("sqlite+directory", tmp_path) as alone:
        made = filled(alone.tenant())
        assert made.images
        folder = tmp_path / "blobs" / INCOMING
        (folder / "half").write_bytes(b"half of a file")
        (tmp_path / "blobs" / "README").write_text("not ours")
        assert sweeper(alone, grace=timedelta(hours=1)).sweep() == Swept()
        assert sweeper(alone).sweep(dry_run=True) == Swept(strays=1)
        assert sweeper(alone).sweep() == Swept(strays=1)
        assert list(folder.iterdir()) == []
        assert (tmp_path / "blobs" / "README").exists()


def test_old_requests_are_forgotten(alone: Installation, acme: Tenant) -> None:
    requests = [
        wire.CreateImageSetRequest(parent=acme.name, request_id=str(uuid4())) for _ in range(2)
    ]
    first = [acme.call.CreateImageSet(request) for request in requests]
    old = REQUESTS.update().where(REQUESTS.c.request_id == requests[0].request_id)
    alone.database.transact(
        lambda connection: connection.execute(old.values(done_time=now() - timedelta(hours=49)))
    )
    assert sweeper(alone).sweep(dry_run=True) == Swept(requests=1)
    assert sweeper(alone).sweep() == Swept(requests=1)
    assert acme.call.CreateImageSet(requests[1]) == first[1]
    assert acme.call.CreateImageSet(requests[0]).name != first[0].name


def test_a_grace_that_an_upload_could_outlast_is_refused(installation: Installation) -> None:
    with pytest.raises(InvalidArgument, match="twice as long"):
        Sweeper(installation.database, installation.vault, grace=timedelta(minutes=59))
    Sweeper(installation.database, installation.vault, grace=timedelta(minutes=60))


def test_sweeps_at_once_do_each_thing_once(alone: Installation, acme: Tenant) -> None:
    stays = filled(acme)
    for _ in range(3):
        alone.expire(filled(acme))
        alone.vault.put(acme.id, b"x")
    grow_older(alone)
    done = at_once(*[partial(sweeper(alone).sweep)] * 4)
    assert all(isinstance(one, Swept) for one in done), done
    assert sum(one.expired_sets for one in done if isinstance(one, Swept)) == 3
    stay(acme, stays)
    assert len(acme.stored()) == 3


# Of both kinds the harder: its moments are whole seconds, of another's clock.
@pytest.mark.parametrize("backend", ["postgresql+s3"], indirect=True)
def test_nothing_that_an_upload_commits_is_swept(alone: Installation, acme: Tenant) -> None:
    """Sweeps without pause, uploads of any length: within the limit all is kept, beyond it none."""
    limit = timedelta(seconds=1.5)
    uploads = Uploads(alone.database, alone.vault, most_of_tenant=8, limit=limit)
    grace = timedelta(seconds=4)
    sweeps = Sweeper(alone.database, alone.vault, grace=grace, upload_limit=limit)
    over = threading.Event()

    def sweep_on() -> None:
        while not over.wait(0.02):
            sweeps.sweep()

    def images_of_an_upload(pause: float) -> int:
        upload = uploads.open(Mutation(acme.id, "t"), ImageSetName.parse(acme.image_set().name))
        try:
            upload.begin()
            upload.add("a.png", sent(PICTURE))
            time.sleep(pause)
            return len(upload.commit().images)
        except DeadlineExceeded:
            return 0
        finally:
            upload.abandon()

    sweeping_on = [threading.Thread(target=sweep_on) for _ in range(2)]
    for thread in sweeping_on:
        thread.start()
    try:
        # One that takes longer than it may comes to nothing, swept by then or not.
        pauses = (0.0, 0.5, 1.0, 1.6, 4.5)
        fates = at_once(*(partial(images_of_an_upload, pause) for pause in pauses))
        assert fates[-2:] == [0, 0]
        eventually(lambda: images_of_an_upload(0.0) == 1)
        # All that was committed grows older than the grace while sweeps go on, and is there.
        time.sleep(grace.total_seconds() + 1.2)
    finally:
        over.set()
        for thread in sweeping_on:
            thread.join()
    assert acme.named()
    assert sorted(acme.stored()) == acme.named()


def test_expiry_and_an_upload_at_once(alone: Installation, acme: Tenant) -> None:
    for _ in range(3):
        made = filled(acme)
        upload = opened(acme, made, ("c.png", PICTURE))
        alone.expire(made)
        at_once(upload.commit, sweeper(alone, grace=timedelta(hours=1)).sweep)
        after = acme.get(made.name)
        assert (after.emptied, list(after.images)) == (True, [])
        assert acme.stored() == acme.named() == []


CRASH = """
import os, signal, sys
from perfuse.names import ImageSetName
from perfuse.adapter import digest
from perfuse.storage.blobs_directory import DirectoryBlobs
from perfuse.storage.database import Database
from perfuse.storage.mutation import Mutation
from perfuse_trainer.sets.upload import SentFile
from perfuse_trainer.sets.uploads import Uploads
from perfuse_trainer.vault import MAX_BLOB_BYTES, Vault

url, folder, name, moment = sys.argv[1:]
name = ImageSetName.parse(name)
database = Database(url)
blobs = DirectoryBlobs(folder, max_bytes=MAX_BLOB_BYTES)
upload = Uploads(database, Vault(blobs)).open(Mutation(name.tenant, "t"), name)
upload.begin()
data = sys.stdin.buffer.read()
file = SentFile(data, digest(data))
upload.add("a.png", file, file)
print(upload._intake._process.pid, flush=True)
if moment == "committed":
    upload.commit()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("moment", ["stored", "committed"])
def test_a_server_killed_within_an_upload(tmp_path: Path, moment: str) -> None:
    with trainer_installation("sqlite+directory", tmp_path) as alone:
        acme = alone.tenant()
        made = filled(acme)
        arguments = [alone.storage.url, str(tmp_path / "blobs"), acme.image_set("tom").name, moment]
        dead = subprocess.run(
            [sys.executable, "-c", CRASH, *arguments], input=PICTURE, stdout=subprocess.PIPE
        )
        assert dead.returncode == -signal.SIGKILL
        decoder = int(dead.stdout)
        eventually(lambda: not is_running(decoder))
        expected = Swept() if moment == "committed" else Swept(orphans=2)
        assert len(acme.stored()) == 5
        done = sweeper(alone).sweep()
        assert (done.orphans, done.strays) == (expected.orphans, 0)
        (row,) = alone.rows(IMAGE_SETS, image_set_id="tom")
        images = 1 if moment == "committed" else 0
        assert len(alone.rows(IMAGES, image_set=row.id)) == images
        stay(acme, made)
        acme.upload(f"{acme.name}/imageSets/tom", ("a.png", PICTURE, PICTURE))
        stay(acme, made)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
