"""The client: the three services under one roof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from perfuse.client._sync.aliases import Aliases
from perfuse.client._sync.audit import Audit
from perfuse.client._sync.base_models import BaseModels
from perfuse.client._sync.calls import Calls
from perfuse.client._sync.concepts import Concepts
from perfuse.client._sync.consents import Consents
from perfuse.client._sync.erasures import Erasures
from perfuse.client._sync.grants import Grants
from perfuse.client._sync.image_sets import ImageSets
from perfuse.client._sync.renderer import RENDER_SECONDS, Renderer
from perfuse.client._sync.training_runs import TrainingRuns
from perfuse.client._sync.usage import Usage
from perfuse.client._sync.versions import Versions
from perfuse.client.connection import Connection
from perfuse.client.rendering import RenderedImage, RenderSettings
from perfuse.client.resources import StoredLock
from perfuse.client.training import TrainingRun, TrainingSettings
from perfuse.client.uploads import Picture
from perfuse.errors import AlreadyExists, FailedPrecondition

TIMEOUT = 10.0


class Client:
    """Calls to the Registry, the Trainer and the Renderer, as one caller.

    Args:
        connection: where to and as whom; by default `Connection.find()`.
        timeout: seconds for a call that says nothing else, repetitions included.

    Attributes:
        connection: as given or found.
        concepts, versions, aliases, grants, consents, erasures, base_models: of the Registry.
        audit: who did what, of Registry and Trainer.
        image_sets, training_runs: of the Trainer.
        renderer: the Renderer.
        usage: what the tenant uses of its quotas.

    Raises:
        InvalidArgument, NotFound: as `Connection.find` says.
    """

    def __init__(self, connection: Connection | None = None, *, timeout: float = TIMEOUT) -> None:
        self.connection = connection or Connection.find()
        self._calls = Calls(self.connection, timeout)
        self.concepts = Concepts(self._calls)
        self.versions = Versions(self._calls)
        self.aliases = Aliases(self._calls)
        self.grants = Grants(self._calls)
        self.consents = Consents(self._calls)
        self.erasures = Erasures(self._calls)
        self.audit = Audit(self._calls)
        self.base_models = BaseModels(self._calls)
        self.image_sets = ImageSets(self._calls)
        self.training_runs = TrainingRuns(self._calls)
        self.renderer = Renderer(self._calls)
        self.usage = Usage(self._calls)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; calls under way are cancelled."""
        self._calls.close()

    def train(
        self,
        concept: str,
        images: Sequence[str | Path | Picture],
        *,
        super_category: str,
        masks: Mapping[str, str | Path | bytes] | None = None,
        settings: TrainingSettings | None = None,
        key_lock: StoredLock = "LOCAL",
        base_model: str = "",
        description: str = "",
    ) -> TrainingRun:
        """Have a concept learned from pictures: made if it is new, pictures sent, a run queued.

        Args:
            concept: id or name.
            images: files, folders of files, or pictures in memory.
            super_category: the everyday noun that it is a kind of.
            masks: file name of a picture → its mask.
            settings: the paper's by default.
            key_lock: how keys are locked while training.
            base_model: empty where the Trainer has only one.
            description: of the version to come.

        Returns:
            The run, queued; `training_runs.watch` and `.wait` follow it.

        Raises:
            FailedPrecondition: there is such a concept of another super-category.
            PerfuseError: as the calls that it consists of.
        """
        try:
            self.concepts.create(concept, super_category=super_category)
        except AlreadyExists:
            found = self.concepts.get(concept)
            if found.super_category != super_category:
                raise FailedPrecondition(
                    f"{found.name} is a kind of {found.super_category}, not of "
                    f"{super_category}. Name its own super-category, or another concept"
                ) from None
        image_set = self.image_sets.create()
        self.image_sets.upload(image_set.name, images, masks)
        return self.training_runs.create(
            concept,
            image_set.name,
            settings=settings,
            key_lock=key_lock,
            base_model=base_model,
            description=description,
        )

    def render(
        self, prompt: str, *, timeout: float = RENDER_SECONDS, **settings: Any
    ) -> tuple[RenderedImage, ...]:
        """Pictures of a prompt that names concepts in place.

        Args:
            prompt: such as `a photo of <tom> wearing <shades@prod> in the snow`.
            timeout: seconds.
            settings: further fields of `RenderSettings`.

        Raises:
            PerfuseError: as `renderer.render`.
        """
        return self.renderer.render(RenderSettings(prompt=prompt, **settings), timeout=timeout)
