"""Resource names, parsed and formatted: `tenants/{t}/concepts/{c}/versions/{n}` and the others.

Ids follow `[a-z]([a-z0-9-]{0,61}[a-z0-9])?`. A version is named by its number; where a version is
read, an alias or `latest` may stand in the number's place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Self

from perfuse.errors import InvalidArgument

_ID = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NUMBER = r"[1-9][0-9]{0,17}"
ID = re.compile(_ID)

LATEST = "latest"
"""Stands for the highest number in a version's name; no alias may be called so."""


def check_id(field: str, value: str) -> str:
    """`value`, if it is an id.

    Raises:
        InvalidArgument: it is not; the message names `field`.
    """
    if not ID.fullmatch(value):
        raise InvalidArgument.in_field(
            field,
            f"{value[:80]!r} is not an id; it must be 1 to 63 lower-case letters, digits and "
            "hyphens, begin with a letter and not end with a hyphen",
        )
    return value


@dataclass(frozen=True, slots=True)
class _Name:
    _pattern: ClassVar[str]

    @classmethod
    def parse(cls, text: str, field: str = "name") -> Self:
        """Read a name.

        Raises:
            InvalidArgument: `text` is not such a name; the message names `field`.
        """
        match = _compiled(cls._pattern).fullmatch(text)
        if match is None:
            raise _not_a_name(field, text, cls._pattern)
        return cls(*match.groups())


@dataclass(frozen=True, slots=True)
class TenantName(_Name):
    """`tenants/{tenant}`."""

    _pattern: ClassVar[str] = "tenants/{tenant}"
    tenant: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}"


@dataclass(frozen=True, slots=True)
class ConceptName(_Name):
    """`tenants/{tenant}/concepts/{concept}`."""

    _pattern: ClassVar[str] = "tenants/{tenant}/concepts/{concept}"
    tenant: str
    concept: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/concepts/{self.concept}"

    def version(self, version: int | str) -> VersionName:
        """The name of one of its versions, by number, alias or `latest`."""
        return VersionName(self.tenant, self.concept, str(version))

    def alias(self, alias: str) -> AliasName:
        """The name of one of its aliases."""
        return AliasName(self.tenant, self.concept, alias)

    def consent(self, consent: str) -> ConsentName:
        """The name of a consent to its use."""
        return ConsentName(self.tenant, self.concept, consent)

    def grant(self, grantee: str) -> GrantName:
        """The name of its grant to another tenant."""
        return GrantName(self.tenant, self.concept, grantee)

    @property
    def erasure(self) -> ErasureName:
        """The name of what is left once it is erased."""
        return ErasureName(self.tenant, self.concept)


@dataclass(frozen=True, slots=True)
class VersionName(_Name):
    """`tenants/{tenant}/concepts/{concept}/versions/{version}`; a number, an alias or `latest`."""

    _pattern: ClassVar[str] = "tenants/{tenant}/concepts/{concept}/versions/{version}"
    tenant: str
    concept: str
    version: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/concepts/{self.concept}/versions/{self.version}"

    @property
    def parent(self) -> ConceptName:
        """The concept's name."""
        return ConceptName(self.tenant, self.concept)

    @property
    def number(self) -> int | None:
        """The number, or None where an alias or `latest` stands."""
        return int(self.version) if self.version.isdigit() else None


@dataclass(frozen=True, slots=True)
class AliasName(_Name):
    """`tenants/{tenant}/concepts/{concept}/aliases/{alias}`."""

    _pattern: ClassVar[str] = "tenants/{tenant}/concepts/{concept}/aliases/{alias}"
    tenant: str
    concept: str
    alias: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/concepts/{self.concept}/aliases/{self.alias}"

    @property
    def parent(self) -> ConceptName:
        """The concept's name."""
        return ConceptName(self.tenant, self.concept)


@dataclass(frozen=True, slots=True)
class ConsentName(_Name):
    """`tenants/{tenant}/concepts/{concept}/consents/{consent}`."""

    _pattern: ClassVar[str] = "tenants/{tenant}/concepts/{concept}/consents/{consent}"
    tenant: str
    concept: str
    consent: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/concepts/{self.concept}/consents/{self.consent}"

    @property
    def parent(self) -> ConceptName:
        """The concept's name."""
        return ConceptName(self.tenant, self.concept)


@dataclass(frozen=True, slots=True)
class GrantName(_Name):
    """`tenants/{tenant}/concepts/{concept}/grants/{grantee}`; the grantee is a tenant's id."""

    _pattern: ClassVar[str] = "tenants/{tenant}/concepts/{concept}/grants/{grantee}"
    tenant: str
    concept: str
    grantee: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/concepts/{self.concept}/grants/{self.grantee}"

    @property
    def parent(self) -> ConceptName:
        """The concept's name."""
        return ConceptName(self.tenant, self.concept)


@dataclass(frozen=True, slots=True)
class ErasureName(_Name):
    """`tenants/{tenant}/erasures/{concept}`; a concept's id is given once, if it is erased."""

    _pattern: ClassVar[str] = "tenants/{tenant}/erasures/{concept}"
    tenant: str
    concept: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/erasures/{self.concept}"


@dataclass(frozen=True, slots=True)
class BaseModelName(_Name):
    """`baseModels/{base_model}`."""

    _pattern: ClassVar[str] = "baseModels/{base_model}"
    base_model: str

    def __str__(self) -> str:
        return f"baseModels/{self.base_model}"


@dataclass(frozen=True, slots=True)
class ImageSetName(_Name):
    """`tenants/{tenant}/imageSets/{image_set}`."""

    _pattern: ClassVar[str] = "tenants/{tenant}/imageSets/{image_set}"
    tenant: str
    image_set: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/imageSets/{self.image_set}"


@dataclass(frozen=True, slots=True)
class TrainingRunName(_Name):
    """`tenants/{tenant}/trainingRuns/{training_run}`."""

    _pattern: ClassVar[str] = "tenants/{tenant}/trainingRuns/{training_run}"
    tenant: str
    training_run: str

    def __str__(self) -> str:
        return f"tenants/{self.tenant}/trainingRuns/{self.training_run}"


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """What matches names of a pattern, a group for each part in the pattern's order."""
    one = {"{version}": f"({_ID}|{_NUMBER})"}  # Only versions are numbered.
    parts = pattern.split("/")
    return re.compile("/".join(one.get(x, f"({_ID})") if x[0] == "{" else x for x in parts))


def _not_a_name(field: str, text: str, pattern: str) -> InvalidArgument:
    return InvalidArgument.in_field(
        field, f"{text[:200]!r} is not of the form {pattern}. Write it so, with lower-case ids"
    )
