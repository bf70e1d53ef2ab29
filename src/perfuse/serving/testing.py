"""A real server in a test: in this process, on a free port, with tokens for whoever is needed.

    async with serve((add_RegistryServiceServicer_to_server, servicer), edge=edge) as served:
        alice = served.stub(RegistryServiceStub, "acme", "publisher")
        await alice.CreateConcept(request)

where `edge = Edge(IssuedTokens(), ...)` is the servicer's. `served.target` and `served.token` are
what a client from elsewhere needs.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import grpc

from perfuse.serving.edge import Edge
from perfuse.serving.identity import Caller, Peer, bearer_token, on_behalf, unknown_caller
from perfuse.serving.readiness import Ready
from perfuse.serving.roster import Adder
from perfuse.serving.run import DEFAULT_MESSAGE_BYTES, Server

S = TypeVar("S")


class IssuedTokens:
    """An authenticator that knows the tokens that it issued."""

    def __init__(self) -> None:
        self._callers: dict[str, Caller] = {}

    def issue(self, tenant: str, *roles: str, subject: str = "tester") -> str:
        """A new token."""
        token = secrets.token_urlsafe(16)
        self._callers[token] = Caller(tenant, subject, frozenset(roles))
        return token

    async def authenticate(self, metadata: Mapping[str, str], peer: Peer | None = None) -> Caller:
        """The caller to whom the token was issued."""
        caller = self._callers.get(bearer_token(metadata))
        if caller is None:
            raise unknown_caller()
        return on_behalf(caller, metadata)


class Served:
    """A server that runs, and the ways to call it.

    Attributes:
        server: Running.
        tokens: That the server's edge knows.
        target: `127.0.0.1:port`.
        channel: Without credentials.
    """

    def __init__(self, server: Server, tokens: IssuedTokens, channel: Any) -> None:
        self.server = server
        self.tokens = tokens
        self.target = f"127.0.0.1:{server.port}"
        self.channel = channel

    def token(self, tenant: str = "acme", *roles: str, subject: str = "tester") -> str:
        """A new token; of an admin where no role is named."""
        return self.tokens.issue(tenant, *(roles or ("admin",)), subject=subject)

    def stub(
        self,
        make: Callable[[Any], S],
        tenant: str = "acme",
        *roles: str,
        subject: str = "tester",
    ) -> S:
        """A stub whose every call carries a new token; metadata given to a call replace it."""
        token = self.token(tenant, *roles, subject=subject)
        metadata = (("authorization", f"Bearer {token}"),)
        stub = make(self.channel)
        for name, method in vars(stub).items():
            setattr(stub, name, partial(method, metadata=metadata))
        return stub


@asynccontextmanager
async def serve(
    *parts: tuple[Adder, Any],
    edge: Edge,
    tokens: IssuedTokens,
    ready: Ready | None = None,
    grace_seconds: float = 5.0,
    probe_seconds: float = 5.0,
) -> AsyncIterator[Served]:
    """Serve these parts while the context lasts.

    Args:
        parts: Pairs of the generated function that adds a servicer, and the servicer.
        edge: Of the servicers; it is closed at the end.
        tokens: The edge's authenticator.
        ready: See `Server`.
        grace_seconds: See `Server`.
        probe_seconds: See `Server`.
    """
    server = Server(edge, grace_seconds=grace_seconds, ready=ready, probe_seconds=probe_seconds)
    for adder, servicer in parts:
        server.add(adder, servicer)
    port = await server.start()
    options = [
        ("grpc.max_receive_message_length", DEFAULT_MESSAGE_BYTES),
        ("grpc.max_send_message_length", DEFAULT_MESSAGE_BYTES),
        # Tests in one process must not share a connection to a port that was used before.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            yield Served(server, tokens, channel)
    finally:
        await server.stop()
