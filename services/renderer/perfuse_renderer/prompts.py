r"""The prompt's grammar: concepts named in place.

    a photo of <tom> wearing <shades@prod> and <hat@7> beside <globex/rex>

    prompt      = (text | placeholder)*
    placeholder = "<" [ tenant "/" ] concept [ "@" version ] ">"
    version     = number | alias | "latest"
    text        = anything; `\<` is a plain angle bracket and `\\` a plain backslash

Ids are those of resource names. A `<` that begins no placeholder is an error that says where, so
that a misspelt concept is never rendered as a word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from perfuse.errors import InvalidArgument
from perfuse.names import LATEST, ConceptName, VersionName

MAX_PLACEHOLDERS = 64

_ID = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
_PLACEHOLDER = re.compile(
    rf"<(?:(?P<tenant>{_ID})/)?(?P<concept>{_ID})(?:@(?P<version>{_ID}|[1-9][0-9]{{0,17}}))?>"
)
_TEXT = re.compile(r"(?:[^<\\]|\\.|\\$)+", re.DOTALL)
_SHOWN = 24


@dataclass(frozen=True, slots=True)
class Placeholder:
    """One occurrence of a concept.

    Attributes:
        tenant: as written; None for the caller's.
        concept: its id.
        version: number, alias or `latest`.
        written: as the prompt has it, without angle brackets.
        position: characters before it.
    """

    tenant: str | None
    concept: str
    version: str
    written: str
    position: int

    def name(self, tenant: str) -> VersionName:
        """The version that it asks for, where `tenant` is the caller's."""
        return ConceptName(self.tenant or tenant, self.concept).version(self.version)


Part = str | Placeholder


def parse_prompt(text: str, field: str = "prompt") -> list[Part]:
    """Cut a prompt into texts and placeholders, in order.

    Args:
        text: as the caller wrote it.
        field: of the request, for the message.

    Raises:
        InvalidArgument: a `<` that begins no placeholder, or too many placeholders; the message
            has its position.
    """
    parts: list[Part] = []
    at = 0
    while at < len(text):
        if text[at] != "<":
            found = _TEXT.match(text, at)
            end = found.end() if found else len(text)
            parts.append(re.sub(r"\\([<\\])", r"\1", text[at:end]))
            at = end
            continue
        named = _PLACEHOLDER.match(text, at)
        if named is None:
            raise _malformed(field, text, at)
        parts.append(
            Placeholder(
                named["tenant"], named["concept"], named["version"] or LATEST, named[0][1:-1], at
            )
        )
        at = named.end()
    if sum(isinstance(part, Placeholder) for part in parts) > MAX_PLACEHOLDERS:
        raise InvalidArgument.in_field(
            field, f"it names more than {MAX_PLACEHOLDERS} concepts. Name fewer"
        )
    return parts


def placeholders(parts: list[Part]) -> list[Placeholder]:
    """The placeholders among the parts."""
    return [part for part in parts if isinstance(part, Placeholder)]


def _malformed(field: str, text: str, at: int) -> InvalidArgument:
    end = text.find(">", at)
    shown = text[at : end + 1 if 0 <= end < at + _SHOWN else at + _SHOWN]
    if end < 0:
        rest = r"has no closing '>'. Close it, or write \< for a plain angle bracket"
    else:
        rest = (
            "is not <concept>, <concept@version> or <tenant/concept>, of lower-case letters, "
            r"digits and hyphens. Correct it, or write \< for a plain angle bracket"
        )
    return InvalidArgument.in_field(field, f"at character {at}: {shown!r} {rest}")
