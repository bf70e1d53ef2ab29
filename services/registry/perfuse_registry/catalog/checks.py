"""Questions about versions that change nothing: does one fit, can several be blended?"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from perfuse.adapter import read_header
from perfuse.names import BaseModelName, VersionName
from perfuse_registry.catalog.base_models import BaseModels
from perfuse_registry.catalog.resources import Access, Version
from perfuse_registry.catalog.versions import Versions

TOO_CLOSE = 0.9999
"""Cosine from which two target inputs are one direction in any metric. Encodings of different
words are often within 0.99, so only the base model's own metric, in the Renderer, can judge
closer: a blend that passes here may still be refused there."""


@dataclass(frozen=True, slots=True)
class ConceptPair:
    """Two versions of one blend, and the cosine of their target inputs.

    Attributes:
        withheld: Whether the cosine is not to be told.
    """

    first: VersionName
    second: VersionName
    cosine: float
    withheld: bool = False

    @property
    def too_close(self) -> bool:
        """Whether their blend would be undefined, or nearly so."""
        return abs(self.cosine) >= TOO_CLOSE


@dataclass(frozen=True, slots=True)
class BlendCheck:
    """Whether versions can be blended; `problems` are sentences."""

    problems: list[str]
    pairs: list[ConceptPair]


class Checks:
    """Answers about versions."""

    def __init__(self, versions: Versions, base_models: BaseModels) -> None:
        self._versions = versions
        self._base_models = base_models

    def compatibility(self, tenant: str, version: VersionName, base: BaseModelName) -> list[str]:
        """What keeps a version from being used on a base model, each a sentence; empty if nothing.

        A version was compared with the base model that it states when it was made, so only the
        base models need comparing.

        Raises:
            NotFound, ConceptDeleted: the version or the base model.
        """
        stated = self._versions.get(tenant, version)
        asked = self._base_models.get(base)
        if stated.fingerprint == asked.fingerprint:
            return []
        own = self._base_models.get(BaseModelName(stated.base_model_id))
        differences = [
            f"The version was trained on {own.name} ({stated.fingerprint}); {base} has "
            f"the fingerprint {asked.fingerprint}."
        ]
        for what in ("architecture", "conditioning_width", "layers", "encoders"):
            mine, theirs = getattr(own, what), getattr(asked, what)
            if mine != theirs and isinstance(mine, tuple):
                differences.append(
                    f"The {what} differ: {len(mine)} and {len(theirs)}, of widths "
                    f"{sum(width for _, width in mine)} and {sum(width for _, width in theirs)}."
                )
            elif mine != theirs:
                differences.append(f"The {what.replace('_', ' ')} differs: {mine} and {theirs}.")
        return differences

    def blend(self, tenant: str, names: Sequence[VersionName]) -> BlendCheck:
        """Whether versions can be blended in one render.

        Of versions that the tenant may only render with no cosine is told: with adapters made for
        it, a few hundred would tell the whole target input.

        Raises:
            NotFound, ConceptDeleted: for the first such version.
            DataLoss: the bytes of one are gone or altered.
        """
        loaded = [self._versions.load(tenant, name) for name in names]
        secret = {version.name for version, _, access in loaded if access is Access.RENDER}
        problems: list[str] = []
        bases = sorted({version.base_model_id for version, _, _ in loaded})
        if len(bases) > 1:
            problems.append(
                f"The versions stand on {len(bases)} base models: {', '.join(bases)}. One render "
                "has one base model."
            )
        pairs = [
            ConceptPair(
                first.name,
                second.name,
                _cosine(one, other),
                not secret.isdisjoint({first.name, second.name}),
            )
            for (first, one), (second, other) in combinations(
                [(version, _target_input(data)) for version, data, _ in loaded], 2
            )
            if first.base_model_id == second.base_model_id
        ]
        problems += [_sentence(pair) for pair in pairs if pair.too_close]
        problems += _twice([version for version, _, _ in loaded])
        return BlendCheck(problems, pairs)


def _sentence(pair: ConceptPair) -> str:
    cosine = "a cosine of" if pair.withheld else f"the cosine {pair.cosine:.4f},"
    return (
        f"The target inputs of {pair.first} and {pair.second} have {cosine} {TOO_CLOSE} or more: "
        "they cannot be told apart."
    )


def _twice(versions: Sequence[Version]) -> list[str]:
    numbers: dict[str, list[int]] = {}
    for version in versions:
        numbers.setdefault(str(version.name.parent), []).append(version.number)
    return [
        f"{concept} is named {len(found)} times, by {sorted(set(found))}; one render takes one "
        "version of a concept."
        for concept, found in numbers.items()
        if len(found) > 1
    ]


def _target_input(data: bytes) -> tuple[float, ...]:
    header = read_header(data)
    values = data[header.span("target_input")]
    code = "e" if header.metadata.dtype == "float16" else "f"
    return struct.unpack(f"<{header.metadata.conditioning_width}{code}", values)


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    # Of equal length: both adapters passed the gate for one base model.
    dot = math.fsum(a * b for a, b in zip(one, other, strict=True))
    return max(-1.0, min(1.0, dot / (math.hypot(*one) * math.hypot(*other))))
