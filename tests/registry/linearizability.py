"""Whether what concurrent clients saw of one alias could have happened one call after another.

After Wing and Gong (1993), with the memory of Lowe (2017): look for an order of the calls in which
each takes effect at one moment between its start and its end, and each answer is what a plain
sequential alias would have given. Calls on different aliases do not touch each other, so each
alias is judged alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Pointing = tuple[int, str]
"""What an alias is: the number that it points at, and its etag."""


Kind = Literal["get", "create", "move", "delete"]


@dataclass(frozen=True)
class Called:
    """One call and its answer.

    Attributes:
        kind: What was called.
        start, end: When, by one clock.
        outcome: `OK`, or the reason of the refusal.
        answer: What the alias is, as the answer says; None for a refusal and for a deletion.
        number: To point at, for create and move.
        etag: Sent along; empty for none.
    """

    kind: Kind
    start: float
    end: float
    outcome: str
    answer: Pointing | None = None
    number: int = 0
    etag: str = ""


_IMPOSSIBLE = object()


def _after(state: Pointing | None, call: Called) -> object:
    """The alias after the call, or `_IMPOSSIBLE` if it would have been answered otherwise."""
    if call.kind == "create":
        if state is not None:
            return state if call.outcome == "ALREADY_EXISTS" else _IMPOSSIBLE
        return _changed(call)
    if state is None:
        return None if call.outcome == "NOT_FOUND" else _IMPOSSIBLE
    if call.kind == "get":
        return state if (call.outcome, call.answer) == ("OK", state) else _IMPOSSIBLE
    if call.etag and call.etag != state[1]:
        return state if call.outcome == "ETAG_MISMATCH" else _IMPOSSIBLE
    if call.kind == "delete":
        return None if call.outcome == "OK" else _IMPOSSIBLE
    return _IMPOSSIBLE if call.answer == state else _changed(call)


def _changed(call: Called) -> object:
    """What a create or a move leaves, if it was answered as one that took place."""
    if call.outcome != "OK" or call.answer is None or call.answer[0] != call.number:
        return _IMPOSSIBLE
    return call.answer


def is_linearizable(calls: Sequence[Called]) -> bool:
    """Whether such an order exists, from an alias that is not there."""
    ordered = sorted(calls, key=lambda call: call.start)
    everything = (1 << len(ordered)) - 1
    visited: set[tuple[int, object]] = set()
    stack: list[tuple[int, object]] = [(0, None)]
    while stack:
        done, state = stack.pop()
        if done == everything:
            return True
        if (done, state) in visited:
            continue
        visited.add((done, state))
        # A call can come next only if none of the others had ended before it started.
        horizon = min(call.end for turn, call in enumerate(ordered) if not done >> turn & 1)
        for turn, call in enumerate(ordered):
            if call.start > horizon:
                break
            if not done >> turn & 1:
                after = _after(state, call)  # type: ignore[arg-type]
                if after is not _IMPOSSIBLE:
                    stack.append((done | 1 << turn, after))
    return False
