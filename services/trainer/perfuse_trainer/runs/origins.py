"""Which pictures a run learned from."""

from __future__ import annotations

from perfuse.errors import FailedPrecondition
from perfuse.names import TrainingRunName
from perfuse.storage.database import Database
from perfuse_trainer.provenance import Provenance
from perfuse_trainer.runs.run_rows import found_run


class Origins:
    """Proves of a picture that a run learned from it, or did not.

    Args:
        database: With the Trainer's tables.
        provenance: That made the runs' keyed digests.
    """

    def __init__(self, database: Database, provenance: Provenance) -> None:
        self._database, self._provenance = database, provenance

    def learned_from(self, tenant: str, name: TrainingRunName, digest: str) -> tuple[bool, int]:
        """Whether a picture was among those of a run, and how many there were.

        Args:
            tenant: Of the caller.
            name: Of the run.
            digest: Of the picture's file, as it was sent.

        Raises:
            NotFound: there is none, or it is another tenant's.
            FailedPrecondition: the run is older than such proofs, or their secret is gone.
        """
        row = self._database.read(lambda connection: found_run(connection, tenant, name))
        if row.provenance is None:
            raise FailedPrecondition(
                f"{name} was queued by an earlier release, which kept no digests of its pictures"
            )
        used = self._provenance.knows(tenant, digest, row.provenance)
        return used, len(row.provenance)
