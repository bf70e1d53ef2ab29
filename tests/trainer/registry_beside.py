"""A real Registry beside a Trainer's tables: where runs are published, and what came of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from registry.processes import Place, ServerProcess, start
from registry.processes import _home as tokens_home

from perfuse.attach import BaseModel
from perfuse.serving.tokens import mint
from perfuse.v1 import registry_pb2 as wire


@dataclass
class RegistryBeside:
    """A Registry with the base model `tiny` and concepts of cats.

    Attributes:
        server: Its process.
        stub: To which everything is allowed.
        authorization: A delegate's.
        concepts: Ids of the tenant `acme`'s.
    """

    server: ServerProcess
    stub: Any
    authorization: str
    concepts: list[str]

    def versions(self, concept: str) -> list[wire.Version]:
        request = wire.ListVersionsRequest(parent=f"tenants/acme/concepts/{concept}")
        return list(self.stub.ListVersions(request).versions)

    def version(self, name: str) -> wire.Version:
        """With its previews and its curve."""
        found: wire.Version = self.stub.GetVersion(wire.GetVersionRequest(name=name))
        return found

    def adapter(self, version: str) -> bytes:
        request = wire.DownloadAdapterRequest(name=version)
        return bytes(self.stub.DownloadAdapter(request).adapter)

    def preview(self, version: str, digest: str) -> bytes:
        request = wire.DownloadPreviewRequest(name=version, digest=digest)
        return bytes(self.stub.DownloadPreview(request).picture)


@contextmanager
def registry_beside(place: Place, base: BaseModel, concepts: int = 4) -> Iterator[RegistryBeside]:
    """A Registry over a fresh place."""
    server = start(place)
    try:
        stub = server.stub()
        stub.CreateBaseModel(
            wire.CreateBaseModelRequest(
                base_model_id="tiny",
                base_model=wire.BaseModel(
                    fingerprint=base.fingerprint,
                    architecture=base.architecture,
                    conditioning_width=base.conditioning_width,
                    layers=[wire.Layer(name=each.name, width=each.width) for each in base.layers],
                    encoders=[
                        wire.Encoder(name=each.name, width=each.width) for each in base.encoders
                    ],
                ),
            )
        )
        names = [f"concept-{index}" for index in range(concepts)]
        for name in names:
            stub.CreateConcept(
                wire.CreateConceptRequest(
                    parent="tenants/acme",
                    concept_id=name,
                    concept=wire.Concept(super_category="cat"),
                )
            )
        token = mint(tokens_home() / "tokens", "platform", "trainer", ["delegate"])
        yield RegistryBeside(server, stub, f"Bearer {token}", names)
    finally:
        server.kill()
