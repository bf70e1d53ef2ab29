"""The credential of a call: its metadata, and the file of tokens that it is looked up in.

An input's first byte says what it is: metadata, a line each, or the content of a token file.

Laws: only Unauthenticated, which says the same to all but delegates; nobody is a caller without the
whole of a token that was minted; and a file with anything in it vouches for nobody but its lines.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from hashlib import sha256
from pathlib import Path

from perfuse.errors import FailedPrecondition, Unauthenticated
from perfuse.names import ID
from perfuse.serving.identity import Caller, unknown_caller
from perfuse.serving.tokens import TokenAuthenticator

_TOKEN = "perfuse_" + "t" * 43
_DELEGATE = "perfuse_" + "d" * 43
_SAME = str(unknown_caller())


def seeds() -> dict[str, bytes]:
    """Metadata and lines of every kind, and slips."""
    line = _line(_TOKEN, "acme", ["admin"])
    return {
        "token": b"\0authorization:Bearer " + _TOKEN.encode(),
        "lower": b"\0authorization:bearer " + _TOKEN.encode(),
        "part": b"\0authorization:Bearer " + _TOKEN[:-1].encode(),
        "basic": b"\0authorization:Basic dG9tOmNhdA==",
        "delegate": b"\0authorization:Bearer " + _DELEGATE.encode() + b"\nperfuse-tenant:globex",
        "delegate-of-none": b"\0authorization:Bearer " + _DELEGATE.encode() + b"\nperfuse-tenant:",
        "jwt": b"\0authorization:Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.",
        "line": b"\1" + line,
        "twice": b"\1" + line + b"\n" + line,
        "deep": b"\1" + b"[" * 3000,
        "types": b'\1{"tenant":1,"subject":null,"roles":{},"sha256":[]}',
        "not-utf8": b"\1\xff\xfe{}",
    }


def one(data: bytes) -> None:
    """Ask who calls."""
    kind, rest = data[:1], data[1:]
    if kind == b"\1":
        _from_file(rest)
        return
    metadata = {}
    for line in rest.decode(errors="replace").split("\n"):
        key, _, value = line.partition(":")
        metadata[key] = value
    caller = _caller(_authenticator(), metadata)
    if caller is not None:
        # The scheme may be written in any case, the token in one alone.
        assert metadata["authorization"][7:] in {_TOKEN, _DELEGATE}
        is_delegate = metadata["authorization"][7:] == _DELEGATE
        assert caller.tenant == (metadata["perfuse-tenant"] if is_delegate else "acme")
        assert ID.fullmatch(caller.tenant)


def _from_file(content: bytes) -> None:
    path = _folder() / "strangers"
    path.write_bytes(content)
    try:
        authenticator = TokenAuthenticator(path)
    except FailedPrecondition as refusal:
        assert len(str(refusal)) < 1000
        assert str(refusal).isprintable()
        return
    caller = _caller(authenticator, {"authorization": f"Bearer {_TOKEN}"})
    assert caller is None or sha256(_TOKEN.encode()).hexdigest().encode() in content


def _caller(authenticator: TokenAuthenticator, metadata: dict[str, str]) -> Caller | None:
    asking = authenticator.authenticate(metadata)
    try:
        asking.send(None)
    except StopIteration as end:
        found: Caller = end.value
        return found
    except Unauthenticated as refusal:
        assert str(refusal) == _SAME or _DELEGATE in metadata.get("authorization", "")
        return None
    raise AssertionError("it waits for something")


@cache
def _authenticator() -> TokenAuthenticator:
    path = _folder() / "tokens"
    lines = (_line(_TOKEN, "acme", ["admin"]), _line(_DELEGATE, "trainer", ["delegate"]))
    path.write_bytes(b"\n".join(lines))
    return TokenAuthenticator(path)


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="perfuse-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _line(token: str, tenant: str, roles: list[str]) -> bytes:
    digest = sha256(token.encode()).hexdigest()
    record = {"tenant": tenant, "subject": "tom", "roles": roles, "sha256": digest}
    return json.dumps(record).encode()
