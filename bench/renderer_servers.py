"""Registry and Renderer as processes, with some tenants' concepts, for what is measured by gRPC."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import grpc

from bench.registry_servers import TENANT, Registry, await_port, free_port, process, registry
from bench.renderer_bases import SUPER_CATEGORY, concept
from perfuse.adapter import Adapter, digest
from perfuse.attach import BaseModel
from perfuse.serving import mint
from perfuse.v1 import registry_pb2, renderer_pb2
from perfuse.v1.renderer_pb2_grpc import RendererServiceStub
from perfuse_toybox.base import DIRECTORY

CONCEPT = "pet"
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Services:
    """Both, running.

    Attributes:
        registry: the Registry, on SQLite with a directory.
        renderer: address of the Renderer; empty where there is none.
        metadata: tenant → what its calls carry.
        base: what both stand on, as this process has it.
    """

    registry: Registry
    renderer: str
    metadata: dict[str, Metadata]
    base: BaseModel


@contextmanager
def registry_of(base: BaseModel, folder: Path, versions: Mapping[str, int]) -> Iterator[Services]:
    """A Registry that knows `base`, and every tenant's concept `pet`.

    Args:
        base: the base model.
        folder: for databases, files and logs.
        versions: tenant → how many versions its concept has.
    """
    home = folder / "registry"
    with registry(home, f"sqlite:///{folder / 'registry.db'}", None, home / "adapters") as ours:
        metadata = {TENANT: ours.metadata}
        for tenant in versions:
            token = mint(home / "tokens", tenant, "bench", ["admin", "operator"])
            metadata[tenant] = (("authorization", f"Bearer {token}"),)
        services = Services(ours, "", metadata, base)
        with ours.stub() as stub:
            described = registry_pb2.BaseModel(
                fingerprint=base.fingerprint,
                architecture=base.architecture,
                conditioning_width=base.conditioning_width,
                layers=[registry_pb2.Layer(name=x.name, width=x.width) for x in base.layers],
                encoders=[registry_pb2.Encoder(name=x.name, width=x.width) for x in base.encoders],
            )
            stub.CreateBaseModel(
                registry_pb2.CreateBaseModelRequest(base_model_id="bench", base_model=described),
                metadata=ours.metadata,
            )
            seed = 0
            for tenant, count in versions.items():
                publish(services, stub, tenant, [concept(base, seed + n) for n in range(count)])
                seed += count
        yield services


def publish(services: Services, stub: Any, tenant: str, adapters: Sequence[Adapter]) -> None:
    """A tenant's concept `pet`, with a version for each adapter."""
    metadata = services.metadata[tenant]
    parent = f"tenants/{tenant}"
    request = registry_pb2.CreateConceptRequest(
        parent=parent,
        concept_id=CONCEPT,
        concept=registry_pb2.Concept(super_category=SUPER_CATEGORY),
    )
    stub.CreateConcept(request, metadata=metadata)
    for adapter in adapters:
        data = adapter.to_bytes()
        stub.CreateVersion(
            registry_pb2.CreateVersionRequest(
                parent=f"{parent}/concepts/{CONCEPT}", adapter=data, digest=digest(data)
            ),
            metadata=metadata,
        )


@contextmanager
def renderer_of(services: Services, folder: Path, threads: int) -> Iterator[Services]:
    """The Renderer on the toybox beside that Registry, as its settings have it by default.

    Args:
        services: the Registry.
        folder: for adapters and logs.
        threads: that torch may use.
    """
    port = free_port()
    settings = {
        "BIND": f"127.0.0.1:{port}",
        "BASE_MODELS": f"bench={DIRECTORY}",
        "REGISTRY": services.registry.target,
        "TOKEN_FILE": str(folder / "registry" / "tokens"),
        "ADAPTER_DIRECTORY": str(folder / "adapters"),
    }
    environment = {f"PERFUSE_RENDERER_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "perfuse_renderer", "serve"]
    log = folder / "renderer.log"
    with process(command, log, OMP_NUM_THREADS=str(threads), **environment):
        await_port(port, log)
        yield replace(services, renderer=f"127.0.0.1:{port}")


class Caller:
    """Calls to the Renderer, each for one picture of the base model's own size.

    Args:
        services: with a Renderer.
    """

    def __init__(self, services: Services) -> None:
        self._metadata = services.metadata
        self._channel: Any = grpc.aio.insecure_channel(services.renderer)
        self.stub: Any = RendererServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    def render(
        self, tenant: str, prompt: str, *, steps: int, images: int = 1, timeout: float | None = None
    ) -> Any:
        """A stream of `RenderResponse`."""
        request = renderer_pb2.RenderRequest(
            settings=renderer_pb2.RenderSettings(
                prompt=prompt, image_count=images, steps=steps, guidance=3.0
            )
        )
        return self.stub.Render(request, metadata=self._metadata[tenant], timeout=timeout)

    async def busy(self, tenant: str) -> int:
        """Pictures that the Renderer has, running or waiting."""
        request = renderer_pb2.GetRendererStatusRequest()
        status = await self.stub.GetRendererStatus(request, metadata=self._metadata[tenant])
        return int(status.running_count + status.waiting_count)
