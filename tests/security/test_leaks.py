"""Nothing of a tenant's reaches another, whatever rpc it calls; nor anybody's secrets a log.

All requests are made from the descriptors, so that a new rpc is called without a word here. What is
secret is found the same way: every text, digest, uid and byte that the owner itself can read.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

import platform_up
import pytest
from google.protobuf.message import Message

from perfuse.serving.policy import POLICY
from security.planted import MARK, NOBODY, OWNER, RENDERER, STRANGER, Answer, Place, credentials
from security.requests import METHODS, about, empty

# What anybody has: names of things, of rpcs and of base models; and all callers here share a peer.
_COMMON = re.compile(r"baseModels/[a-z]+|[a-z0-9_.+-]{1,40}|[A-Za-z_]{1,40}|ipv[46]:.*|")
_PAGED = [rpc for rpc, each in METHODS.items() if "page_token" in each.input_type.fields_by_name]
_FILTERS = (f'name = "*{MARK}*"', f'description = "{MARK}"', f'labels.note = "{MARK}"')
_READS = [rpc for rpc in METHODS if POLICY.row(rpc).reads and not rpc.startswith(RENDERER)]
_STREAMED = 5.0
NAMELESS = {
    *("CreateBaseModel", "GetBaseModel", "ListBaseModels", "DeleteBaseModel", "VerifyIntegrity"),
    *("CollectGarbage", "Render", "GenerateImages", "GetRendererStatus"),
}
"""Rpcs that name nothing of a tenant's outside a prompt."""


@pytest.fixture(scope="module")
def secrets(planted: Place) -> set[bytes]:
    """All that the owner can read and nobody else may."""
    found: set[bytes] = {MARK.encode(), f"{OWNER}-person".encode(), *planted.pictures}
    everyones: set[bytes] = set()
    for rpc in _READS:
        for message in planted.call(rpc, about(rpc, OWNER), OWNER).messages:
            (found if _names(rpc) else everyones).update(filter(_is_secret, _leaves(message)))
    assert len(found - everyones) > 30, "the owner has much to lose"
    return found - everyones


@pytest.fixture(scope="module")
def tokens(planted: Place) -> dict[str, str]:
    """A page token of the owner's for every list that has two pages, by rpc."""
    found = {}
    for rpc in _PAGED:
        request = about(rpc, OWNER)
        request.page_size = 1
        for message in planted.call(rpc, request, OWNER).messages:
            if token := getattr(message, "next_page_token", ""):
                found[rpc] = token
    return found


@pytest.mark.parametrize("rpc", METHODS)
def test_a_stranger_learns_nothing(
    planted: Place, secrets: set[bytes], tokens: dict[str, str], rpc: str
) -> None:
    said = planted.sizes()
    for request in _tries(rpc, planted, secrets, tokens):
        answer = planted.call(rpc, request, STRANGER, seconds=_STREAMED)
        # What was asked may be answered, and told again by the stranger's own records.
        _asked.append(request.SerializeToString())
        got = answer.everything
        leaked = [each for each in secrets if each in got and not _was_asked(each)]
        assert not leaked, (rpc, request, leaked)
        assert answer.code not in {"INTERNAL", "UNKNOWN"}, (rpc, request, answer.words)
    logged = planted.logs(said).encode()
    assert f"method={rpc} ".encode() in logged
    assert not [each for each in secrets if each in logged]
    assert f"tenants/{OWNER}".encode() not in logged


@pytest.mark.parametrize("rpc", METHODS)
def test_not_yours_reads_like_not_there(planted: Place, rpc: str) -> None:
    """Byte for byte, but for the tenant that was asked for."""
    if not _names(rpc):
        assert METHODS[rpc].name in NAMELESS
        return
    told = []
    for tenant in (OWNER, NOBODY):
        answer = planted.call(rpc, about(rpc, tenant), STRANGER, seconds=_STREAMED)
        assert answer.code in {"NOT_FOUND", "PERMISSION_DENIED"}, (rpc, answer)
        told.append(_without(answer, tenant))
    assert told[0] == told[1]


def test_the_owners_things_are_as_they_were(planted: Place) -> None:
    """After all that the stranger has called."""
    for rpc in METHODS:
        if POLICY.row(rpc).reads:
            continue
        planted.call(rpc, about(rpc, OWNER), STRANGER, seconds=_STREAMED)
    for rpc, field in (
        ("perfuse.v1.RegistryService/GetConcept", "description"),
        ("perfuse.v1.RegistryService/GetVersion", "description"),
        ("perfuse.v1.TrainerService/GetTrainingRun", "description"),
    ):
        (message,) = planted.call(rpc, about(rpc, OWNER), OWNER).messages
        assert getattr(message, field) == MARK
        assert not getattr(message, "delete_time", None) or not message.HasField("delete_time")


def test_measures_name_nobody(planted: Place, secrets: set[bytes]) -> None:
    told = planted.measures().encode()
    assert b"perfuse_rpc_seconds" in told
    assert not [each for each in secrets if each in told]
    for tenant in (OWNER, STRANGER):
        assert f'"{tenant}"'.encode() not in told


