"""The rows of runs, as every rule about them finds them."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select

from perfuse.errors import NotFound
from perfuse.names import TrainingRunName
from perfuse.storage.database import AnyRow
from perfuse_trainer.tables import RUNS

RUN_NAMED = select(RUNS).where(
    RUNS.c.tenant == bindparam("tenant"), RUNS.c.run_id == bindparam("run_id")
)


def found_run(
    connection: Connection, tenant: str, name: TrainingRunName, *, lock: bool = False
) -> AnyRow:
    """A tenant's run, with `lock` held until the transaction ends.

    Raises:
        NotFound: there is none, or it is another tenant's.
    """
    if name.tenant != tenant:
        raise missing(name)
    chosen = RUN_NAMED.with_for_update() if lock else RUN_NAMED
    row = connection.execute(chosen, {"tenant": tenant, "run_id": name.training_run}).first()
    if row is None:
        raise missing(name)
    return row


def missing(name: object) -> NotFound:
    """The one answer for what does not exist and for what is another tenant's."""
    refusal = NotFound(f"{name} does not exist, or is not yours to see. Check the name")
    refusal.resource = str(name)
    return refusal
