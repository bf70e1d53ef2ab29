"""What the environment says about the Registry: `PERFUSE_REGISTRY_*`, all of it in operating.md."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from perfuse.errors import FailedPrecondition
from perfuse.serving.settings import ServingSettings
from perfuse_registry.blobs import BlobStore
from perfuse_registry.blobs_directory import DirectoryBlobs
from perfuse_registry.blobs_s3 import S3Blobs
from perfuse_registry.failpoints import reach


class RegistrySettings(ServingSettings):
    """Settings of the Registry, beside those of every service.

    Attributes:
        database_url: `sqlite:////path/registry.db` or `postgresql://user:password@host/database`.
        blob_directory: Where adapters are stored on this machine; instead of it, a bucket:
        s3_endpoint: `https://host:port` of an S3-compatible store.
        s3_bucket: Its bucket, which exists.
        s3_access_key, s3_secret_key: Credentials.
        s3_region: For signatures.
        concept_retention_days: How long a deleted concept can be undeleted.
        garbage_grace_hours: Before bytes that nothing refers to are condemned, and again before
            they are removed; longer than backups of the database are kept.
        request_retention_hours: How long a `request_id` is remembered.
        lease_minutes: How long an upload may take.
    """

    model_config = SettingsConfigDict(
        env_prefix="PERFUSE_REGISTRY_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    bind: str = "127.0.0.1:7071"
    database_url: SecretStr = SecretStr("sqlite:///registry.db")
    blob_directory: Path | None = None
    s3_endpoint: str | None = None
    s3_bucket: str | None = None
    s3_access_key: SecretStr = SecretStr("")
    s3_secret_key: SecretStr = SecretStr("")
    s3_region: str = "us-east-1"
    concept_retention_days: float = Field(default=30.0, ge=0)
    garbage_grace_hours: float = Field(default=48.0, ge=0)
    request_retention_hours: float = Field(default=48.0, ge=24)
    # A lease that ends too early costs an upload, never bytes, so that any length may be set.
    lease_minutes: float = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _has_one_store(self) -> Self:
        bucket = self.s3_endpoint is not None and self.s3_bucket is not None
        if bucket == (self.blob_directory is not None):
            raise FailedPrecondition(
                "adapters need one place: set PERFUSE_REGISTRY_BLOB_DIRECTORY, or "
                "PERFUSE_REGISTRY_S3_ENDPOINT and PERFUSE_REGISTRY_S3_BUCKET, and not both"
            )
        return self

    def blobs(self) -> BlobStore:
        """The store that the settings name.

        Raises:
            Unavailable, InvalidArgument: it cannot be used.
        """
        if self.blob_directory is not None:
            return DirectoryBlobs(self.blob_directory, reach=reach)
        return S3Blobs(
            self.s3_endpoint or "",
            self.s3_bucket or "",
            access_key=self.s3_access_key.get_secret_value(),
            secret_key=self.s3_secret_key.get_secret_value(),
            region=self.s3_region,
            connections=self.threads,
        )

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