def test_nothing_that_is_written_holds_a_secret(planted: Place) -> None:
    """Logs, measures, doctor and status, after successes and failures of every rpc."""
    held = credentials(planted)
    assert len(held) >= 6
    forged = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm5hIn0." + "s3cr3t"
    planted.tokens["forged"] = forged
    for rpc in METHODS:
        assert planted.call(rpc, empty(rpc), "forged").code == "UNAUTHENTICATED"
        planted.call(rpc, empty(rpc), OWNER, seconds=_STREAMED)
    config = str(planted.home / "up.toml")
    written = [planted.logs(), planted.measures()]
    for command in (["doctor", "--json"], ["status"]):
        done = subprocess.run(
            [*platform_up.PERFUSE, "--config", config, *command],
            env=platform_up.without_perfuse(),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.stdout
        written += [done.stdout, done.stderr]
    everything = "".join(written)
    for secret in (*held, forged, planted.prompt, MARK):
        assert secret not in everything
    for picture in planted.pictures:
        assert repr(picture)[2:-1] not in everything
        assert picture.hex() not in everything
    assert "Traceback" not in everything


_asked: list[bytes] = []


def _was_asked(secret: bytes) -> bool:
    return any(secret in request for request in _asked)


def _names(rpc: str) -> bool:
    """Whether its request names what is a tenant's."""
    row = POLICY.row(rpc)
    return bool(row.own or row.within or row.shared)


def _tries(
    rpc: str, where: Place, secrets: set[bytes], tokens: dict[str, str]
) -> Iterator[Message]:
    """What a stranger might send: names of the owner's, guesses, its page tokens, its uids."""
    yield empty(rpc)
    for tenant in (OWNER, STRANGER):
        yield about(rpc, tenant)
        fields = METHODS[rpc].input_type.fields_by_name
        if "page_token" in fields:
            for token in tokens.values():
                yield _with(about(rpc, tenant), page_token=token)
        if "filter" in fields:
            for text in _FILTERS:
                yield _with(about(rpc, tenant), filter=text)
        if "show_deleted" in fields:
            yield _with(about(rpc, tenant), show_deleted=True)
        if "request_id" in fields:
            for uid in _uids(secrets)[:2]:
                yield _with(about(rpc, tenant), request_id=uid)
    if rpc.startswith(RENDERER) and "settings" in METHODS[rpc].input_type.fields_by_name:
        for prompt in (f"<{OWNER}/tom>", f"<{OWNER}/tom@prod>", f"<{OWNER}/tim>", "<tom>"):
            request: Any = empty(rpc)
            request.settings.prompt = prompt
            request.settings.steps = 1
            yield request


def _with(request: Any, **fields: Any) -> Any:
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def _uids(secrets: set[bytes]) -> list[str]:
    found = []
    for each in sorted(secrets):
        with suppress(ValueError):
            found.append(str(UUID(each.decode())))
    return found


def _leaves(message: Message) -> Iterator[bytes]:
    """Every text and byte field within a message, maps' values included."""
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            values: Any = list(value.values())
        else:
            values = value if field.is_repeated else [value]
        for each in values:
            if isinstance(each, Message):
                yield from _leaves(each)
            elif isinstance(each, str):
                yield each.encode()
            elif isinstance(each, bytes):
                yield each[-64:]


def _is_secret(leaf: bytes) -> bool:
    text = leaf.decode(errors="replace")
    known = text.startswith(("tenants/", "sha256:aaaa")) or _COMMON.fullmatch(text)
    return len(leaf) >= 8 and (not known or re.fullmatch(r"[0-9a-f-]{36}", text) is not None)


def _without(answer: Answer, tenant: str) -> bytes:
    """What was answered, the tenant's name and its length in the details made one."""
    details = dict(answer.metadata).get("grpc-status-details-bin", b"")
    words = [answer.code.encode(), answer.words.encode(), *_details(details)]
    return b"\n".join(words).replace(tenant.encode(), b"T")


def _details(raw: bytes) -> list[bytes]:
    from google.rpc import error_details_pb2, status_pb2

    status = status_pb2.Status.FromString(raw)
    found = []
    for each in status.details:
        kind = getattr(error_details_pb2, each.TypeName().rpartition(".")[2])()
        assert each.Unpack(kind)
        if "metadata" in kind.DESCRIPTOR.fields_by_name:
            kind.metadata.pop("request_id")
        found.append(str(kind).encode())
    return [status.message.encode(), *found]


def test_the_secrets_are_secret(secrets: set[bytes]) -> None:
    """The test's own eyes: digests, uids and marks are among them, common words are not."""
    texts = {each.decode(errors="replace") for each in secrets}
    assert any(each.startswith("sha256:") for each in texts)
    assert _uids(secrets)
    assert any(MARK in each for each in texts)
    assert not texts & {"cat", "toybox", "LOCAL", "baseModels/toybox"}
