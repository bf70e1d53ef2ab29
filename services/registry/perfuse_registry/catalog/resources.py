"""What the rules return: resources as plain values, each with a text form for replays."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from perfuse.names import AliasName, BaseModelName, ConceptName, ConsentName, GrantName, VersionName


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """A concept; `latest_number` is None while it has no versions.

    Attributes:
        likeness: Whether it is of a living person.
        train_until, render_until: Until when the uses of a likeness are consented to; None where
            they are not, and where nobody looked.
    """

    tenant: str
    concept_id: str
    uid: str
    display_name: str
    super_category: str
    description: str
    labels: dict[str, str]
    latest_number: int | None
    revision: int
    create_time: datetime
    update_time: datetime
    delete_time: datetime | None = None
    purge_time: datetime | None = None
    likeness: bool = False
    train_until: datetime | None = None
    render_until: datetime | None = None

    @property
    def name(self) -> ConceptName:
        """Its resource name."""
        return ConceptName(self.tenant, self.concept_id)

    @property
    def etag(self) -> str:
        """Changes with every change; see `etag_of`."""
        return etag_of(self.uid, self.revision)


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture that a version brought with it.

    Attributes:
        digest: Of its file.
        size_bytes: Length of its file.
        media_type: `image/png`, `image/jpeg` or `image/webp`.
        width, height: In pixels.
        step: Training steps after which it was drawn.
        caption: What was asked for.
    """

    digest: str
    size_bytes: int
    media_type: str
    width: int
    height: int
    step: int
    caption: str


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """How far a training was after `step` steps; None for what was not looked at then."""

    step: int
    validation_loss: float | None = None
    similarity: float | None = None


@dataclass(frozen=True, slots=True)
class Attachments:
    """What a version brought with its adapter: previews in their order, and the curve by step."""

    previews: tuple[Preview, ...] = ()
    curve: tuple[CurvePoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Version:
    """A version; `number` is 0 where an upload was only judged.

    Rows give their values in the order of these fields, but for the last two.

    Attributes:
        likeness: Whether its concept is of a living person.
        attachment_bytes: Of what it brought with its adapter; 0 where that is nothing.
        attachments: That; empty where nobody looked.
        render_until: Until when rendering a likeness is consented to; None where it is not, and
            where nobody looked.
    """

    tenant: str
    concept_id: str
    number: int
    uid: str
    digest: str
    size_bytes: int
    base_model_id: str
    fingerprint: str
    key_lock: str
    placeholder: str
    super_category: str
    bias: float
    temperature: float
    training: dict[str, str]
    training_run: str
    description: str
    labels: dict[str, str]
    revision: int
    create_time: datetime
    update_time: datetime
    likeness: bool = False
    attachment_bytes: int = 0
    attachments: Attachments = Attachments()
    render_until: datetime | None = None

    @property
    def name(self) -> VersionName:
        """Its resource name, by number."""
        return VersionName(self.tenant, self.concept_id, str(self.number))

    @property
    def etag(self) -> str:
        """Changes with every change; see `etag_of`."""
        return etag_of(self.uid, self.revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """An alias and the number that it points at."""

    tenant: str
    concept_id: str
    alias_id: str
    uid: str
    number: int
    revision: int
    create_time: datetime
    update_time: datetime

    @property
    def name(self) -> AliasName:
        """Its resource name."""
        return AliasName(self.tenant, self.concept_id, self.alias_id)

    @property
    def version(self) -> VersionName:
        """The version that it points at."""
        return VersionName(self.tenant, self.concept_id, str(self.number))

    @property
    def etag(self) -> str:
        """Changes with every move; see `etag_of`."""
        return etag_of(self.uid, self.revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasMove:
    """One line of an alias's history; None stands for before its creation or after its end."""

    from_number: int | None
    to_number: int | None
    mover: str
    move_time: datetime


class Scope(StrEnum):
    """A use of a likeness that can be consented to."""

    TRAIN = "TRAIN"
    RENDER = "RENDER"


class Access(StrEnum):
    """What a tenant may do with a concept: everything, or read it, or render with it."""

    OWN = "OWN"
    READ = "READ"
    RENDER = "RENDER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """A person's consent to the use of a likeness; `revoke_time` is None while it stands."""

    tenant: str
    concept_id: str
    consent_id: str
    uid: str
    giver: str = field(repr=False)
    train: bool
    render: bool
    start_time: datetime
    expire_time: datetime
    recorder: str
    create_time: datetime
    revoke_time: datetime | None = None
    revoker: str = ""

    @property
    def name(self) -> ConsentName:
        """Its resource name."""
        return ConsentName(self.tenant, self.concept_id, self.consent_id)

    @property
    def etag(self) -> str:
        """Changes with its revocation; see `etag_of`."""
        return etag_of(self.uid, 1 if self.revoke_time is None else 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What another tenant may do with a concept; `access` is READ or RENDER."""

    tenant: str
    concept_id: str
    grantee: str
    access: Access
    super_category: str
    uid: str
    create_time: datetime

    @property
    def name(self) -> GrantName:
        """Its resource name."""
        return GrantName(self.tenant, self.concept_id, self.grantee)

    @property
    def etag(self) -> str:
        """Of this grant alone; see `etag_of`."""
        return etag_of(self.uid, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """A base model as the Registry knows it: names and widths, no weights."""

    base_model_id: str
    uid: str
    display_name: str
    fingerprint: str
    architecture: str
    conditioning_width: int
    layers: tuple[tuple[str, int], ...]
    encoders: tuple[tuple[str, int], ...]
    covariance_digest: str
    revision: int
    create_time: datetime
    update_time: datetime
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> BaseModelName:
        """Its resource name."""
        return BaseModelName(self.base_model_id)

    @property
    def etag(self) -> str:
        """Changes when the base model does; see `etag_of`."""
        return etag_of(self.uid, self.revision)


def etag_of(uid: str, revision: int) -> str:
    """The etag of a resource: a name's later holder never has an earlier one's (AIP-154)."""
    return f'"{uid[:8]}-{revision}"'
