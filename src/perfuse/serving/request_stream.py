"""The messages of a client's stream, each checked before the method sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import Message

from perfuse.serving.threaded import CallerGone
from perfuse.serving.validation import Malformed

# The longest that gRPC is waited for to cancel a call that it has closed already.
_CANCELLATION_SECONDS = 5.0


class RequestStream:
    """Iterates over a call's requests; a caller that left is CallerGone, never the end."""

    def __init__(self, context: Any, check: Callable[[Message | Malformed], None]) -> None:
        self._context = context
        self._check = check
        self._ended = False

    def __aiter__(self) -> RequestStream:
        return self

    async def __anext__(self) -> Message:
        if self._ended:
            raise StopAsyncIteration
        try:
            message = await self._context.read()
        except grpc.aio.BaseError as error:
            raise CallerGone(error) from error
        if message is grpc.aio.EOF:
            self._ended = True
            await self._confirm_end()
            raise StopAsyncIteration
        self._check(message)
        return message

    async def _confirm_end(self) -> None:
        """Tell the caller's last message from the caller's end.

        gRPC reads both alike, and has the news of a cancellation come later: half a stream would
        pass for a whole one. Only a call that is still alive can send its metadata.
        """
        try:
            await self._context.send_initial_metadata(())
        except grpc.aio.UsageError:
            # Sent already, with a response. Let a cancellation that is under way arrive.
            await asyncio.sleep(0)
        except grpc.aio.BaseError as error:
            await asyncio.sleep(_CANCELLATION_SECONDS)
            raise CallerGone(error) from error
