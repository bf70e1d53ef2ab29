"""What the environment says about the Registry: `PERFUSE_REGISTRY_*`, all of it in operating.md."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from perfuse.adapter.limits import MAX_FILE_BYTES
from perfuse.storage.blobs import BlobStore
from perfuse.storage.settings import StorageSettings
from perfuse_registry.failpoints import reach


class RegistrySettings(StorageSettings):
    """Settings of the Registry, beside those of every service that keeps things.

    Attributes:
        workers: Processes that share the address; each with its own threads and connections.
        concept_retention_days: How long a deleted concept can be undeleted.
        garbage_grace_hours: Before bytes that nothing refers to are condemned, and again before
            they are removed; longer than backups of the database are kept.
        request_retention_hours: How long a `request_id` is remembered.
        lease_minutes: How long an upload may take.
        adapter_megabytes: Of adapters that each worker keeps in memory; 0 keeps none.
        quota_file: What tenants may keep, see `perfuse.quotas`; None limits nothing.
    """

    model_config = SettingsConfigDict(
        env_prefix="PERFUSE_REGISTRY_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    bind: str = "127.0.0.1:7071"
    database_url: SecretStr = SecretStr("sqlite:///registry.db")
    workers: int = Field(default=1, ge=1, le=64)
    concept_retention_days: float = Field(default=30.0, ge=0)
    garbage_grace_hours: float = Field(default=48.0, ge=0)
    request_retention_hours: float = Field(default=48.0, ge=24)
    # A lease that ends too early costs an upload, never bytes, so that any length may be set.
    lease_minutes: float = Field(default=60.0, gt=0)
    adapter_megabytes: int = Field(default=32, ge=0)
    quota_file: Path | None = None

    def blobs(self) -> BlobStore:
        """Where adapters are; see `StorageSettings.store`."""
        return self.store(MAX_FILE_BYTES, reach)

    @property
    def concept_retention(self) -> timedelta:
        """As a duration, like those below."""
        return timedelta(days=self.concept_retention_days)

    @property
    def garbage_grace(self) -> timedelta:
        """See `garbage_grace_hours`."""
        return timedelta(hours=self.garbage_grace_hours)

    @property
    def request_retention(self) -> timedelta:
        """See `request_retention_hours`."""
        return timedelta(hours=self.request_retention_hours)

    @property
    def lease(self) -> timedelta:
        """See `lease_minutes`."""
        return timedelta(minutes=self.lease_minutes)

    @property
    def cache_bytes(self) -> int:
        """See `adapter_megabytes`."""
        return self.adapter_megabytes << 20
