"""Who changes something: what every rule that changes something is told first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutation:
    """Who changes something, and under which `request_id`; an empty one is not remembered.

    Attributes:
        tenant: of the caller.
        mover: the caller, as its credential names it.
        request_id: under which it is done once.
        call_id: under which the log has the call.
        peer: address that the call came from.
    """

    tenant: str
    mover: str
    request_id: str = ""
    call_id: str = ""
    peer: str = ""
