"""The drill: a backup as docs/operating/recovery.md says, under writes; all destroyed; restored.

The commands for PostgreSQL are the page's own, run with the programs of the server that tests use.
Objects are copied by the S3 client, as `mc mirror` and its like copy them: listed, then read one by
one, while others come.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from registry import samples
from registry.processes import PAIRS, Place, ServerProcess, fresh_place, furnish, start
from sqlalchemy.engine import make_url
from storage.databases import fresh_database, postgres_server
from storage.stores import Bucket, fresh_bucket

from perfuse.adapter import digest
from perfuse.v1 import registry_pb2 as wire
from perfuse_registry.__main__ import main
from perfuse_registry.tables import ALIASES, VERSIONS

PAGE = Path(__file__).parents[2] / "docs" / "operating" / "recovery.md"
PARENT = "tenants/acme/concepts/"
Copied = dict[str, bytes]


def programs() -> Path:
    """Where PostgreSQL's own programs are, of the release that the tests' server has."""
    if os.environ.get("PERFUSE_TEST_POSTGRES_URL"):
        return Path(shutil.which("pg_dump") or "pg_dump").parent
    home = postgres_server().query["host"]
    options = (Path(str(home)) / "postmaster.opts").read_text(encoding="utf-8")
    return Path(options.split()[0]).parent


def command(begins: str) -> str:
    """The one command of the page that begins so."""
    (found,) = re.findall(rf"^{begins}\b.*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return str(found)


def shell(line: str, folder: Path, **variables: str) -> None:
    path = f"{programs()}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-euc", line],
        cwd=folder,
        env={**os.environ, "PATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def database_url(place: Place) -> str:
    """As an operator writes it, and libpq understands it."""
    url = make_url(place.url).set(drivername="postgresql")
    return url.render_as_string(hide_password=False)


def bucket_of(place: Place) -> Bucket:
    named = place.environment
    return Bucket(named["PERFUSE_REGISTRY_S3_ENDPOINT"], named["PERFUSE_REGISTRY_S3_BUCKET"])


class Kind:
    """How one kind of installation is backed up and restored.

    Attributes:
        rows: backs its database up into a folder.
        restored: an empty database with a backup's rows, as a URL.
    """

    def __init__(self, pair: str) -> None:
        self.pair = pair

    def rows(self, place: Place, folder: Path) -> None:
        if self.pair == "postgresql+s3":
            shell(command("pg_dump"), folder, PERFUSE_REGISTRY_DATABASE_URL=database_url(place))
            return
        # The page has it as an argument of `sqlite3`, which is not on every machine.
        (statement,) = re.findall(r'"(VACUUM INTO [^"]*)"', command("sqlite3 registry.db"))
        before = os.getcwd()
        source = sqlite3.connect(make_url(place.url).database or "")
        try:
            os.chdir(folder)
            source.execute(statement)
        finally:
            os.chdir(before)
            source.close()

    def bytes(self, place: Place) -> Copied:
        if self.pair == "postgresql+s3":
            bucket = bucket_of(place)
            client = bucket.client()
            copied = {}
            for item in client.list_objects(bucket.bucket, recursive=True):
                answer = client.get_object(bucket.bucket, item.object_name)
                copied[str(item.object_name)] = answer.read()
                answer.close()
            return copied
        root = Path(place.environment["PERFUSE_REGISTRY_BLOB_DIRECTORY"])
        files = [
            path for path in root.rglob("*") if path.is_file() and "incoming" not in path.parts
        ]
        return {str(path.relative_to(root)): path.read_bytes() for path in files}

    def destroy_bytes(self, place: Place) -> None:
        if self.pair == "postgresql+s3":
            bucket = bucket_of(place)
            client = bucket.client()
            for item in client.list_objects(bucket.bucket, recursive=True):
                client.remove_object(bucket.bucket, item.object_name)
            client.remove_bucket(bucket.bucket)
        else:
            shutil.rmtree(place.environment["PERFUSE_REGISTRY_BLOB_DIRECTORY"])

    @contextmanager
    def restored(self, folder: Path, copied: Copied, home: Path) -> Iterator[Place]:
        """Another installation, made of nothing but a backup."""
        home.mkdir()
        if self.pair == "postgresql+s3":
            bucket = fresh_bucket()
            client = bucket.client()
            for key, data in copied.items():
                client.put_object(bucket.bucket, key, BytesIO(data), len(data))
            where = {
                "PERFUSE_REGISTRY_S3_ENDPOINT": bucket.endpoint,
                "PERFUSE_REGISTRY_S3_BUCKET": bucket.bucket,
                "PERFUSE_REGISTRY_S3_ACCESS_KEY": bucket.access_key,
                "PERFUSE_REGISTRY_S3_SECRET_KEY": bucket.secret_key,
            }
            with fresh_database("postgresql") as url:
                place = Place(url, {"PERFUSE_REGISTRY_DATABASE_URL": url, **where})
                variables = {"PERFUSE_REGISTRY_DATABASE_URL": database_url(place)}
                shell(command("pg_restore"), folder, **variables)
                yield place
            return
        for key, data in copied.items():
            (home / "blobs" / key).parent.mkdir(parents=True, exist_ok=True)
            (home / "blobs" / key).write_bytes(data)
        shutil.copy(folder / "registry-backup.db", home / "registry.db")
        url = f"sqlite:///{home / 'registry.db'}"
        blobs = {"PERFUSE_REGISTRY_BLOB_DIRECTORY": str(home / "blobs")}
        yield Place(url, {"PERFUSE_REGISTRY_DATABASE_URL": url, **blobs})


class Writer:
    """Makes versions and moves an alias without a pause, until it is stopped.

    Attributes:
        made: name → digest of every version that it was told of.
    """

    def __init__(self, server: ServerProcess, concept: str, first_seed: int) -> None:
        self._stub, self._parent = server.stub(), f"{PARENT}{concept}"
        self._seed = first_seed
        self._stop = threading.Event()
        self._turn = threading.Condition()
        self.made: dict[str, str] = {}
        self.fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Writer:
        self._thread.start()
        self.more(3)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self.fault is None, self.fault

    def more(self, count: int) -> None:
        """Wait for so many more versions."""
        with self._turn:
            wanted = len(self.made) + count
            self._turn.wait_for(lambda: self.fault or len(self.made) >= wanted, 60)
        assert self.fault is None, self.fault

    def known(self) -> dict[str, str]:
        with self._turn:
            return dict(self.made)

    def _run(self) -> None:
        try:
            alias = None
            while not self._stop.is_set():
                self._seed += 1
                data = samples.adapter(self._seed)
                version = self._stub.CreateVersion(samples.upload(self._parent, data))
                alias = self._point(alias, version.name)
                with self._turn:
                    self.made[version.name] = digest(data)
                    self._turn.notify_all()
        except BaseException as fault:
            with self._turn:
                self.fault = fault
                self._turn.notify_all()

    def _point(self, alias: Any, version: str) -> Any:
        if alias is None:
            return self._stub.CreateAlias(
                wire.CreateAliasRequest(
                    parent=self._parent, alias_id="prod", alias=wire.Alias(version=version)
                )
            )
        moved = wire.Alias(name=alias.name, version=version, etag=alias.etag)
        return self._stub.UpdateAlias(wire.UpdateAliasRequest(alias=moved))


def number_of(name: str) -> int:
    return int(name.rpartition("/")[2])


@pytest.mark.parametrize("pair", PAIRS)
def test_a_backup_under_writes_brings_everything_back(pair: str, tmp_path: Path) -> None:
    kind, backup = Kind(pair), tmp_path / "backup"
    backup.mkdir()
    (tmp_path / "first").mkdir()
    with fresh_place(pair, tmp_path / "first") as place:
        with place.registry() as registry:
            furnish(registry, "tom", "rex")
        server = start(place)
        stub = server.stub()
        for seed in range(3):
            stub.CreateVersion(samples.upload(f"{PARENT}rex", samples.adapter(seed)))
        # The highest number was given and is gone; it must not come back.
        third = stub.GetVersion(wire.GetVersionRequest(name=f"{PARENT}rex/versions/3"))
        stub.DeleteVersion(wire.DeleteVersionRequest(name=third.name, etag=third.etag))
        with Writer(server, "tom", 1000) as writer:
            too_early = kind.bytes(place)
            writer.more(2)
            ready = writer.known()
            kind.rows(place, backup)
            writer.more(2)
            copied = kind.bytes(place)
            writer.more(2)
        lost = set(writer.known()) - set(ready)
        server.kill()
        kind.destroy_bytes(place)
    with kind.restored(backup, copied, tmp_path / "second") as place:
        _check(place, ready, max(map(number_of, writer.known())))
    assert len(lost) >= 4
    # The other order, bytes before rows, loses what came between the two.
    with (
        kind.restored(backup, too_early, tmp_path / "third") as place,
        place.registry() as registry,
    ):
        report = registry.integrity.verify()
        damaged = {name for each in report.damaged for name in each.versions}
        copied_digests = {digest(data) for data in too_early.values()}
        missing = {name for name, each in ready.items() if each not in copied_digests}
        assert len(missing) >= 2
        assert missing <= damaged


def _check(place: Place, ready: dict[str, str], last: int) -> None:
    """That a restored installation has all that was ready, and goes on in order."""
    server = start(place, garbage_grace_hours=0)
    stub = server.stub()
    held = {(row.concept, row.number): row.digest for row in place.rows(VERSIONS)}
    _readable(stub, ready)
    report = stub.VerifyIntegrity(wire.VerifyIntegrityRequest())
    assert report.damaged_count == 0
    assert report.checked_count == len(set(held.values())) >= len(set(ready.values()))
    for alias in place.rows(ALIASES):
        assert (alias.concept, alias.number) in held
    prod = stub.GetVersion(wire.GetVersionRequest(name=f"{PARENT}tom/versions/prod"))
    assert number_of(prod.name) >= max(map(number_of, ready)) - 1
    # Garbage collection twice, with no grace at all.
    for _ in range(2):
        stub.CollectGarbage(wire.CollectGarbageRequest())
    _readable(stub, ready)
    # A number that was given and deleted before the backup is not given again.
    rex = stub.CreateVersion(samples.upload(f"{PARENT}rex", samples.adapter(77)))
    assert number_of(rex.name) == 4
    # Nor, after `skip-numbers`, one that was given after it and is lost.
    count = command("perfuse-registry skip-numbers").split()[-1]
    with pytest.MonkeyPatch.context() as patched:
        for name, value in place.environment.items():
            patched.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main(["skip-numbers", count])
    assert ended.value.code == 0
    tom = stub.CreateVersion(samples.upload(f"{PARENT}tom", samples.adapter(78)))
    assert number_of(tom.name) > last
    server.kill()


def _readable(stub: Any, ready: dict[str, str]) -> None:
    for name, expected in ready.items():
        answer = stub.DownloadAdapter(wire.DownloadAdapterRequest(name=name))
        assert digest(answer.adapter) == answer.version.digest == expected


def test_bytes_that_are_lost_alone_are_named_and_restored(tmp_path: Path) -> None:
    """The store lost, the database not: what is read says so, and copying the objects mends it."""
    kind = Kind("sqlite+directory")
    with fresh_place("sqlite+directory", tmp_path) as place:
        with place.registry() as registry:
            furnish(registry, "tom")
        server = start(place)
        stub = server.stub()
        for seed in range(2):
            stub.CreateVersion(samples.upload(f"{PARENT}tom", samples.adapter(seed)))
        copied = kind.bytes(place)
        root = Path(place.environment["PERFUSE_REGISTRY_BLOB_DIRECTORY"])
        for key in copied:
            (root / key).unlink()
        report = stub.VerifyIntegrity(wire.VerifyIntegrityRequest())
        assert report.damaged_count == 2
        for key, data in copied.items():
            (root / key).write_bytes(data)
        report = stub.VerifyIntegrity(wire.VerifyIntegrityRequest())
        assert report.damaged_count == 0
        server.kill()
