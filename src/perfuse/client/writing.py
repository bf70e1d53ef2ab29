"""From what callers say to messages; short ids become names of the caller's tenant."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from perfuse.client import rendering, training
from perfuse.client.records import ConsentScope
from perfuse.errors import FailedPrecondition, InvalidArgument, NotFound
from perfuse.names import (
    LATEST,
    AliasName,
    BaseModelName,
    ConceptName,
    ConsentName,
    GrantName,
    ImageSetName,
    TrainingRunName,
    VersionName,
)
from perfuse.v1 import consent_pb2, registry_pb2, renderer_pb2, trainer_pb2


class Names:
    """Names as callers write them, short or whole.

    Args:
        tenant: whose are meant by short ones; may be empty where all are whole.
    """

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant

    @property
    def tenant(self) -> str:
        """The caller's.

        Raises:
            FailedPrecondition: it is not known.
        """
        if not self._tenant:
            raise FailedPrecondition(
                "whose names are meant is not known: set PERFUSE_TENANT or `tenant` in the "
                "configuration to the token's tenant, or write whole names (tenants/...)"
            )
        return self._tenant

    @property
    def parent(self) -> str:
        """`tenants/{tenant}`."""
        return f"tenants/{self.tenant}"

    def concept(self, said: str) -> ConceptName:
        """`tom`, or `tenants/{tenant}/concepts/tom`."""
        if "/" in said:
            return ConceptName.parse(said, "concept")
        return ConceptName.parse(f"{self.parent}/concepts/{said}", "concept")

    def version(self, said: str) -> VersionName:
        """`tom` (its latest), `tom@prod`, `tom@7`, or `tenants/.../versions/7`."""
        if "/" in said and "@" not in said:
            return VersionName.parse(said, "version")
        concept, _, version = said.partition("@")
        name = self.concept(concept).version(version or LATEST)
        return VersionName.parse(str(name), "version")

    def alias(self, concept: str, alias: str = "") -> AliasName:
        """`("tom", "prod")`, or the whole name alone."""
        if not alias:
            return AliasName.parse(concept, "alias")
        return AliasName.parse(str(self.concept(concept).alias(alias)), "alias")

    def consent(self, concept: str, consent: str = "") -> ConsentName:
        """A consent of a concept, or its whole name alone."""
        if not consent:
            return ConsentName.parse(concept, "consent")
        return self.concept(concept).consent(consent)

    def grant(self, concept: str, grantee: str = "") -> GrantName:
        """`("tom", "globex")`, or the whole name alone."""
        if not grantee:
            return GrantName.parse(concept, "grant")
        return GrantName.parse(str(self.concept(concept).grant(grantee)), "grant")

    def base_model(self, said: str) -> BaseModelName:
        """`toybox`, or `baseModels/toybox`."""
        return BaseModelName.parse(said if "/" in said else f"baseModels/{said}", "base_model")

    def image_set(self, said: str) -> ImageSetName:
        """The id, or the whole name."""
        whole = said if "/" in said else f"{self.parent}/imageSets/{said}"
        return ImageSetName.parse(whole, "image_set")

    def training_run(self, said: str) -> TrainingRunName:
        """The id, or the whole name."""
        whole = said if "/" in said else f"{self.parent}/trainingRuns/{said}"
        return TrainingRunName.parse(whole, "training_run")


def request_id_or_new(given: str) -> str:
    """A request's id: the caller's own, or a new one. With it a call can safely be repeated."""
    return given or str(uuid.uuid4())


def file_bytes(said: bytes | str | Path) -> bytes:
    """Bytes as they are, or a file's.

    Raises:
        NotFound: there is no such file.
    """
    if isinstance(said, bytes):
        return said
    try:
        return Path(said).read_bytes()
    except OSError as error:
        raise NotFound(f"{said} cannot be read: {error.strerror}") from error


def key_lock(said: str) -> Any:
    """How keys are locked while training.

    Raises:
        InvalidArgument: not LOCAL or TRAINED_K.
    """
    return _enum(registry_pb2.KeyLock, "KEY_LOCK_", "key_lock", said)


def grant_access(said: str) -> Any:
    """What a grant is to allow.

    Raises:
        InvalidArgument: not RENDER or READ.
    """
    return _enum(registry_pb2.GrantAccess, "GRANT_ACCESS_", "access", said)


def training_settings(said: training.TrainingSettings) -> trainer_pb2.TrainingSettings:
    """How a run is to be trained."""
    previews = said.previews
    message = trainer_pb2.TrainingSettings(
        seed=said.seed,
        mask_source=_enum(trainer_pb2.MaskSource, "MASK_SOURCE_", "mask_source", said.mask_source),
        exclusive=said.exclusive,
    )
    _set(
        message,
        said,
        *("steps", "batch", "validate_every", "patience", "flip", "output_rate"),
        *("embedding_rate", "bias", "temperature", "render_bias", "render_temperature"),
    )
    if previews is not None:
        message.previews.prompts.extend(previews.prompts)
        message.previews.SetInParent()
        _set(message.previews, previews, "every", "steps", "guidance")
    return message


def render_settings(said: rendering.RenderSettings, names: Names) -> renderer_pb2.RenderSettings:
    """What is to be rendered."""
    message = renderer_pb2.RenderSettings(
        base_model=str(names.base_model(said.base_model)) if said.base_model else "",
        prompt=said.prompt,
        negative_prompt=said.negative_prompt,
        key_lock=_enum(
            renderer_pb2.RenderLock, "RENDER_LOCK_", "key_lock", said.key_lock or "UNSPECIFIED"
        ),
        seeds=said.seeds,
        scheduler=said.scheduler,
        format=_enum(renderer_pb2.PictureFormat, "PICTURE_FORMAT_", "format", said.format),
    )
    if said.count is not None:
        message.image_count = said.count
    if said.chunk_long_prompts:
        message.long_prompt = renderer_pb2.LONG_PROMPT_CHUNK
    _set(message, said, "width", "height", "steps", "guidance")
    for placeholder, concept in said.concepts.items():
        one = message.concepts.add(placeholder=placeholder.strip("<>"))
        _set(one, concept, "bias", "temperature", "version")
    return message


def _set(message: Any, said: object, *names: str) -> None:
    """Set the fields that were said at all."""
    for name in names:
        value = getattr(said, name)
        if value is not None:
            try:
                setattr(message, name, value)
            except (TypeError, ValueError) as error:
                raise InvalidArgument.in_field(
                    name, f"{value!r} is not what the field takes ({error})"
                ) from error


def _enum(kind: Any, prefix: str, field: str, value: str) -> Any:
    try:
        return kind.Value(prefix + value)
    except ValueError:
        allowed = [name.removeprefix(prefix) for name in kind.keys()[1:]]
        raise InvalidArgument.in_field(
            field, f"{value!r} is not one of {', '.join(allowed)}; write one of them"
        ) from None


def consent_scopes(scopes: Sequence[ConsentScope]) -> list[consent_pb2.ConsentScope]:
    """To what a person consents."""
    return [consent_pb2.ConsentScope.Value(f"CONSENT_SCOPE_{scope}") for scope in scopes]


def timestamp(field: str, moment: datetime | None) -> Timestamp | None:
    """A moment.

    Raises:
        InvalidArgument: it has no time zone.
    """
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise InvalidArgument.in_field(field, f"{moment} has no time zone; give it one")
    told = Timestamp()
    told.FromDatetime(moment)
    return told
