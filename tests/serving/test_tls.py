"""TLS: certificates that change while a server runs, and clients known by theirs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from structlog.testing import capture_logs

from perfuse.errors import FailedPrecondition
from perfuse.serving import Edge, Server, ServingSettings, mint
from perfuse.serving.certificates import CertificateAuthenticator, uris
from perfuse.serving.tls import server_credentials
from serving.authority import Authority
from serving.probe import POLICY, Answer, Probe, Question, Stub, add
from serving.test_threaded import Worker, add_unary

TRAINER = "spiffe://prod/ns/perfuse/sa/trainer"
RENDERER = "spiffe://prod/ns/perfuse/sa/renderer"
BOTH_KINDS = pytest.mark.parametrize("threaded", [False, True], ids=["loop", "threads"])


@contextlib.asynccontextmanager
async def serving(folder: Path, *, threaded: bool = False, **more: Any) -> AsyncIterator[int]:
    """A server from settings, beyond loopback, with TLS of `folder`; the port comes."""
    settings = ServingSettings(
        bind="0.0.0.0:0", tls_cert=folder / "cert.pem", tls_key=folder / "key.pem", **more
    )
    edge = Edge(settings.authenticator(), policy=POLICY, threaded=threaded)
    server = Server.from_settings(settings, edge)
    if threaded:
        server.add(add_unary, Worker(edge, lambda question: Answer(text="done")))
    else:
        server.add(add, Probe(edge))
    port = await server.start()
    try:
        yield port
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def stub(
    port: int, authority: Authority, own: tuple[bytes, bytes] | None = None
) -> AsyncIterator[Any]:
    cert, key = own or (None, None)
    credentials = grpc.ssl_channel_credentials(authority.certificate, key, cert)
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    target = f"127.0.0.1:{port}"
    async with grpc.aio.secure_channel(target, credentials, options=options) as channel:
        yield Stub(channel)


async def code(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return "OK"


async def shown(port: int) -> str:
    """The name in the certificate that a new connection is shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    raw = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    (name,) = x509.load_der_x509_certificate(raw).subject
    return str(name.value)


@pytest.fixture
def authority() -> Authority:
    return Authority()


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


