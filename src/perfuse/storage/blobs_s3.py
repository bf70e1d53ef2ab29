"""Blobs in a bucket of an S3-compatible object store, through the `minio` client.

Only the plainest part of S3 is used: PUT of a whole object, GET, HEAD, DELETE and ListObjectsV2. No
conditional requests, which stores answer differently, and no multipart uploads, which one would
have to clean up after: a blob is smaller than the smallest part.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import certifi
import urllib3
from minio import Minio
from minio.datatypes import Object
from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError

from perfuse.adapter.limits import MAX_FILE_BYTES
from perfuse.errors import InvalidArgument, Unavailable
from perfuse.storage.blobs import CheckedBlobs, Entry

CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0  # between two arrivals of bytes
RETRIES = 2
MAX_PAGE = 1000  # of S3 itself

_BUCKET = re.compile("[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CHUNK = 256 * 1024
_PASSING = (429, 500, 502, 503, 504)
# What the client lets through when a server answers with anything it did not expect.
_FAULTS = (MinioException, HTTPError, HTTPException, OSError, ParseError, ValueError)


class S3Blobs(CheckedBlobs):
    """A `BlobStore` in one bucket, which must be there and hold nothing else.

    Faults that may pass are tried `RETRIES` times again, also writes: the key is the digest, so to
    write twice is to write the same. The credentials appear in no message and no representation.

    Args:
        endpoint: `https://host[:port]`, or `http://` where the network is trusted.
        bucket: its name.
        access_key: sent with every request.
        secret_key: signs every request and is never sent.
        region: for the signatures.
        ca_file: certificates to trust, instead of `SSL_CERT_FILE` or the public ones.
        connections: kept open; more threads than this open more and drop them.
        connect_seconds: until a connection stands.
        read_seconds: for each wait on an answer.
        page_size: keys to ask for at once when listing, at most `MAX_PAGE`.
        max_bytes: of one blob.

    Raises:
        InvalidArgument: an endpoint or a bucket that is not written so.
    """

    def __init__(
        self,
        endpoint: str,
        bucket: str,
        *,
        access_key: str,
        secret_key: str,
        region: str = "us-east-1",
        ca_file: str | os.PathLike[str] | None = None,
        connections: int = 32,
        connect_seconds: float = CONNECT_SECONDS,
        read_seconds: float = READ_SECONDS,
        page_size: int = MAX_PAGE,
        max_bytes: int = MAX_FILE_BYTES,
    ):
        super().__init__(max_bytes)
        if not 1 <= page_size <= MAX_PAGE:
            raise InvalidArgument(f"page_size={page_size} is not within 1 to {MAX_PAGE}")
        host, secure = _host(endpoint)
        retries = urllib3.Retry(
            total=RETRIES,
            # Another host must not be sent our signatures because this one says so.
            redirect=False,
            backoff_factor=0.2,
            status_forcelist=_PASSING,
            # The wait that a server asks for could outlast our caller's patience.
            respect_retry_after_header=False,
        )
        pool = _Pool(
            maxsize=connections,
            timeout=urllib3.Timeout(connect=connect_seconds, read=read_seconds),
            retries=retries,
            cert_reqs="CERT_REQUIRED",
            ca_certs=os.fspath(ca_file or os.environ.get("SSL_CERT_FILE") or certifi.where()),
        )
        if _BUCKET.fullmatch(bucket) is None:
            raise InvalidArgument(
                f"the bucket {bucket!r} is not a name of 3 to 63 lower-case letters, digits, dots "
                "and hyphens that starts and ends with a letter or digit"
            )
        try:
            self._client = Minio(
                host,
                access_key=access_key,
                secret_key=secret_key,
                secure=secure,
                region=region,
                http_client=pool,
            )
        except ValueError as error:
            raise InvalidArgument(f"the object store's settings do not fit: {error}") from error
        self._bucket = bucket
        self._page_size = page_size

    def check(self) -> None:
        with _answering("say whether its bucket is there"):
            there = self._client.bucket_exists(self._bucket)
        if not there:
            raise Unavailable(
                f"the object store has no bucket {self._bucket!r}; make it, or name another"
            )

    def _write(self, key: str, data: bytes) -> None:
        with _answering("store an object"):
            written = self._client.put_object(self._bucket, key, io.BytesIO(data), len(data))
            if not written.etag:
                raise IncompleteAnswer("no ETag, which S3 gives with every object it takes")

    def _read(self, key: str) -> bytes | None:
        with _answering("give an object"):
            try:
                answer = self._client.get_object(self._bucket, key)
            except S3Error as error:
                if error.code == "NoSuchKey":
                    return None
                raise
            return _read_at_most(answer, self._max_bytes + 1)

    def _size(self, key: str) -> int | None:
        with _answering("describe an object"):
            try:
                described = self._client.stat_object(self._bucket, key)
            except S3Error as error:
                if error.code != "NoSuchKey":
                    raise
            else:
                # Looked up, for where the length is missing the client makes it 0.
                return int(_header(described.metadata, "Content-Length"))
        # To a HEAD there is no telling a missing key from a missing bucket: its answer is empty.
        self.check()
        return None

    def _remove(self, key: str) -> None:
        with _answering("delete an object"):
            try:
                self._client.remove_object(self._bucket, key)
            except S3Error as error:
                if error.code != "NoSuchKey":  # S3 keeps silent here, some of its kin do not
                    raise

    def _entries(self, prefix: str, after: str | None) -> Iterator[Entry]:
        with _answering("list its objects"):
            # The client's public listing does the same, but for the size of a page.
            objects: Iterator[Object] = self._client._list_objects(
                self._bucket,
                prefix=prefix,
                start_after=after,
                max_keys=self._page_size,
                encoding_type="url",
            )
            for item in objects:
                if item.object_name is None or item.size is None or item.last_modified is None:
                    raise IncompleteAnswer("an entry without name, size or date")
                yield Entry(item.object_name, item.size, item.last_modified)


class _Pool(urllib3.PoolManager):
    """Connections whose answers are XML under one of its two names (RFC 7303).

    The client knows `application/xml` alone, and takes an error that comes as `text/xml` (as
    rclone's do, a missing key among them) for no answer at all.
    """

    def urlopen(self, *args: Any, **options: Any) -> urllib3.BaseHTTPResponse:
        """As the base's."""
        answer: urllib3.BaseHTTPResponse = super().urlopen(*args, **options)
        kind = answer.headers.get("Content-Type", "")
        if kind.split(";")[0].strip().lower() == "text/xml":
            answer.headers["Content-Type"] = "application/xml"
        return answer


class IncompleteAnswer(ValueError):
    """An answer without something that S3 always says.

    To Python's HTTP client, an answer that breaks off between two header lines is whole. Without
    this, half an answer to a GET would read as an empty object, and be called data loss.
    """


def _header(headers: Mapping[str, str] | None, name: str) -> str:
    value = (headers or {}).get(name)
    if value is None:
        raise IncompleteAnswer(f"no {name}")
    return value


def _host(endpoint: str) -> tuple[str, bool]:
    try:
        parts = urlsplit(endpoint)
        well_formed = (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and parts.port != 0  # reading it judges it
            and "@" not in parts.netloc
            and parts.path in {"", "/"}
            and not (parts.query or parts.fragment)
        )
    except ValueError:
        well_formed = False
    if not well_formed:
        # Not repeated: what is wrong with it may be a password inside.
        raise InvalidArgument(
            "the object store's endpoint is not 'http://' or 'https://' with a host and perhaps a "
            "port, nothing else; credentials are settings of their own"
        )
    return parts.netloc, parts.scheme == "https"


def _read_at_most(answer: urllib3.BaseHTTPResponse, limit: int) -> bytes:
    pieces: list[bytes] = []
    missing = limit
    drained = False
    try:
        if "Transfer-Encoding" not in answer.headers:
            _header(answer.headers, "Content-Length")  # one of them says where the body ends
        # Read on to the empty piece: only then does a body that broke off raise. Never decoded,
        # or a server could blow up a few bytes beyond the limit.
        while missing > 0 and not drained:
            piece = answer.read(min(missing, _CHUNK), decode_content=False)
            pieces.append(piece)
            missing -= len(piece)
            drained = not piece
    finally:
        if not drained:
            answer.close()  # bytes are left over, so the connection is of no more use
        answer.release_conn()
    return b"".join(pieces)


@contextmanager
def _answering(task: str) -> Iterator[None]:
    """Faults of network and server as `Unavailable`; the text names no host, key or credential."""
    try:
        yield
    except S3Error as error:
        code = error.code or ""
        shown = code if re.fullmatch("[A-Za-z]{1,64}", code) else "for a reason unknown to us"
        raise Unavailable(
            f"the object store refused to {task} ({shown}); see its bucket and the credentials' "
            "permissions, or try again"
        ) from error
    except _FAULTS as error:
        cause = getattr(error, "reason", None)
        kind = type(cause if isinstance(cause, Exception) else error).__name__
        raise Unavailable(
            f"the object store did not {task} ({kind}); see that it is up and reachable, then try "
            "again"
        ) from error
