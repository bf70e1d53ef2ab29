"""The Trainer as one object: its rules over one database and one vault."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from perfuse.quotas import Quotas
from perfuse.storage.audit import AuditTrail
from perfuse.storage.blobs import BlobStore
from perfuse.storage.database import Database
from perfuse.storage.listing import Lists
from perfuse.storage.paging import PageTokens
from perfuse.storage.watching import Watch, WatchedBlobs
from perfuse_trainer.provenance import OWN_SECRET, Provenance, Secret, read_secrets
from perfuse_trainer.requests import AUDIT
from perfuse_trainer.runs.allowance import Allowance
from perfuse_trainer.runs.origins import Origins
from perfuse_trainer.runs.runs import Runs
from perfuse_trainer.schema import SCHEMA, page_token_key, provenance_secret
from perfuse_trainer.service_settings import TrainerSettings
from perfuse_trainer.sets.image_sets import ImageSets
from perfuse_trainer.sets.uploads import Uploads
from perfuse_trainer.vault import MAX_BLOB_BYTES, Vault


class Trainer:
    """Everything that a servicer or a command asks.

    Args:
        database: At this release's revision.
        blobs: Where files are, for files of up to `MAX_BLOB_BYTES`.
        quotas: How many runs tenants may have under way; by default as many as they like.
        audit_retention: How long who did what is kept.
        provenance: Secrets for keyed digests of pictures, before the database's own.

    Raises:
        WrongRevision: the database is at another revision.
    """

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        quotas: Quotas | None = None,
        *,
        audit_retention: timedelta = timedelta(days=400),
        provenance: Sequence[Secret] = (),
    ) -> None:
        SCHEMA.require_revision(database)
        self.database = database
        self.vault = Vault(blobs)
        lists = Lists(database, PageTokens(page_token_key(database)))
        self.image_sets = ImageSets(database, self.vault, lists)
        self.audit = AuditTrail(database, lists, AUDIT, audit_retention)
        self.uploads = Uploads(database, self.vault)
        own = Secret(OWN_SECRET, provenance_secret(database))
        keyed = Provenance([*provenance, own])
        self.runs = Runs(database, self.vault, lists, Allowance(quotas or Quotas()), keyed)
        self.origins = Origins(database, keyed)

    @classmethod
    def from_settings(cls, settings: TrainerSettings, watch: Watch | None = None) -> Trainer:
        """The Trainer that the environment describes.

        Args:
            settings: Of the environment.
            watch: Is told how long database and store take.

        Raises:
            WrongRevision, Unavailable, InvalidArgument: it cannot work like that.
        """
        url = settings.database_url.get_secret_value()
        database = Database(url, settings.threads, watch=watch)
        try:
            store = settings.store(MAX_BLOB_BYTES)
            return cls(
                database,
                store if watch is None else WatchedBlobs(store, watch),
                Quotas(settings.quota_file),
                audit_retention=settings.audit_retention,
                provenance=read_secrets(settings.provenance_keys.get_secret_value()),
            )
        except BaseException:
            database.close()
            raise

    def check(self) -> None:
        """Readiness.

        Raises:
            PerfuseError: database or store cannot be asked.
        """
        self.database.check()
        SCHEMA.require_revision(self.database)
        self.vault.blobs.check()

    def close(self) -> None:
        """Close every connection."""
        self.database.close()
