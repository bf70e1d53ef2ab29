"""The S3 store: pages, and every way in which a network or a server may fail it."""

from __future__ import annotations

import gzip
import socket
import socketserver
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from perfuse.adapter import digest
from perfuse.adapter.limits import MAX_FILE_BYTES
from perfuse.errors import DataLoss, InvalidArgument, Unavailable
from perfuse.storage.blobs import BlobStore
from perfuse.storage.blobs_s3 import RETRIES, S3Blobs
from storage.stores import Bucket, fresh_bucket

BYTES = b"an adapter's bytes"
DIGEST = digest(BYTES)
XML = "Content-Type: application/xml"
QUICK = {"connect_seconds": 0.5, "read_seconds": 0.3}

CALLS: dict[str, Callable[[BlobStore], object]] = {
    "check": lambda store: store.check(),
    "put": lambda store: store.put("t", DIGEST, BYTES),
    "get": lambda store: store.get("t", DIGEST),
    "stat": lambda store: store.stat("t", DIGEST),
    "delete": lambda store: store.delete("t", DIGEST),
    "listing": lambda store: list(store.listing()),
    "strays": lambda store: list(store.strays()),
    "self_test": lambda store: store.self_test(),
}


def http(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Script(socketserver.ThreadingTCPServer):
    """An HTTP server that gives the same few answers whatever it is asked, the last one for ever.

    An empty answer stands for silence until the asker goes.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, answers: Sequence[bytes]):
        super().__init__(("127.0.0.1", 0), Asked)
        self.answers = answers
        self.asked: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Asked(socketserver.StreamRequestHandler):
    server: Script

    def handle(self) -> None:
        asked = self.rfile.readline().decode()
        length = 0
        while line := self.rfile.readline().strip().lower():
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        self.rfile.read(length)
        turn = len(self.server.asked)
        self.server.asked.append(asked)
        answer = self.server.answers[min(turn, len(self.server.answers) - 1)]
        if not answer:
            self.rfile.read(1)
            return
        # A store that has read enough hangs up.
        try:
            self.wfile.write(answer)
        except (BrokenPipeError, ConnectionResetError):
            self.server.asked.append("hung up")


@contextmanager
def script(*answers: bytes) -> Iterator[tuple[S3Blobs, Script]]:
    with Script(answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Bucket(server.endpoint, "bucket").open(**QUICK), server
        finally:
            server.shutdown()
            thread.join()


def refused(store: BlobStore, call: str) -> str:
    """The message of the `Unavailable` that a call must raise, with nothing secret about it."""
    with pytest.raises(Unavailable) as caught:
        CALLS[call](store)
    told = str(caught.value)
    for hidden in ("127.0.0.1", "/sha256/", "canary", "<"):
        assert hidden not in told
    # Nor has what our log would show of it, the whole chain of causes, the secret.
    assert "secret-canary" not in "".join(traceback.format_exception(caught.value))
    return told


class TestPages:
    def test_a_listing_goes_through_all_pages_in_order(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bucket = fresh_bucket()
        store = bucket.open(page_size=5)
        contents = [b"%d" % turn for turn in range(23)]
        for data in contents:
            store.put("t", digest(data), data)
        pages = []
        urlopen = store._client._http.urlopen

        def counted(method: str, url: str, **rest: Any) -> Any:
            pages.append(url)
            return urlopen(method, url, **rest)

        monkeypatch.setattr(store._client._http, "urlopen", counted)
        every = sorted(digest(data) for data in contents)
        blobs = list(store.listing())
        assert [blob.digest for blob in blobs] == every
        assert len(pages) == 5
        assert [blob.digest for blob in store.listing(after=blobs[10].key)] == every[11:]
        assert len(pages) == 5 + 3
        assert next(store.listing("t")) == blobs[0]
        assert len(pages) == 5 + 3 + 1, "a listing asks for no page before it is needed"

    def test_blobs_deleted_while_listing_disturb_nothing(self) -> None:
        store = fresh_bucket().open(page_size=2)
        contents = [b"%d" % turn for turn in range(9)]
        for data in contents:
            store.put("t", digest(data), data)
        seen = []
        for blob in store.listing():
            seen.append(blob.digest)
            store.delete(blob.tenant, blob.digest)
        assert seen == sorted(digest(data) for data in contents)
        assert list(store.listing()) == []

    @pytest.mark.parametrize("page_size", [0, -1, 1001])
    def test_a_page_has_a_size_that_s3_knows(self, page_size: int) -> None:
        with pytest.raises(InvalidArgument, match="page_size"):
            Bucket("http://s3", "bucket").open(page_size=page_size)

    def test_a_server_that_lists_out_of_order_is_not_used(self) -> None:
        item = (
            "<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            "<Size>1</Size></Contents>"
        )
        keys = [f"{t}/sha256/{DIGEST[7:9]}/{DIGEST[7:]}" for t in ("b", "a")]
        body = f"<R><Name>bucket</Name>{''.join(item.format(key) for key in keys)}</R>"
        with script(http("200 OK", body.encode(), XML)) as (store, _):
            assert "order" in refused(store, "listing")


class TestNoAnswer:
    @pytest.mark.parametrize("call", CALLS)
    def test_where_nobody_listens(self, call: str) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            store = Bucket(f"http://127.0.0.1:{taken.getsockname()[1]}", "bucket").open()
            start = time.monotonic()
            assert "NewConnectionError" in refused(store, call)
        # Three attempts with 0.4 s of waiting, twice for a self test, which also tidies up.
        assert time.monotonic() - start < 5

    @pytest.mark.parametrize("call", ["put", "get", "listing"])
    def test_silence_is_given_up_after_two_more_attempts(self, call: str) -> None:
        with script(b"") as (store, server):
            assert "ReadTimeoutError" in refused(store, call)
            assert len(server.asked) == 1 + RETRIES

    def test_the_timeouts_are_five_and_ten_seconds(self) -> None:
        pool = Bucket("http://s3", "bucket").open()._client._http.connection_pool_kw
        assert (pool["timeout"].connect_timeout, pool["timeout"].read_timeout) == (5, 10)
        assert pool["retries"].total == RETRIES == 2


class TestBadAnswers:
    @pytest.mark.parametrize("call", ["put", "get", "stat", "delete", "listing", "check"])
    def test_a_server_in_trouble_is_asked_three_times_and_without_its_own_waits(
        self, call: str
    ) -> None:
        with script(http("503 Slow Down", b"", "Retry-After: 60")) as (store, server):
            start = time.monotonic()
            refused(store, call)
            assert time.monotonic() - start < 5
            assert len(server.asked) == 1 + RETRIES

    def test_trouble_that_passes_is_not_noticed(self) -> None:
        with script(http("500 Oh"), http("200 OK", BYTES)) as (store, server):
            assert store.get("t", DIGEST) == BYTES
            assert len(server.asked) == 2

    @pytest.mark.parametrize("status", ["301 Moved", "307 Moved", "302 Found"])
    def test_redirections_are_not_followed(self, status: str) -> None:
        with script(http("200 OK", BYTES)) as (_, elsewhere):
            move = http(status, b"", f"Location: {elsewhere.endpoint}/x")
            with script(move) as (store, server):
                for call in ("get", "put"):
                    refused(store, call)
                assert len(server.asked) == 2
            assert elsewhere.asked == []

    @pytest.mark.parametrize("call", ["put", "get", "stat", "delete", "listing", "check"])
    @pytest.mark.parametrize(
        "answer",
        [
            b"SSH-2.0-OpenSSH\r\n",
            http("400 Bad Request", b"<html>"),
            http("400 Bad Request", b"\xff<<", XML),
            http("403 Forbidden", b"<Error><Code>AccessDenied</Code></Error>", XML),
            http("403 Forbidden", b"<Error><Code>access-canary 1</Code></Error>", XML),
            http("409 Conflict"),
            http("418 Teapot", b"short and stout"),
        ],
    )  # fmt: skip
    def test_nonsense_is_unavailable(self, call: str, answer: bytes) -> None:
        with script(answer) as (store, _):
            refused(store, call)

    def test_a_404_that_is_not_the_stores_own_is_no_data_loss(self) -> None:
        page = http("404 Not Found", b"<html>no such site</html>", "Content-Type: text/html")
        with script(page) as (store, _):
            refused(store, "get")

    @pytest.mark.parametrize("kind", ["application/xml", "text/xml", "Text/XML; charset=utf-8"])
    def test_a_missing_object_is_told_by_either_name_of_xml(self, kind: str) -> None:
        body = b"<Error><Code>NoSuchKey</Code></Error>"
        answer = http("404 Not Found", body, f"Content-Type: {kind}")
        with script(answer) as (store, _), pytest.raises(DataLoss):
            store.get("t", DIGEST)

    @pytest.mark.parametrize("cut", [1, len(BYTES) // 2, len(BYTES)])
    def test_a_body_that_breaks_off_is_no_data_loss(self, cut: int) -> None:
        with script(http("200 OK", BYTES)[:-cut]) as (store, _):
            refused(store, "get")

    @pytest.mark.parametrize("cut", [1, 5, 9, 20])
    def test_a_body_in_chunks_is_read_but_not_if_it_breaks_off(self, cut: int) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BYTES[:4], BYTES[4:]))
        whole = head + chunks + b"0\r\n\r\n"
        with script(whole) as (store, _):
            assert store.get("t", DIGEST) == BYTES
        with script(whole[: -4 - cut]) as (store, _):
            refused(store, "get")

    @pytest.mark.parametrize("call", ["put", "get", "stat", "listing"])
    def test_a_head_that_breaks_off_is_neither_success_nor_data_loss(self, call: str) -> None:
        with script(b"HTTP/1.1 200 OK\r\n") as (store, _):
            refused(store, call)

    @pytest.mark.parametrize("size", [MAX_FILE_BYTES + 1, MAX_FILE_BYTES * 8])
    def test_no_more_than_an_adapter_is_read(self, size: int) -> None:
        too_much, told = http("200 OK", bytes(size)), f"more than {MAX_FILE_BYTES}"
        with script(too_much) as (store, _), pytest.raises(DataLoss, match=told):
            store.get("t", DIGEST)

    def test_nothing_is_unpacked(self) -> None:
        bomb = gzip.compress(bytes(1 << 26))
        answer, told = http("200 OK", bomb, "Content-Encoding: gzip"), f"the {len(bomb)} bytes"
        with script(answer) as (store, _), pytest.raises(DataLoss, match=told):
            store.get("t", DIGEST)

    def test_a_listing_of_half_an_entry_is_unavailable(self) -> None:
        body = b"<R><Name>bucket</Name><Contents><Key>k</Key></Contents></R>"
        with script(http("200 OK", body, XML)) as (store, _):
            refused(store, "listing")

    def test_a_server_that_invents_bytes_fails_the_self_test(self) -> None:
        invented = http("200 OK", b"x", "ETag: e")
        with script(invented) as (store, _), pytest.raises(DataLoss, match="self test"):
            store.self_test()


class TestSettings:
    @pytest.mark.parametrize("call", [call for call in CALLS if call != "delete"])
    def test_a_missing_bucket_is_unavailable_and_never_data_loss(self, call: str) -> None:
        bucket = fresh_bucket()
        store = Bucket(bucket.endpoint, "blobs-that-are-not-there").open()
        refused(store, call)

    def test_a_missing_bucket_is_named(self) -> None:
        store = Bucket(fresh_bucket().endpoint, "blobs-that-are-not-there").open()
        with pytest.raises(Unavailable, match="no bucket 'blobs-that-are-not-there'; make it"):
            store.check()

    @pytest.mark.parametrize(
        "endpoint",
        ["", "s3", "s3:9000", "ftp://s3", "http://", "http://s3/path", "http://s3?x=1", "http://s3#x",
         "http://user:hunter2@s3", "http://s3:99999", "http://s3:0", "http://[s3"],
    )  # fmt: skip
    def test_an_endpoint_is_a_scheme_and_a_host(self, endpoint: str) -> None:
        with pytest.raises(InvalidArgument, match="endpoint") as caught:
            Bucket(endpoint, "bucket").open()
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("bucket", ["", "ab", "Upper", "a/b", "../x", "a" * 64, "b-", "b\n"])
    def test_a_bucket_has_a_buckets_name(self, bucket: str) -> None:
        with pytest.raises(InvalidArgument, match="bucket"):
            Bucket("http://s3", bucket).open()

    def test_a_store_shows_no_credentials(self) -> None:
        store = Bucket("http://s3", "bucket").open()
        assert "canary" not in repr(store) + repr(vars(store)) + str(store)
