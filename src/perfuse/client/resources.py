"""What the Registry keeps, as callers see it. Nothing here is a protobuf message.

Times are aware datetimes in UTC; an absent time is None, an absent text is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from perfuse.client.attachments import CurvePoint, VersionPreview

StoredLock = Literal["LOCAL", "TRAINED_K"]
"""How an adapter's keys were locked in training."""

GrantAccess = Literal["RENDER", "READ"]
"""What another tenant may do with a concept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """One thing that is taught.

    Attributes:
        name: `tenants/{tenant}/concepts/{concept}`.
        uid: never reused, unlike the name.
        super_category: the everyday noun that it is a kind of.
        latest_version: name of the highest numbered version, empty while there is none.
        delete_time: when it was deleted; None where it is not.
        purge_time: from when on it cannot be undeleted.
        etag: changes with every update.
        likeness: whether it is of a living person, whose consent it then needs.
        train_consent_expire_time, render_consent_expire_time: until when the uses of a likeness are
            consented to; None where they are not, and in lists.
    """

    name: str
    uid: str
    super_category: str
    display_name: str = ""
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    latest_version: str = ""
    create_time: datetime | None = None
    update_time: datetime | None = None
    delete_time: datetime | None = None
    purge_time: datetime | None = None
    etag: str = ""
    likeness: bool = False
    train_consent_expire_time: datetime | None = None
    render_consent_expire_time: datetime | None = None

    @property
    def id(self) -> str:
        """The last part of the name, as prompts have it."""
        return self.name.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One immutable adapter of a concept.

    Attributes:
        name: `tenants/{tenant}/concepts/{concept}/versions/{number}`.
        digest: `sha256:` and hexadecimal digits, of the file.
        base_model: `baseModels/{id}` that it was trained on.
        base_model_fingerprint: of that base model.
        key_lock: of its training.
        placeholder: the word that stood for the concept in training.
        bias, temperature: of the gate, suggested for rendering.
        training: the adapter's own summary of its training.
        training_run: that it came from; empty for an upload.
        attachment_bytes: of previews and curve.
        previews: pictures that came with it, in the order of their making; lists leave them out.
        curve: how its training went, by step; lists leave it out.
    """

    name: str
    uid: str
    digest: str
    size_bytes: int
    base_model: str
    base_model_fingerprint: str
    key_lock: StoredLock
    placeholder: str
    super_category: str
    bias: float
    temperature: float
    training: Mapping[str, str] = field(default_factory=dict)
    training_run: str = ""
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    create_time: datetime | None = None
    update_time: datetime | None = None
    etag: str = ""
    likeness: bool = False
    render_consent_expire_time: datetime | None = None
    attachment_bytes: int = 0
    previews: tuple[VersionPreview, ...] = ()
    curve: tuple[CurvePoint, ...] = ()

    @property
    def number(self) -> int:
        """The last part of the name."""
        return int(self.name.rpartition("/")[2])

    @property
    def concept(self) -> str:
        """`tenants/{tenant}/concepts/{concept}`."""
        return self.name.rpartition("/versions/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A version with its bytes.

    Attributes:
        version: by number.
        adapter: the file, whose digest was compared; None where the caller named its digest and
            so has it already.
    """

    version: Version
    adapter: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A name that points at a version and can be moved.

    Attributes:
        name: `tenants/{tenant}/concepts/{concept}/aliases/{alias}`.
        version: name of the version, by number.
        etag: changes with every move; a move must bring it.
    """

    name: str
    uid: str
    version: str
    create_time: datetime | None = None
    update_time: datetime | None = None
    etag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasMove:
    """One move in an alias's history.

    Attributes:
        from_version: empty for its creation.
        to_version: empty for its deletion.
        mover: as the credential named the caller.
    """

    from_version: str
    to_version: str
    move_time: datetime | None
    mover: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """A concept that another tenant may use.

    Attributes:
        name: `tenants/{tenant}/concepts/{concept}/grants/{grantee}`.
        access: RENDER, or READ, which is more.
        super_category: the concept's.
        etag: of this grant; one made later under its name has another.
    """

    name: str
    uid: str
    access: GrantAccess
    super_category: str = ""
    create_time: datetime | None = None
    etag: str = ""

    @property
    def concept(self) -> str:
        """`tenants/{tenant}/concepts/{concept}`."""
        return self.name.rpartition("/grants/")[0]

    @property
    def grantee(self) -> str:
        """Id of the tenant that may use it."""
        return self.name.rpartition("/")[2]

    @property
    def placeholder(self) -> str:
        """As the grantee's prompts have it, without angle brackets: `acme/tom`."""
        _, owner, _, concept = self.concept.split("/")
        return f"{owner}/{concept}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """A frozen checkpoint that adapters stand on.

    Attributes:
        name: `baseModels/{id}`.
        fingerprint: `sha256:` and hexadecimal digits over its weights.
        architecture: family and width, such as `sd-768`.
        conditioning_width: of the encodings that projections see.
        layers: cross-attention layers in order, name → width.
        encoders: text encoders in order, name → width of their word embeddings.
        covariance_digest: of the prepared covariance, empty while none is known.
    """

    name: str
    fingerprint: str
    architecture: str
    conditioning_width: int
    layers: Mapping[str, int]
    encoders: Mapping[str, int]
    covariance_digest: str = ""
    display_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    uid: str = ""
    create_time: datetime | None = None
    update_time: datetime | None = None
    etag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compatibility:
    """Whether a version fits a base model.

    Attributes:
        compatible: whether it does.
        differences: sentences on what does not fit.
    """

    compatible: bool
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConceptPair:
    """How close the target inputs of two versions are.

    Attributes:
        cosine: -1 to 1.
        too_close: their blend would not be defined, or nearly so.
        cosine_withheld: one of them is shared for rendering alone, so that the cosine is not told.
    """

    first: str
    second: str
    cosine: float
    too_close: bool
    cosine_withheld: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Blend:
    """Whether versions can be blended in one render.

    Attributes:
        blendable: whether they can.
        problems: sentences on why not.
        pairs: all that stand on the same base model.
    """

    blendable: bool
    problems: tuple[str, ...] = ()
    pairs: tuple[ConceptPair, ...] = ()
