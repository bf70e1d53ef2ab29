"""A real issuer of tokens in a test: an HTTP server with a discovery document and a JWKS."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

AUDIENCE = "perfuse"


class SigningKey:
    """A private key, and what the issuer tells of it."""

    def __init__(self, kid: str | None, algorithm: str = "ES256", bits: int = 2048) -> None:
        self.kid, self.algorithm = kid, algorithm
        if algorithm.startswith(("RS", "PS")):
            self.private: Any = rsa.generate_private_key(65537, bits)
        elif algorithm == "EdDSA":
            self.private = ed25519.Ed25519PrivateKey.generate()
        else:
            curves = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1}
            self.private = ec.generate_private_key(curves[algorithm]())

    def public(self, **changes: Any) -> dict[str, Any]:
        """As a JWKS has it."""
        told = json.loads(
            get_default_algorithms()[self.algorithm].to_jwk(self.private.public_key())
        )
        told |= {"use": "sig", "alg": self.algorithm}
        if self.kid is not None:
            told["kid"] = self.kid
        return {name: value for name, value in (told | changes).items() if value is not None}


class TestIssuer:
    """An issuer that runs.

    Attributes:
        url: Its name.
        keys: It signs with the first; all are told.
        documents: What its paths answer with, where that is not what they should.
        asked: Paths, in order.
        status: Of every answer.
    """

    __test__ = False

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.keys = [SigningKey("first")]
        self.documents: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()

    def answer(self, path: str) -> bytes:
        self.asked.append(path)
        self.gate.wait(20)
        if path in self.documents:
            return self.documents[path]
        if path == "/.well-known/openid-configuration":
            return json.dumps({"issuer": self.url, "jwks_uri": f"{self.url}/jwks"}).encode()
        return json.dumps({"keys": [key.public() for key in self.keys]}).encode()

    @property
    def readings(self) -> int:
        """How often the keys were asked for."""
        return self.asked.count("/jwks")

    def token(
        self, tenant: str = "acme", *roles: str, key: SigningKey | None = None, **claims: Any
    ) -> str:
        """A token in force for this audience; claims that are None are left out."""
        signer = key or self.keys[0]
        now = int(time.time())
        whole = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "alice",
            "iat": now,
            "exp": now + 300,
            "tenant": tenant,
            "roles": list(roles or ("reader",)),
            **claims,
        }
        told = {name: value for name, value in whole.items() if value is not None}
        headers = None if signer.kid is None else {"kid": signer.kid}
        return jwt.encode(told, signer.private, algorithm=signer.algorithm, headers=headers)


@contextmanager
def issuing() -> Iterator[TestIssuer]:
    """An issuer, while the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = issuer.answer(self.path)
            self.send_response(issuer.status)
            if issuer.status in (301, 302):
                self.send_header("Location", f"{issuer.url}/elsewhere")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer = TestIssuer(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield issuer
    finally:
        issuer.gate.set()
        server.shutdown()
        server.server_close()
        thread.join()
