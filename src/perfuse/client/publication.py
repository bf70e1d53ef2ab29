"""What a Trainer publishes: an adapter with all that came of its training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from perfuse.adapter.header import digest as digest_of
from perfuse.client.attachments import CurvePoint, attach
from perfuse.names import ConceptName, TrainingRunName
from perfuse.v1 import registry_pb2 as wire


@dataclass(frozen=True, slots=True)
class Publication:
    """An adapter to be made a version.

    Attributes:
        concept: whose version it becomes.
        adapter: the file's bytes.
        training_run: that it came from.
        request_id: under which it is published once, however often it is tried.
        previews: file, step and caption of each picture that becomes part of it.
        curve: of the training, by step; becomes part of it.
    """

    concept: ConceptName
    adapter: bytes
    training_run: TrainingRunName
    request_id: str
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    previews: Sequence[tuple[bytes, int, str]] = ()
    curve: Sequence[CurvePoint] = ()

    def request(self) -> wire.CreateVersionRequest:
        """That publishes it."""
        request = wire.CreateVersionRequest(
            parent=str(self.concept),
            adapter=self.adapter,
            digest=digest_of(self.adapter),
            version=wire.Version(
                training_run=str(self.training_run),
                description=self.description,
                labels=self.labels,
            ),
            request_id=self.request_id,
        )
        attach(request, self.previews, self.curve)
        return request
