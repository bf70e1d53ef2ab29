"""The gRPC server kit that every service uses: identity, edge, health, drain.

A service is a servicer whose methods are decorated with `rpc`, an `Edge` that it holds, and a
`Server` that runs both; see `perfuse.serving.edge`. `perfuse.serving.testing` runs them in a test.
"""

from perfuse.serving.edge import Call, Edge
from perfuse.serving.guard import rpc, unguarded
from perfuse.serving.identity import Authenticator, Caller
from perfuse.serving.metrics import Metrics
from perfuse.serving.run import Server
from perfuse.serving.settings import ServingSettings
from perfuse.serving.tokens import TokenAuthenticator, mint
from perfuse.serving.validation import ProtovalidateValidator, Validator

__all__ = [
    "Authenticator",
    "Call",
    "Caller",
    "Edge",
    "Metrics",
    "ProtovalidateValidator",
    "Server",
    "ServingSettings",
    "TokenAuthenticator",
    "Validator",
    "mint",
    "rpc",
    "unguarded",
]
