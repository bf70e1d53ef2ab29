"""The prompt's grammar.

Laws: only InvalidArgument, naming the field; and of a prompt that is read, every placeholder stands
where it says, and writing the parts again gives a prompt with the same parts.
"""

from __future__ import annotations

import itertools
import re

from perfuse.errors import InvalidArgument
from perfuse_renderer.prompts import Part, Placeholder, parse_prompt


def seeds() -> dict[str, bytes]:
    """Prompts of every rule, and slips."""
    texts = {
        "plain": "a photo of a cat",
        "named": "a photo of <tom> wearing <shades@prod> and <hat@7> beside <globex/rex@latest>",
        "escaped": r"1 \< 2 \\ <a> \x \\<b>\\",
        "odd": "<", "empty": "<>", "spaced": "< tom>", "upper": "<Tom>", "unclosed": "<tom",
        "zero": "<tom@0>", "long": f"<{'a' * 64}>", "many": "<a>" * 65, "nested": "<<a>>",
        "control": "<|endoftext|>", "unicode": "\u202e<tom>\u0000 ﬁ \U0001f600", "end": "tom\\",
    }  # fmt: skip
    return {name: text.encode() for name, text in texts.items()}


def one(data: bytes) -> None:
    """Read one prompt."""
    text = data.decode(errors="replace")
    try:
        parts = parse_prompt(text)
    except InvalidArgument as refusal:
        assert [field for field, _ in refusal.violations] == ["prompt"]
        assert len(str(refusal)) < 500
        return
    for part in parts:
        if isinstance(part, Placeholder):
            assert text[part.position :].startswith(f"<{part.written}>")
    assert _shape(parse_prompt("".join(map(_written, parts)))) == _shape(parts)


def _written(part: Part) -> str:
    if isinstance(part, Placeholder):
        return f"<{part.written}>"
    return re.sub(r"([<\\])", r"\\\1", part)


def _shape(parts: list[Part]) -> list[object]:
    """The parts, texts that stand side by side made one, places left out."""
    found: list[object] = []
    for is_text, group in itertools.groupby(parts, lambda part: isinstance(part, str)):
        members = list(group)
        if is_text:
            found.append("".join(map(str, members)))
        else:
            found += [(x.tenant, x.concept, x.version) for x in members]  # type: ignore[union-attr]
    return found
