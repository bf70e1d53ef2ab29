"""Channels to the services, asynchronous or not, with what gRPC itself repeats for us."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import grpc

from perfuse import __version__

MAX_MESSAGE_BYTES = 64 << 20
"""Of an answer: a finished picture of the largest size fits several times over."""

# Only what certainly did nothing is repeated (AIP-194); mutations carry a request_id besides. An
# upload is left out: gRPC would keep its bytes in memory, and `image_sets` repeats it by itself.
_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [
                    {"service": f"perfuse.v1.{name}Service"}
                    for name in ("Registry", "Trainer", "Renderer")
                ],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 3,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            },
            {"name": [{"service": "perfuse.v1.TrainerService", "method": "UploadImages"}]},
        ]
    }
)
_OPTIONS = [
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.enable_retries", 1),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.primary_user_agent", f"perfuse/{__version__}"),
    # A connection through a sleeping laptop or a silent proxy must not be trusted for ever.
    ("grpc.keepalive_time_ms", 60_000),
]


def aio_channel(target: str, credentials: grpc.ChannelCredentials | None) -> Any:
    """A channel for coroutines of the running loop."""
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=_OPTIONS)
    return grpc.aio.secure_channel(target, credentials, options=_OPTIONS)


def sync_channel(target: str, credentials: grpc.ChannelCredentials | None) -> Any:
    """A channel for any number of threads."""
    if credentials is None:
        return grpc.insecure_channel(target, options=_OPTIONS)
    return grpc.secure_channel(target, credentials, options=_OPTIONS)


async def aio_pause(seconds: float) -> None:
    """Let others go on for a while."""
    await asyncio.sleep(seconds)


def sync_pause(seconds: float) -> None:
    """Let others go on for a while."""
    time.sleep(seconds)
