"""What a command's exit status says; `docs/cli.md` has the same table.

| status | meaning |
|---|---|
| 0 | done |
| 1 | refused: the message says why, and what to do |
| 2 | the command line was not understood |
| 3 | something that was named is not there |
| 4 | not allowed: no credential, or not enough rights |
| 5 | a service is away, or did not answer in time; the same command may succeed later |
| 6 | a training run, or a check, did not succeed |
| 130 | interrupted |
"""

from __future__ import annotations

from enum import IntEnum

from perfuse.errors import PerfuseError, TrainingDiverged

__all__ = ["BY_STATUS", "Exit", "Failure", "exit_of"]


class Exit(IntEnum):
    """Exit statuses of `perfuse`."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    UNAVAILABLE = 5
    FAILED = 6
    INTERRUPTED = 130


BY_STATUS: dict[str, Exit] = {
    "ABORTED": Exit.REFUSED,
    "ALREADY_EXISTS": Exit.REFUSED,
    "DATA_LOSS": Exit.FAILED,
    "DEADLINE_EXCEEDED": Exit.UNAVAILABLE,
    "FAILED_PRECONDITION": Exit.REFUSED,
    "INTERNAL": Exit.REFUSED,
    "INVALID_ARGUMENT": Exit.REFUSED,
    "NOT_FOUND": Exit.NOT_FOUND,
    "PERMISSION_DENIED": Exit.NOT_ALLOWED,
    "RESOURCE_EXHAUSTED": Exit.REFUSED,
    "UNAUTHENTICATED": Exit.NOT_ALLOWED,
    "UNAVAILABLE": Exit.UNAVAILABLE,
}
"""By `PerfuseError.status`; what is not here is refused."""


class Failure(Exception):
    """What a command was to bring about did not come about, though nothing was refused.

    Attributes:
        exit: status that the command ends with.
        reason: for machines, as `perfuse.errors` spells it.
        resource: name of the resource that it is about, where there is one.
    """

    def __init__(
        self, message: str, *, reason: str, resource: str | None = None, exit: Exit = Exit.FAILED
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.resource = resource
        self.exit = exit


def exit_of(error: PerfuseError) -> Exit:
    """The exit status of what Perfuse refused."""
    if isinstance(error, TrainingDiverged):
        return Exit.FAILED
    return BY_STATUS.get(error.status, Exit.REFUSED)
