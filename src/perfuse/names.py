"""Resource names, parsed and formatted: `tenants/{t}/concepts/{c}/versions/{n}` and the others.

Ids follow `[a-z]([a-z0-9-]{0,61}[a-z0-9])?`. A version is named by its number; where a version is
read, an alias or `latest` may stand in the number's place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Self

from perfuse.errors import InvalidArgument

ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")

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

    def __str__(self) -> str:
        return self._pattern.format(**{part: getattr(self, part) for part in self._parts()})

    @classmethod
    def _parts(cls) -> tuple[str, ...]:
        return tuple(cls.__slots__)

    @classmethod
    def parse(cls, text: str, field: str = "name") -> Self:
        """Read a name.

        Raises:
            InvalidArgument: `text` is not such a name; the message names `field`.
        """
        parts, wanted = text.split("/"), cls._pattern.split("/")
        if len(parts) != len(wanted) or any(
            expected != part
            for expected, part in zip(wanted, parts, strict=True)
            if not expected.startswith("{")
        ):
            raise _not_a_name(field, text, cls._pattern)
        values = {
            expected[1:-1]: part
            for expected, part in zip(wanted, parts, strict=True)
            if expected.startswith("{")
        }
        for key, value in values.items():
            # Only versions are numbered.
            numbered = key == "version" and _NUMBER.fullmatch(value)
            if not (numbered or ID.fullmatch(value)):
                raise _not_a_name(field, text, cls._pattern)
        return cls(**values)


@dataclass(frozen=True, slots=True)
class TenantName(_Name):
    """`tenants/{tenant}`."""

    _pattern: ClassVar[str] = "tenants/{tenant}"
    tenant: str


@dataclass(frozen=True, slots=True)
class ConceptName(_Name):
    """`tenants/{tenant}/concepts/{concept}`."""

    _pattern: ClassVar[str] = "tenants/{tenant}/concepts/{concept}"
    tenant: str
    concept: str

    def version(self, version: int | str) -> VersionName:
        """The name of one of its versions, by number, alias or `latest`."""
        return VersionName(self.tenant, self.concept, str(version))

    def alias(self, alias: str) -> AliasName:
        """The name of one of its aliases."""
        return AliasName(self.tenant, self.concept, alias)


@dataclass(frozen=True, slots=True)
class VersionName(_Name):
    """`tenants/{tenant}/concepts/{concept}/versions/{version}`; a number, an alias or `latest`."""

    _pattern: ClassVar[str] = "tenants/{tenant}/concepts/{concept}/versions/{version}"
    tenant: str
    concept: str
    version: str

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

    @property
    def parent(self) -> ConceptName:
        """The concept's name."""
        return ConceptName(self.tenant, self.concept)


@dataclass(frozen=True, slots=True)
class BaseModelName(_Name):
    """`baseModels/{base_model}`."""

    _pattern: ClassVar[str] = "baseModels/{base_model}"
    base_model: str


@dataclass(frozen=True, slots=True)
class ImageSetName(_Name):
    """`tenants/{tenant}/imageSets/{image_set}`."""

    _pattern: ClassVar[str] = "tenants/{tenant}/imageSets/{image_set}"
    tenant: str
    image_set: str


@dataclass(frozen=True, slots=True)
class TrainingRunName(_Name):
    """`tenants/{tenant}/trainingRuns/{training_run}`."""

    _pattern: ClassVar[str] = "tenants/{tenant}/trainingRuns/{training_run}"
    tenant: str
    training_run: str


def _not_a_name(field: str, text: str, pattern: str) -> InvalidArgument:
    return InvalidArgument.in_field(
        field, f"{text[:200]!r} is not of the form {pattern}. Write it so, with lower-case ids"
    )
