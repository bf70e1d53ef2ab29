"""Whether a request keeps the rules that its proto states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import protovalidate
from google.protobuf.message import Message

from perfuse.errors import InvalidArgument


class Validator(Protocol):
    """Tells which fields of a message break their rules."""

    def validate(self, message: Message) -> Sequence[tuple[str, str]]:
        """Pairs of a field's path and what is wrong with it; none if the message is right."""
        ...


class ProtovalidateValidator:
    """Holds messages to the `buf.validate` rules of their protos.

    The first message of a kind takes some 40 ms, in which its rules are compiled; `prepare` at
    start-up takes that time away from the first caller.
    """

    def __init__(self) -> None:
        self._validator = protovalidate.Validator()

    def prepare(self, *kinds: type[Message]) -> None:
        """Compile the rules of these kinds of messages.

        Raises:
            protovalidate.CompilationError: a rule of the proto is itself wrong.
        """
        for kind in kinds:
            self._validator.collect_violations(kind(), fail_fast=True)

    def validate(self, message: Message) -> Sequence[tuple[str, str]]:
        """Pairs of a field's path, such as `labels["team"]`, and what is wrong with it."""
        return [
            (_path(violation.proto.field), violation.proto.message)
            for violation in self._validator.collect_violations(message)
        ]


@dataclass(frozen=True, slots=True)
class Malformed:
    """Stands for a request whose bytes are not the message of this kind that they should be."""

    kind: str


def refusal(violations: Sequence[tuple[str, str]]) -> InvalidArgument:
    """The refusal of a request by all that is wrong with it."""
    field, description = violations[0]
    text = f"{field}: {description}" if field else description
    if len(violations) > 1:
        text += f" (and {len(violations) - 1} more)"
    error = InvalidArgument(text)
    error.violations = tuple(violations)
    return error


def _path(field: protovalidate.FieldPathPb | None) -> str:
    if field is None:
        return ""
    path = ""
    for element in field.elements:
        path += ("." if path else "") + element.field_name
        subscript = element.subscript
        if subscript is not None:
            value = subscript.value
            path += f'["{value}"]' if isinstance(value, str) else f"[{value}]"
    return path
