"""Rules for one field each; every refusal gives the field, its value and the rule."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Protocol, cast

from perfuse.adapter import limits
from perfuse.adapter.errors import MetadataInvalid, UnknownFormatVersion, shown

_ARCHITECTURE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*")
_LAYER = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class _Named(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def width(self) -> int: ...


def check_version(version: object) -> None:
    """The one version that this release reads; a newer one may mean anything."""
    if type(version) is not int or version != limits.FORMAT_VERSION:
        raise UnknownFormatVersion(
            f"the adapter states format version {shown(version)}; this release reads version "
            f"{limits.FORMAT_VERSION}. Use the release that wrote the file, or train again"
        )


def check_base_model(value: object) -> None:
    """The prefix "sha256:" and 64 lower-case hexadecimal digits."""
    _check_pattern("base_model", value, _FINGERPRINT, 71, "'sha256:' and 64 hex digits")


def check_architecture(value: object) -> None:
    """A short word of ASCII letters, digits, '.', '_' and '-'."""
    rule = "letters, digits, '.', '_' and '-', first a letter or digit"
    _check_pattern("architecture", value, _ARCHITECTURE, limits.MAX_ARCHITECTURE, rule)


def check_layers(layers: Sequence[_Named]) -> None:
    """Distinct dotted names, each part ASCII letters, digits, '_' and '-'; widths within limits."""
    rule = "parts of letters, digits, '_' and '-', joined by dots"
    check_count("layers", layers, limits.MAX_LAYERS)
    _check_named("layers", layers, _LAYER, limits.MAX_LAYER_NAME, rule)


def check_encoders(encoders: Sequence[_Named]) -> None:
    """Distinct names such as "text_encoder_2"; widths within limits."""
    check_count("encoders", encoders, limits.MAX_ENCODERS)
    rule = "a-z, then a-z, 0-9 and '_'"
    _check_named("encoders", encoders, _IDENTIFIER, limits.MAX_ENCODER_NAME, rule)


def check_count(name: str, entries: Sequence[object], most: int) -> None:
    """At least one entry, at most `most`."""
    if not 1 <= len(entries) <= most:
        raise MetadataInvalid(f"{name} has {len(entries)} entries; it must have 1 to {most}")


def check_text(name: str, value: object, longest: int) -> None:
    """Printable text in Unicode form NFC, of 1 to `longest` characters."""
    # isprintable refuses control, format, surrogate and private characters and every space but
    # the ordinary one: nothing that a terminal obeys, or that an eye cannot tell apart, passes.
    if (
        not isinstance(value, str)
        or not 1 <= len(value) <= longest
        or not value.isprintable()
        or value != value.strip()
        or value != unicodedata.normalize("NFC", value)
    ):
        raise MetadataInvalid(
            f"{name} is {shown(value)}; it must be 1 to {longest} printable characters in Unicode "
            "form NFC, without space at either end"
        )


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """One of a few words."""
    if value not in choices:
        hint = ""
        if value == "GLOBAL":
            hint = ". GLOBAL is chosen when rendering, with an adapter whose key lock is LOCAL"
        raise MetadataInvalid(f"{name} is {shown(value)}; it must be {' or '.join(choices)}{hint}")


def check_integer(name: str, value: object, least: int, most: int) -> None:
    """An integer, and not `true`, which Python would take for 1."""
    if type(value) is not int or not least <= value <= most:
        raise MetadataInvalid(f"{name} is {shown(value)}; it must be an integer, {least} to {most}")


def check_real(name: str, value: object, least: float, most: float) -> None:
    """A number between two bounds; NaN is between none."""
    if type(value) not in (int, float) or not least <= cast(float, value) <= most:
        raise MetadataInvalid(f"{name} is {shown(value)}; it must be a number, {least} to {most}")


def check_training(training: object) -> None:
    """Few entries, with short keys and short scalar values."""
    if not isinstance(training, Mapping):
        raise MetadataInvalid(f"training is {shown(training)}; it must be an object")
    if len(training) > limits.MAX_TRAINING_ENTRIES:
        raise MetadataInvalid(
            f"training has {len(training)} entries; at most {limits.MAX_TRAINING_ENTRIES} are kept"
        )
    for key, value in training.items():
        _check_pattern(
            "a key of training",
            key,
            _IDENTIFIER,
            limits.MAX_TRAINING_KEY,
            "a-z, then a-z, 0-9, '_'",
        )
        name = f"training[{key!r}]"
        if isinstance(value, str):
            check_text(name, value, limits.MAX_TRAINING_TEXT)
        elif type(value) is int:
            check_integer(name, value, -limits.MAX_INTEGER, limits.MAX_INTEGER)
        elif type(value) is float:
            if not math.isfinite(value):
                raise MetadataInvalid(f"{name} is {value}; a number must be finite")
        elif value is not None and type(value) is not bool:
            raise MetadataInvalid(
                f"{name} is {shown(value)}; it must be text, a number, true, false or null"
            )


def _check_pattern(
    name: str, value: object, pattern: re.Pattern[str], longest: int, rule: str
) -> None:
    if not isinstance(value, str) or len(value) > longest or not pattern.fullmatch(value):
        raise MetadataInvalid(
            f"{name} is {shown(value)}; it must be {rule}, at most {longest} characters"
        )


def _check_named(
    name: str, entries: Sequence[_Named], pattern: re.Pattern[str], longest: int, rule: str
) -> None:
    for entry in entries:
        _check_pattern(f"a name in {name}", entry.name, pattern, longest, rule)
        check_integer(f"the width of {entry.name!r} in {name}", entry.width, 1, limits.MAX_WIDTH)
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        twice = next(entry for entry in names if names.count(entry) > 1)
        raise MetadataInvalid(f"{name} names {twice!r} twice; names must differ")
