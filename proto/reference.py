"""Writes docs/api.md from the protos and their comments: `python proto/reference.py [--check]`."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from compile import HERE, image
from google.api import field_behavior_pb2
from google.protobuf import descriptor_pb2

TARGET = HERE.parent / "docs/api.md"
HEAD = """# The API

Written from [`proto/perfuse/v1`](../proto/perfuse/v1) by `make reference`; edit the comments there.
Every call carries `authorization: Bearer TOKEN`. Refusals are `google.rpc.Status` with exactly one
`ErrorInfo`, whose `reason` is one of [`ErrorReason`](#errorreason). R is required, O is set by the
server alone, I is fixed at creation.
"""
FILES = ("registry", "trainer", "renderer", "consent", "erasure", "audit", "quotas", "errors")
_BEHAVIOUR = {"REQUIRED": "R", "OUTPUT_ONLY": "O", "IMMUTABLE": "I", "IDENTIFIER": "O"}
_TYPES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in descriptor_pb2.FieldDescriptorProto.Type.items()
}
_Field = descriptor_pb2.FieldDescriptorProto


class Reference:
    """One proto file, told in Markdown."""

    def __init__(self, file: descriptor_pb2.FileDescriptorProto) -> None:
        self._file = file
        self._comments = {
            tuple(place.path): " ".join(place.leading_comments.split())
            for place in file.source_code_info.location
        }

    def lines(self) -> Iterator[str]:
        """All of it."""
        for number, service in enumerate(self._file.service):
            yield from ("", f"## {service.name}", "", self._said(6, number), "")
            for index, method in enumerate(service.method):
                asked = self._link(method.input_type, method.client_streaming)
                answered = self._link(method.output_type, method.server_streaming)
                said = self._said(6, number, 2, index)
                yield from (f"**{method.name}** ({asked}) → {answered}  ", said, "")
        for number, enum in enumerate(self._file.enum_type):
            yield from self._enum(enum, (5, number))
        for number, message in enumerate(self._file.message_type):
            yield from self._message(message, (4, number))

    def _message(
        self, message: descriptor_pb2.DescriptorProto, path: tuple[int, ...]
    ) -> Iterator[str]:
        yield from ("", f"### {message.name}", "", self._said(*path))
        if not message.field:
            return
        maps = {each.name for each in message.nested_type if each.options.map_entry}
        yield from ("", "| field | | type | |", "|---|---|---|---|")
        for index, field in enumerate(message.field):
            kind = self._type(field, maps, message)
            marks = "".join(self._marks(field))
            said = self._said(*path, 2, index).replace("|", "\\|")
            yield f"| `{field.name}` | {marks} | {kind} | {said} |"

    def _enum(
        self, enum: descriptor_pb2.EnumDescriptorProto, path: tuple[int, ...]
    ) -> Iterator[str]:
        yield from ("", f"### {enum.name}", "", self._said(*path), "", "| value | |", "|---|---|")
        for index, value in enumerate(enum.value):
            yield f"| `{value.name}` | {self._said(*path, 2, index)} |"

    def _type(self, field: _Field, maps: set[str], message: descriptor_pb2.DescriptorProto) -> str:
        short = field.type_name.rpartition(".")[2]
        if short in maps:
            entry = next(each for each in message.nested_type if each.name == short)
            key, value = (self._type(part, set(), entry) for part in entry.field)
            return f"map of {key} to {value}"
        kind = self._link(field.type_name) if field.type_name else _TYPES[field.type]
        if field.label == _Field.LABEL_REPEATED:
            return f"repeated {kind}"
        return f"optional {kind}" if field.proto3_optional else kind

    @staticmethod
    def _marks(field: _Field) -> Iterator[str]:
        for behaviour in field.options.Extensions[field_behavior_pb2.field_behavior]:
            yield _BEHAVIOUR.get(field_behavior_pb2.FieldBehavior.Name(behaviour), "")

    @staticmethod
    def _link(name: str, stream: bool = False) -> str:
        short = name.rpartition(".")[2]
        linked = f"[{short}](#{short.lower()})" if ".perfuse." in name else name.lstrip(".")
        return f"stream of {linked}" if stream else linked

    def _said(self, *path: int) -> str:
        return re.sub(r"<(?=\w)", "&lt;", self._comments.get(path, ""))


def written() -> str:
    """The page."""
    with tempfile.TemporaryDirectory() as folder:
        whole = descriptor_pb2.FileDescriptorSet.FromString(
            image(HERE, Path(folder) / "i.binpb").read_bytes()
        )
    files = {Path(file.name).stem: file for file in whole.file if "perfuse" in file.name}
    lines = [line for name in FILES for line in Reference(files[name]).lines()]
    return HEAD + "\n".join(lines) + "\n"


def main() -> int:
    """Write the page, or with `--check` compare; 1 where it differs."""
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(written())
        return 0
    if TARGET.exists() and TARGET.read_text() == written():
        return 0
    print(f"{TARGET.name} is stale: make reference")
    return 1


if __name__ == "__main__":
    sys.exit(main())
