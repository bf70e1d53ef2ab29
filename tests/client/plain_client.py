"""A client that knows nothing of Perfuse but what its servers say through reflection.

    python plain_client.py REGISTRY TRAINER RENDERER TENANT TOKEN FOLDER

Makes a concept, has it learned from the pictures in FOLDER, and renders it; run by a test as a
process of its own, in which the package `perfuse` is never loaded.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)


class Service:
    """One service, as its server describes it."""

    def __init__(self, target: str, name: str, token: str) -> None:
        self._channel = grpc.insecure_channel(target)
        database = ProtoReflectionDescriptorDatabase(self._channel)
        assert f"perfuse.v1.{name}" in database.get_services()
        pool = DescriptorPool(database)
        self._service = pool.FindServiceByName(f"perfuse.v1.{name}")
        self._pool = pool
        self._metadata = (("authorization", f"Bearer {token}"),)

    def message(self, name: str, /, **fields: Any) -> Any:
        """A message of the API."""
        kind = GetMessageClass(self._pool.FindMessageTypeByName(f"perfuse.v1.{name}"))
        return kind(**fields)

    def call(self, method: str, request: Any) -> Any:
        """Call a method: a message or an iterator of them in, a message or an iterator out."""
        about = self._service.FindMethodByName(method)
        kinds = {
            (False, False): self._channel.unary_unary,
            (False, True): self._channel.unary_stream,
            (True, False): self._channel.stream_unary,
        }
        made = kinds[about.client_streaming, about.server_streaming](
            f"/{self._service.full_name}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(about.output_type).FromString,
        )
        return made(request, metadata=self._metadata, timeout=120)


def main() -> None:
    """The three calls."""
    registry_at, trainer_at, renderer_at, tenant, token, folder = sys.argv[1:]
    registry = Service(registry_at, "RegistryService", token)
    trainer = Service(trainer_at, "TrainerService", token)
    renderer = Service(renderer_at, "RendererService", token)
    parent = f"tenants/{tenant}"
    concept = registry.message("Concept", super_category="cat")
    made = registry.message(
        "CreateConceptRequest", parent=parent, concept_id="plain-stub", concept=concept
    )
    concept = registry.call("CreateConcept", made)
    images = trainer.call("CreateImageSet", trainer.message("CreateImageSetRequest", parent=parent))

    def parts() -> Iterator[Any]:
        yield trainer.message("UploadImagesRequest", image_set=images.name)
        for path in sorted(Path(folder).glob("*.png")):
            data = path.read_bytes()
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            header = trainer.message(
                "ImageHeader", file_name=path.name, digest=digest, size_bytes=len(data)
            )
            yield trainer.message("UploadImagesRequest", header=header)
            yield trainer.message("UploadImagesRequest", chunk=data)

    trainer.call("UploadImages", parts())
    settings = trainer.message("TrainingSettings", steps=2, batch=1)
    run = trainer.message(
        "TrainingRun", concept=concept.name, image_set=images.name, settings=settings
    )
    made = trainer.message("CreateTrainingRunRequest", parent=parent, training_run=run)
    run = trainer.call("CreateTrainingRun", made)
    watch = trainer.message("WatchTrainingRunRequest", name=run.name)
    *_, last = trainer.call("WatchTrainingRun", watch)
    assert last.state_change.version == f"{concept.name}/versions/1", last
    wanted = renderer.message("RenderSettings", prompt="a <plain-stub> in the snow", steps=2)
    asked = renderer.message("GenerateImagesRequest", settings=wanted)
    (image,) = renderer.call("GenerateImages", asked).images
    assert image.picture.startswith(b"\x89PNG")
    assert image.record.concepts[0].version == last.state_change.version
    assert "perfuse" not in sys.modules
    print(last.state_change.version)


if __name__ == "__main__":
    main()
