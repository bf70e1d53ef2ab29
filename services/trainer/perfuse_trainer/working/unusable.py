"""A base model that cannot be loaded: a fault of the runs that wait for it, until it can."""

from __future__ import annotations

from perfuse.errors import BaseModelUnsuitable
from perfuse_trainer.runs.claims import Claims, LeaseLost
from perfuse_trainer.runs.run_queue import Queue
from perfuse_trainer.vault import Vault

PAUSE = 5.0
"""Seconds before the second try, and twice as many before each further one."""

_LONGEST = 300.0


def blame(
    queue: Queue, claims: Claims, vault: Vault, worker_id: str, base_model_id: str, room: int
) -> float:
    """Count a fault for the runs whose turn it is; those that had too many fail.

    What keeps a disk or a device from answering for a minute should cost nobody a run, and what
    stays broken should leave none waiting for ever.

    Args:
        queue: that they come from.
        claims: to write under.
        vault: of their files.
        worker_id: who could not load it.
        base_model_id: of the base model.
        room: how many runs the worker would have taken.

    Returns:
        Seconds to wait before another try.

    Raises:
        Unavailable: the database does not answer.
    """
    reason = BaseModelUnsuitable(
        f"this Trainer cannot load its copy of baseModels/{base_model_id}, as its log tells, and "
        "has tried several times. Ask its operator to install the base model anew, then queue the "
        "run again"
    )
    pause = PAUSE
    for claim in queue.claim(worker_id, [base_model_id], room, alone=True):
        try:
            faults, left = claims.fault(claim, reason, queue.max_faults)
        except LeaseLost:
            continue
        vault.drop(claim.tenant, left)
        pause = max(pause, PAUSE * 2 ** (faults - 1))
    return min(pause, _LONGEST)
