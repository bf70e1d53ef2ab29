"""What the environment says about the Trainer: `PERFUSE_TRAINER_*`, all of it in operating.md."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

import grpc
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from perfuse.errors import FailedPrecondition
from perfuse.serving.neighbours import base_directories, channel_credentials
from perfuse.storage.settings import StorageSettings


class TrainerSettings(StorageSettings):
    """Settings of the Trainer, beside those of every service that keeps things.

    Attributes:
        base_models: `id=directory` pairs with commas between, as `toybox=/models/toybox`; each
            prepared by `perfuse base prepare`, and in the same place for every worker.
        registry: `host:port` of the Registry.
        registry_ca: PEM file that vouches for it; needed beyond loopback.
        registry_cert, registry_key: PEM files of the Trainer's own certificate, for a Registry that
            asks for one; where it knows the Trainer by it, no token is needed.
        registry_token: a token of the Registry's with the role `delegate`, to publish with.
        runner: where workers run: `local` processes on this machine, or `ray` actors.
        ray_address: of a Ray cluster; None starts one on this machine.
        workers: most at a time.
        pack: runs that a worker trains in one forward and backward pass.
        device: `cpu`, `cuda`, ...; of every worker.
        dtype: of the base models' weights; with `float64` a run in a pack gives the bytes of a run
            alone, since what packs round differently is lost in the rounding of the file.
        lease_seconds: how long a worker may be silent before its runs are taken from it.
        checkpoint_every: steps between checkpoints.
        max_faults: workers' deaths in a row without a new checkpoint, or base models that could not
            be loaded, with which a run fails.
        idle_seconds: how long a worker without runs keeps its base model loaded.
        stall_seconds: how long one step may take before its worker counts as hung, and ends.
        clipseg: directory of a CLIPSeg checkpoint, for masks.
        image_encoder: directory of a CLIP vision checkpoint, for the similarity curve.
        provenance_keys: secrets for keyed digests of pictures, see `provenance`.
        sweep_minutes: between two sweeps of what expired and what nothing refers to.
        orphan_hours: how old a file must be to be swept as nobody's.
        quota_file: how many runs tenants may have under way, see `perfuse.quotas`; in the same
            place for every worker. None limits nothing.
    """

    model_config = SettingsConfigDict(
        env_prefix="PERFUSE_TRAINER_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    bind: str = "127.0.0.1:7072"
    database_url: SecretStr = SecretStr("sqlite:///trainer.db")
    base_models: str = ""
    registry: str = "127.0.0.1:7071"
    registry_ca: Path | None = None
    registry_cert: Path | None = None
    registry_key: Path | None = None
    registry_token: SecretStr = SecretStr("")
    runner: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    workers: int = Field(default=1, ge=1, le=1024)
    pack: int = Field(default=4, ge=1, le=64)
    device: str = "cpu"
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    lease_seconds: float = Field(default=30.0, ge=1, le=3600)
    checkpoint_every: int = Field(default=50, ge=1)
    max_faults: int = Field(default=5, ge=1)
    idle_seconds: float = Field(default=300.0, ge=0)
    stall_seconds: float = Field(default=600.0, ge=1)
    clipseg: Path | None = None
    image_encoder: Path | None = None
    provenance_keys: SecretStr = SecretStr("")
    sweep_minutes: float = Field(default=10.0, gt=0)
    orphan_hours: float = Field(default=24.0, ge=1)
    quota_file: Path | None = None

    @property
    def lease(self) -> timedelta:
        """See `lease_seconds`."""
        return timedelta(seconds=self.lease_seconds)

    def secrets(self) -> dict[str, str]:
        """Variable of the environment → the secret, wherever it came from."""
        prefix = self.model_config.get("env_prefix", "")
        return {
            f"{prefix}{name.upper()}": value.get_secret_value()
            for name, value in self
            if isinstance(value, SecretStr)
        }

    def base_directories(self) -> dict[str, Path]:
        """Id of a base model → directory.

        Raises:
            FailedPrecondition: none is named, or not as it should be.
        """
        return base_directories("PERFUSE_TRAINER_BASE_MODELS", self.base_models)

    def registry_credentials(self) -> grpc.ChannelCredentials | None:
        """The credentials of the channel to the Registry; None for plain text on loopback.

        Raises:
            FailedPrecondition: the Registry is elsewhere, and nothing vouches for it.
        """
        return channel_credentials(
            "PERFUSE_TRAINER_",
            self.registry,
            self.registry_ca,
            self.registry_cert,
            self.registry_key,
        )

    def registry_authorization(self) -> str:
        """As metadata carries it; empty where a certificate is all there is.

        Raises:
            FailedPrecondition: there is neither.
        """
        token = self.registry_token.get_secret_value()
        if not token and self.registry_cert is not None:
            return ""
        if not token:
            raise FailedPrecondition(
                "runs could not be published: set PERFUSE_TRAINER_REGISTRY_TOKEN to a token that "
                "`perfuse-registry token platform --role delegate` made"
            )
        return f"Bearer {token}"
