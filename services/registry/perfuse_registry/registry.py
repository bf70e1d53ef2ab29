"""The Registry as one object: its rules over one database and one blob store."""

from __future__ import annotations

from datetime import timedelta

from perfuse.quotas import Quotas
from perfuse.storage.audit import AuditTrail
from perfuse.storage.blobs import BlobStore
from perfuse.storage.database import Database
from perfuse.storage.listing import Lists
from perfuse.storage.paging import PageTokens
from perfuse.storage.watching import WatchedBlobs
from perfuse_registry.cached_blobs import CachedBlobs
from perfuse_registry.catalog.aliases import Aliases
from perfuse_registry.catalog.base_models import BaseModels
from perfuse_registry.catalog.checks import Checks
from perfuse_registry.catalog.concepts import Concepts
from perfuse_registry.catalog.consents import Consents
from perfuse_registry.catalog.erasures import Erasures
from perfuse_registry.catalog.grants import Grants
from perfuse_registry.catalog.requests import AUDIT
from perfuse_registry.catalog.usage import Usage
from perfuse_registry.catalog.versions import Versions
from perfuse_registry.erased_bytes import ErasedBytes
from perfuse_registry.garbage import Garbage
from perfuse_registry.integrity import Integrity
from perfuse_registry.measures import Measures
from perfuse_registry.schema import SCHEMA, page_token_key, receipt_key
from perfuse_registry.settings import RegistrySettings


class Registry:
    """Everything that a servicer or a command asks.

    Args:
        database: At this release's revision.
        blobs: Where adapters are.
        concept_retention, garbage_grace, request_retention, lease, audit_retention, cache_bytes:
            See `RegistrySettings`.
        quotas: What tenants may keep; by default as much as they like.
        measures: Counts what is done; its own by default, which nobody reads.

    Raises:
        WrongRevision: the database is at another revision.
    """

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        *,
        concept_retention: timedelta = timedelta(days=30),
        garbage_grace: timedelta = timedelta(days=2),
        request_retention: timedelta = timedelta(days=2),
        lease: timedelta = timedelta(hours=1),
        audit_retention: timedelta = timedelta(days=400),
        cache_bytes: int = 32 << 20,
        quotas: Quotas | None = None,
        measures: Measures | None = None,
    ) -> None:
        SCHEMA.require_revision(database)
        measures = measures or Measures()
        self._database = database
        self.cached = cached = CachedBlobs(blobs, cache_bytes)
        measures.tell_cache(cached)
        lists = Lists(database, PageTokens(page_token_key(database)))
        self.usage = Usage(database, quotas or Quotas())
        self.concepts = Concepts(database, lists, concept_retention, self.usage)
        self.erased_bytes = ErasedBytes(database, cached)
        self.versions = Versions(database, cached, lists, lease, self.usage, self.erased_bytes)
        self.erasures = Erasures(database, lists, self.erased_bytes, receipt_key(database))
        self.aliases = Aliases(database, lists)
        self.grants = Grants(database, lists)
        self.consents = Consents(database, lists)
        self.audit = AuditTrail(database, lists, AUDIT, audit_retention)
        self.base_models = BaseModels(database, lists)
        self.checks = Checks(self.versions, self.base_models)
        self.garbage = Garbage(
            database,
            cached,
            garbage_grace,
            lease,
            request_retention,
            on_run=measures.collection,
            forget_events=self.audit.forget,
            go_on_erasing=self.erased_bytes.go_on,
        )
        # Reads what the store has, and nothing from memory.
        self.integrity = Integrity(database, blobs)

    @classmethod
    def from_settings(
        cls, settings: RegistrySettings, measures: Measures | None = None
    ) -> Registry:
        """The Registry that the environment describes.

        Args:
            settings: Of the environment.
            measures: Counts what is done, and how long database and store take.

        Raises:
            WrongRevision, Unavailable, DataLoss, InvalidArgument: it cannot be served.
        """
        measures = measures or Measures()
        database = Database(
            settings.database_url.get_secret_value(), settings.threads, watch=measures.storage
        )
        try:
            measures.tell_tables(database)
            blobs = WatchedBlobs(settings.blobs(), measures.storage, measures.integrity_faults.inc)
            blobs.self_test()
            return cls(
                database,
                blobs,
                concept_retention=settings.concept_retention,
                garbage_grace=settings.garbage_grace,
                request_retention=settings.request_retention,
                lease=settings.lease,
                audit_retention=settings.audit_retention,
                cache_bytes=settings.cache_bytes,
                quotas=Quotas(settings.quota_file),
                measures=measures,
            )
        except BaseException:
            database.close()
            raise

    def check(self) -> None:
        """Readiness: return if database and store answer.

        Raises:
            Unavailable: one of them does not.
            WrongRevision: the database was migrated meanwhile.
        """
        self._database.check()
        SCHEMA.require_revision(self._database)
        self.cached.check()

    def expire(self) -> None:
        """Drop from memory what was kept for its time; to be called every few seconds."""
        self.cached.expire()

    def close(self) -> None:
        """Close every connection."""
        self._database.close()
