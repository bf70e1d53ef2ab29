"""What the Trainer asks of whatever runs its workers."""

from __future__ import annotations

from typing import Protocol
from uuid import uuid4

from perfuse.errors import FailedPrecondition


class RunnerLost(FailedPrecondition):
    """Whatever the workers ran on is gone; only a new start of the Trainer brings it back."""


class Runner(Protocol):
    """Starts workers and ends them; what they do is between them and the tables.

    Nothing durable depends on a runner: whatever becomes of a worker, its leases run out and its
    runs are taken up again.
    """

    def start(self, base_model_id: str) -> str:
        """Have a worker started for a base model; it may take its time to come up.

        Returns:
            Its id, which no other worker ever has.
        """
        ...

    def alive(self) -> dict[str, str]:
        """Id of a worker → id of its base model, of all that run or are coming up.

        Raises:
            RunnerLost: nothing will ever run here again.
        """
        ...

    def close(self, grace_seconds: float) -> None:
        """Have all workers keep what they have, give back their runs, and end.

        Who is not done after `grace_seconds` is killed. None is left behind.
        """
        ...


def new_worker_id() -> str:
    """An id that no other worker ever has."""
    return f"worker-{uuid4().hex}"
