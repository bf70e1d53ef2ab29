"""What the environment says of a service's storage."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from perfuse.errors import FailedPrecondition
from perfuse.serving.settings import ServingSettings
from perfuse.storage.append_only import KEPT_DAYS
from perfuse.storage.blobs import BlobStore
from perfuse.storage.blobs_directory import DirectoryBlobs
from perfuse.storage.blobs_s3 import S3Blobs


class StorageSettings(ServingSettings):
    """Settings of a service with a database and blobs, beside those of every service.

    Attributes:
        database_url: `sqlite:////path/file.db` or `postgresql://user:password@host/database`.
        blob_directory: Where blobs are stored on this machine; instead of it, a bucket:
        s3_endpoint: `https://host:port` of an S3-compatible store.
        s3_bucket: Its bucket, which exists and is this service's alone.
        s3_access_key, s3_secret_key: Credentials.
        s3_region: For signatures.
        audit_retention_days: How long who did what is kept.
    """

    database_url: SecretStr
    blob_directory: Path | None = None
    s3_endpoint: str | None = None
    s3_bucket: str | None = None
    s3_access_key: SecretStr = SecretStr("")
    s3_secret_key: SecretStr = SecretStr("")
    s3_region: str = "us-east-1"
    audit_retention_days: float = Field(default=400.0, ge=KEPT_DAYS)

    @model_validator(mode="after")
    def _has_one_store(self) -> Self:
        bucket = self.s3_endpoint is not None and self.s3_bucket is not None
        if bucket == (self.blob_directory is not None):
            prefix = self.model_config.get("env_prefix", "")
            raise FailedPrecondition(
                f"blobs need one place: set {prefix}BLOB_DIRECTORY, or {prefix}S3_ENDPOINT and "
                f"{prefix}S3_BUCKET, and not both"
            )
        return self

    @property
    def audit_retention(self) -> timedelta:
        """See `audit_retention_days`."""
        return timedelta(days=self.audit_retention_days)

    def store(self, max_bytes: int, reach: Callable[[str], None] = lambda name: None) -> BlobStore:
        """The store that the settings name.

        Args:
            max_bytes: of one blob.
            reach: told the moments of a put, for tests.

        Raises:
            Unavailable, InvalidArgument: it cannot be used.
        """
        if self.blob_directory is not None:
            return DirectoryBlobs(self.blob_directory, max_bytes=max_bytes, reach=reach)
        return S3Blobs(
            self.s3_endpoint or "",
            self.s3_bucket or "",
            access_key=self.s3_access_key.get_secret_value(),
            secret_key=self.s3_secret_key.get_secret_value(),
            region=self.s3_region,
            connections=self.threads,
            max_bytes=max_bytes,
        )
