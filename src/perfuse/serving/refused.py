"""A call that was refused, as the record of who did what is told of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from google.protobuf.message import Message

from perfuse.serving.identity import Caller
from perfuse.serving.policy import Row

_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that would have changed something, and was refused or failed.

    Nothing of the request is in it but a resource's name and a UUID, and each only where what stood
    in its place had that form.

    Attributes:
        caller: Who called.
        rpc: Name of the method.
        resource: What the request names first; empty where its role was not enough.
        code: Of the status.
        request_id: That would have made it safe to repeat.
        call_id: Under which the call is logged.
        peer: The address that it came from.
    """

    caller: Caller
    rpc: str
    resource: str
    code: str
    request_id: str
    call_id: str
    peer: str

    @classmethod
    def of(
        cls,
        row: Row,
        caller: Caller,
        seen: Sequence[Message],
        code: str,
        call_id: str,
        peer: str,
    ) -> Self:
        """What is told of a call of the rpc of `row`, of whose messages `seen` is the first."""
        request = seen[0] if seen else None
        given = str(getattr(request, "request_id", "")).lower()
        request_id = given if _UUID.fullmatch(given) else ""
        return cls(caller, row.rpc, row.named(request), code, request_id, call_id, peer)