class TestCertificatesThatChange:
    @BOTH_KINDS
    async def test_new_connections_get_the_new_one_and_old_ones_live_on(
        self, tmp_path: Path, authority: Authority, threaded: bool
    ) -> None:
        authority.install(tmp_path, "first")
        known = bearer(mint(tmp_path / "tokens", "acme", "alice", ["reader"]))
        async with (
            serving(tmp_path, threaded=threaded, token_file=tmp_path / "tokens") as port,
            stub(port, authority) as old,
        ):
            await old.Ask(Question(), metadata=known)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as plain:
                told = await code(Stub(plain).Ask(Question(), metadata=known, timeout=5))
                assert told in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
            assert await shown(port) == "first"
            authority.install(tmp_path, "second")
            assert await shown(port) == "second"
            await old.Ask(Question(), metadata=known)
            async with stub(port, authority) as new:
                await new.Ask(Question(), metadata=known)
            # Whoever trusts another authority from now on makes no connection.
            other = Authority("other")
            other.install(tmp_path, "third")
            assert await shown(port) == "third"
            async with stub(port, other) as new:
                await new.Ask(Question(), metadata=known)
            async with stub(port, authority) as new:
                assert await code(new.Ask(Question(), metadata=known)) == "UNAVAILABLE"
            await old.Ask(Question(), metadata=known)

    @BOTH_KINDS
    async def test_files_that_are_wrong_change_nothing(
        self, tmp_path: Path, authority: Authority, threaded: bool
    ) -> None:
        authority.install(tmp_path, "first")
        mint(tmp_path / "tokens", "acme", "alice", ["reader"])
        cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
        good = cert.read_bytes(), key.read_bytes()
        other = authority.issue("other")
        async with serving(tmp_path, threaded=threaded, token_file=tmp_path / "tokens") as port:
            wrongs: list[tuple[Path, bytes | None]] = [
                (cert, b"no certificate"),
                (cert, good[0][: len(good[0]) // 2]),
                (cert, other[0]),
                (key, other[1]),
                (key, b""),
                (key, None),
            ]
            for path, content in wrongs:
                path.unlink()
                if content is not None:
                    path.write_bytes(content)
                with capture_logs() as logs:
                    assert await shown(port) == "first"
                    assert await shown(port) == "first"
                faults = [each for each in logs if each["event"] == "certificate_fault"]
                assert faults
                assert all(str(tmp_path) in each["problem"] for each in faults)
                cert.write_bytes(good[0])
                key.write_bytes(good[1])
                assert await shown(port) == "first"
            authority.install(tmp_path, "second")
            assert await shown(port) == "second"

    def test_what_cannot_be_served_is_told_at_once(
        self, tmp_path: Path, authority: Authority
    ) -> None:
        authority.install(tmp_path)
        cert, key, ca = (tmp_path / f"{name}.pem" for name in ("cert", "key", "ca"))
        server_credentials(cert, key, ca)
        with pytest.raises(FailedPrecondition, match=r"missing\.pem cannot be read"):
            server_credentials(tmp_path / "missing.pem", key)
        with pytest.raises(FailedPrecondition, match="holds no private key"):
            server_credentials(cert, ca)
        with pytest.raises(FailedPrecondition, match="holds no certificate"):
            server_credentials(key, key)
        with pytest.raises(FailedPrecondition, match="is not the key of"):
            server_credentials(ca, key)
        with pytest.raises(FailedPrecondition, match="holds no certificate"):
            server_credentials(cert, key, key)


def line(uri: str, tenant: str, subject: str, *roles: str) -> str:
    told = {"tenant": tenant, "subject": subject, "roles": roles, "uri": uri}
    return json.dumps(told) + "\n"


class TestClientsCertificates:
    @pytest.fixture
    def folder(self, tmp_path: Path, authority: Authority) -> Path:
        authority.install(tmp_path)
        (tmp_path / "callers").write_text(
            line(TRAINER, "platform", "trainer", "delegate")
            + line(RENDERER, "acme", "renderer", "reader")
        )
        return tmp_path

    @pytest.fixture
    def more(self, folder: Path) -> dict[str, Path]:
        return {"tls_client_ca": folder / "ca.pem", "certificate_file": folder / "callers"}

    @BOTH_KINDS
    async def test_say_who_calls(
        self, folder: Path, authority: Authority, more: Any, threaded: bool
    ) -> None:
        async with serving(folder, threaded=threaded, **more) as port:
            async with stub(port, authority, authority.issue("r", RENDERER)) as known:
                assert await code(known.Ask(Question())) == "OK"
                assert await code(known.Operate(Question())) == "PERMISSION_DENIED"
            async with stub(port, authority, authority.issue("t", TRAINER)) as known:
                assert await code(known.Ask(Question())) == "UNAUTHENTICATED"
                acting = (("perfuse-tenant", "acme"),)
                assert await code(known.Ask(Question(), metadata=acting)) == "OK"

    async def test_only_by_names_that_are_in_the_file(
        self, folder: Path, authority: Authority, more: Any
    ) -> None:
        async with serving(folder, **more) as port:
            for names in (
                (),
                ("spiffe://prod/ns/perfuse/sa/other",),
                (RENDERER + "/",),
                (RENDERER.upper(),),
                # Of two callers none is more right than the other.
                (RENDERER, TRAINER),
            ):
                # What the certificate is made out to is no name of its own.
                async with stub(port, authority, authority.issue(RENDERER, *names)) as unknown:
                    assert await code(unknown.Ask(Question())) == "UNAUTHENTICATED", names
            both = authority.issue("both", RENDERER, "spiffe://prod/ns/perfuse/sa/other")
            async with stub(port, authority, both) as known:
                assert await code(known.Ask(Question())) == "OK"

    async def test_are_needed_and_must_be_the_authoritys(
        self, folder: Path, authority: Authority, more: Any
    ) -> None:
        rival = Authority("authority")
        strangers = (None, rival.issue("r", RENDERER), authority.issue("r", RENDERER, hours=-1))
        async with serving(folder, **more) as port:
            for own in strangers:
                async with stub(port, authority, own) as stranger:
                    assert await code(stranger.Ask(Question())) == "UNAVAILABLE"

    async def test_say_nothing_where_the_server_asks_for_none(
        self, folder: Path, authority: Authority
    ) -> None:
        """A certificate that nobody verified is only a claim."""
        rival = Authority("rival")
        seen: list[Any] = []

        class Spy(CertificateAuthenticator):
            async def authenticate(self, metadata: Any, peer: Any = None) -> Any:
                seen.append(uris(peer))
                return await super().authenticate(metadata, peer)

        edge = Edge(Spy(folder / "callers"), policy=POLICY)
        credentials = server_credentials(folder / "cert.pem", folder / "key.pem")
        server = Server(edge, credentials=credentials)
        server.add(add, Probe(edge))
        port = await server.start()
        async with stub(port, authority, rival.issue("r", RENDERER)) as stranger:
            assert await code(stranger.Ask(Question())) == "UNAUTHENTICATED"
        await server.stop()
        assert seen == [[]]

    async def test_a_token_is_asked_first_and_a_bad_one_is_not_made_good(
        self, folder: Path, authority: Authority, more: Any
    ) -> None:
        alice = mint(folder / "tokens", "globex", "alice", ["reader"])
        own = authority.issue("r", RENDERER)
        async with (
            serving(folder, token_file=folder / "tokens", **more) as port,
            stub(port, authority, own) as known,
        ):
            assert (await known.Ask(Question())).text == "acme"
            assert (await known.Ask(Question(), metadata=bearer(alice))).text == "globex"
            for metadata in (bearer("x"), bearer("ey.ey.ey"), (("authorization", ""),)):
                assert await code(known.Ask(Question(), metadata=metadata)) == "UNAUTHENTICATED"
            twice = (*bearer(alice), *bearer(alice))
            assert await code(known.Ask(Question(), metadata=twice)) == "UNAUTHENTICATED"
        # Nor where certificates are all that vouches for callers.
        async with serving(folder, **more) as port, stub(port, authority, own) as known:
            assert await code(known.Ask(Question(), metadata=bearer(alice))) == "UNAUTHENTICATED"

    async def test_the_file_and_the_authority_may_change(
        self, folder: Path, authority: Authority, more: Any
    ) -> None:
        own = authority.issue("r", RENDERER)
        async with serving(folder, **more) as port, stub(port, authority, own) as known:
            assert await code(known.Ask(Question())) == "OK"
            (folder / "callers").write_text(line(TRAINER, "platform", "trainer", "delegate"))
            assert await code(known.Ask(Question())) == "UNAUTHENTICATED"
            (folder / "callers").write_text(line(RENDERER, "acme", "renderer", "reader"))
            rival = Authority("rival")
            (folder / "ca.pem").write_bytes(rival.certificate)
            async with stub(port, authority, own) as stranger:
                assert await code(stranger.Ask(Question())) == "UNAVAILABLE"
            async with stub(port, authority, rival.issue("r", RENDERER)) as new:
                assert await code(new.Ask(Question())) == "OK"

    @pytest.mark.parametrize(
        "uri", ["", "trainer", "spiffe://", "spiffe://prod/with space", "spiffe://prod/\n", 7, None]
    )
    def test_a_name_that_is_none(self, folder: Path, uri: Any) -> None:
        told = {"tenant": "acme", "subject": "a", "roles": ["reader"], "uri": uri}
        (folder / "callers").write_text(json.dumps(told))
        with pytest.raises(FailedPrecondition, match="line 1 of the certificate file"):
            CertificateAuthenticator(folder / "callers")
