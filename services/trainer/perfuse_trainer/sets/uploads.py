"""Uploads: images taken into a set, all of one stream or none.

Each image is judged and decoded in a guarded process, encoded anew and put into the vault; the rows
that name the files are made at the end, in one transaction. An upload that dies in between leaves
files without rows, which a sweep removes; so that no sweep can come between a file and its row, an
upload lasts no longer than `MAX_TIME`, and a sweep spares whatever is younger.
"""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta
from functools import partial

from perfuse.errors import ResourceExhausted
from perfuse.names import ImageSetName
from perfuse.storage.database import Database
from perfuse.storage.mutation import Mutation
from perfuse_trainer.sets.image_rows import require_own
from perfuse_trainer.sets.upload import Upload
from perfuse_trainer.vault import Vault

MAX_TIME = timedelta(minutes=30)
"""From an upload's first message to its commit."""


class Uploads:
    """Uploads to the sets of every tenant.

    Args:
        database: With the Trainer's tables.
        vault: Where images go.
        most: Uploads at a time; each holds a file or two in memory and a decoder besides.
        most_of_tenant: Of one tenant's.
        limit: How long an upload may take.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        *,
        most: int = 8,
        most_of_tenant: int = 4,
        limit: timedelta = MAX_TIME,
    ) -> None:
        self._database = database
        self._vault = vault
        self._limit = limit
        self._most, self._most_of_tenant = most, most_of_tenant
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()

    def open(self, mutation: Mutation, name: ImageSetName) -> Upload:
        """An upload to a set, to be begun and then committed or abandoned; waits for nothing.

        Raises:
            NotFound: the set is another tenant's.
            ResourceExhausted: as many uploads as may be are under way; it carries `retry_after`.
        """
        tenant = mutation.tenant
        require_own(tenant, name)
        with self._lock:
            own, total = self._running[tenant], self._running.total()
            if own >= self._most_of_tenant or total >= self._most:
                refusal = ResourceExhausted(
                    f"{own} uploads of yours and {total} in all are under way; at most "
                    f"{self._most_of_tenant} and {self._most} may be. Wait for one to end"
                )
                refusal.retry_after = 1.0
                raise refusal
            self._running[tenant] += 1
        ended = partial(self._ended, tenant)
        return Upload(self._database, self._vault, mutation, name, limit=self._limit, on_end=ended)

    def _ended(self, tenant: str) -> None:
        with self._lock:
            self._running[tenant] -= 1
            if not self._running[tenant]:
                del self._running[tenant]
