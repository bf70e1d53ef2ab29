"""Files on their way to a version: leased, put into the store, and held until a row names them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from perfuse.storage.blobs import BlobStore
from perfuse.storage.database import Database
from perfuse_registry.catalog.admission import Judged
from perfuse_registry.catalog.attachments import JudgedAttachments
from perfuse_registry.catalog.leases import Lease, Leases
from perfuse_registry.failpoints import reach


@dataclass(frozen=True, slots=True)
class HeldFiles:
    """The leases under which a version's files were put.

    Attributes:
        adapter: On the adapter's bytes.
        previews: On each preview's.
    """

    adapter: Lease
    previews: tuple[Lease, ...] = ()


class Uploads:
    """Puts files.

    Args:
        database: With the Registry's tables.
        blobs: Where the bytes go.
        lease: How long an upload may take before its bytes count as abandoned.
    """

    def __init__(self, database: Database, blobs: BlobStore, lease: timedelta) -> None:
        self._leases = Leases(database, lease)
        self._blobs = blobs

    @contextlib.contextmanager
    def held(self, tenant: str, judged: Judged, attached: JudgedAttachments) -> Iterator[HeldFiles]:
        """All files in the store, until a version refers to them or none will.

        Raises:
            Unavailable: database or store do not answer.
        """
        with contextlib.ExitStack() as stack:
            adapter = stack.enter_context(
                self._leases.held(tenant, judged.digest, len(judged.data))
            )
            reach("version.leased")
            previews = tuple(
                stack.enter_context(self._leases.held(tenant, digest, len(picture)))
                for digest, picture in sorted(attached.files.items())
            )
            if previews:
                reach("preview.leased")
            for digest, picture in attached.files.items():
                self._blobs.put(tenant, digest, picture)
                reach("preview.stored")
            self._blobs.put(tenant, judged.digest, judged.data)
            reach("version.stored")
            yield HeldFiles(adapter, previews)
