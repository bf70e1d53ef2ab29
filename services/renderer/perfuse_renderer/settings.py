"""What the environment says about the Renderer: `PERFUSE_RENDERER_*`, all of it in operating.md."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import grpc
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import SettingsConfigDict

from perfuse.errors import FailedPrecondition
from perfuse.names import check_id
from perfuse.serving.neighbours import channel_credentials
from perfuse.serving.settings import ServingSettings


class RendererSettings(ServingSettings):
    """Settings of the Renderer, beside those of every service.

    Attributes:
        base_models: `id=directory` pairs with commas between, as `toybox=/models/toybox`; each
            prepared by `perfuse base prepare`.
        registry: `host:port` of the Registry.
        registry_ca: PEM file that vouches for it; needed beyond loopback.
        registry_cert, registry_key: PEM files of the Renderer's own certificate, for a Registry
            that asks for one.
        registry_token: a token of the Registry's with the role `custodian`, with which adapters are
            fetched that are shared for rendering alone; empty where none are to be rendered.
        quota_file: how much tenants may render in a minute, see `perfuse.quotas`; None limits
            nothing.
        device: `cpu`, `cuda`, `cuda:1`, ...
        dtype: of the weights.
        guidance: where a request says none.
        max_lanes: rows of the denoiser's batch; a picture with guidance takes two.
        compile: compile the denoiser while starting, for pictures of the base model's own size;
            takes minutes, and a C++ compiler on a CPU. Other sizes are rendered without.
        max_waiting: pictures in the queue, everyone's.
        max_waiting_of_tenant: pictures in the queue, one tenant's.
        adapter_directory: where adapters are kept on disk; None for memory alone.
        audit_file: where who rendered what is recorded; None for the log.
        adapter_megabytes: of adapters in memory.
        plan_megabytes: of plans in memory; an eighth as much again of text encodings, and of
            concepts made ready for planning.
        backend: `local` steps rows in this process; `serve` in replicas that Ray Serve runs, each
            a process of its own.
        ray_address: of a running cluster, as `auto` or `host:port`; None starts Ray here, and ends
            it with this process.
        replicas_min, replicas_max: of each base model.
        replica_renders: at work in a replica on average, above which another one is started.
        replica_cpus, replica_gpus: that Ray sets aside for a replica; GPUs only where `device` is
            `cuda`, and less than 1 where replicas share one.
        replica_wait_seconds: that a render waits for a replica to take it in.
        longest_render_seconds: that a replica which is to end may take for its renders.
        object_store_megabytes: of Ray's object store, where Ray is started here; half of it is for
            plans on their way.
    """

    model_config = SettingsConfigDict(
        env_prefix="PERFUSE_RENDERER_", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    bind: str = "127.0.0.1:7073"
    base_models: str = ""
    registry: str = "127.0.0.1:7071"
    registry_ca: Path | None = None
    registry_cert: Path | None = None
    registry_key: Path | None = None
    registry_token: SecretStr = SecretStr("")
    quota_file: Path | None = None
    device: str = "cpu"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    guidance: float = Field(default=7.5, ge=0, le=50)
    max_lanes: int = Field(default=16, ge=2, le=256)
    compile: bool = False
    max_waiting: int = Field(default=1024, ge=1)
    max_waiting_of_tenant: int = Field(default=256, ge=1)
    adapter_directory: Path | None = None
    audit_file: Path | None = None
    adapter_megabytes: int = Field(default=256, ge=1)
    plan_megabytes: int = Field(default=1024, ge=1)
    backend: Literal["local", "serve"] = "local"
    ray_address: str | None = None
    replicas_min: int = Field(default=1, ge=1)
    replicas_max: int = Field(default=1, ge=1)
    replica_renders: float = Field(default=8.0, gt=0)
    replica_cpus: float = Field(default=1.0, ge=0)
    replica_gpus: float = Field(default=1.0, gt=0)
    replica_wait_seconds: float = Field(default=30.0, gt=0)
    longest_render_seconds: float = Field(default=600.0, ge=0)
    object_store_megabytes: int = Field(default=512, ge=80)

    @model_validator(mode="after")
    def _suits_ray(self) -> Self:
        if self.backend == "local":
            return self
        if self.replicas_max < self.replicas_min:
            raise FailedPrecondition(
                f"PERFUSE_RENDERER_REPLICAS_MAX is {self.replicas_max}, fewer than "
                f"PERFUSE_RENDERER_REPLICAS_MIN, {self.replicas_min}; raise it"
            )
        if self.device not in ("cpu", "cuda"):
            raise FailedPrecondition(
                f"PERFUSE_RENDERER_DEVICE is {self.device!r}, but Ray chooses each replica's "
                "device; set it to cpu or cuda"
            )
        if self.ray_address is not None and "://" in self.ray_address:
            raise FailedPrecondition(
                "PERFUSE_RENDERER_RAY_ADDRESS is of Ray's client, through which nothing can be "
                "streamed. Run `ray start --address=HEAD --num-cpus=0` beside the Renderer, and "
                "set it to auto"
            )
        return self

    def base_directories(self) -> dict[str, Path]:
        """`baseModels/{id}` → directory.

        Raises:
            FailedPrecondition: none is named, or not as it should be.
        """
        found: dict[str, Path] = {}
        for entry in filter(None, (part.strip() for part in self.base_models.split(","))):
            base_id, _, directory = entry.partition("=")
            if not directory:
                raise FailedPrecondition(
                    f"PERFUSE_RENDERER_BASE_MODELS has {entry!r}; write id=directory"
                )
            check_id("PERFUSE_RENDERER_BASE_MODELS", base_id)
            found[f"baseModels/{base_id}"] = Path(directory)
        if not found:
            raise FailedPrecondition(
                "there is nothing to render on: set PERFUSE_RENDERER_BASE_MODELS to id=directory"
            )
        return found

    def registry_custody(self) -> str:
        """The Renderer's own credential as metadata carries it; empty for none."""
        token = self.registry_token.get_secret_value()
        return f"Bearer {token}" if token else ""

    def registry_credentials(self) -> grpc.ChannelCredentials | None:
        """The credentials of the channel to the Registry; None for plain text on loopback.

        Raises:
            FailedPrecondition: the Registry is elsewhere, and nothing vouches for it.
        """
        return channel_credentials(
            "PERFUSE_RENDERER_",
            self.registry,
            self.registry_ca,
            self.registry_cert,
            self.registry_key,
        )
