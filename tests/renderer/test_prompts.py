"""What a prompt says survives its parsing; what is no placeholder is refused where it stands."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfuse.errors import InvalidArgument
from perfuse_renderer.prompts import MAX_PLACEHOLDERS, Placeholder, parse_prompt, placeholders

ids = st.from_regex(re.compile(r"\A[a-z]([a-z0-9-]{0,61}[a-z0-9])?\Z"), fullmatch=True)
versions = st.one_of(ids, st.integers(1, 10**18 - 1).map(str))
texts = st.text(st.characters(codec="utf-8", exclude_characters="<\\"), min_size=1, max_size=20)
named = st.tuples(st.none() | ids, ids, st.none() | versions)


def written(tenant: str | None, concept: str, version: str | None) -> str:
    return (f"{tenant}/" if tenant else "") + concept + (f"@{version}" if version else "")


@given(st.lists(st.one_of(texts, named), max_size=12))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_parts_come_back_as_they_went_in(parts: list[object]) -> None:
    text, expected = "", []
    for part in parts:
        if isinstance(part, tuple):
            name = written(*part)
            expected.append(Placeholder(part[0], part[1], part[2] or "latest", name, len(text)))
            text += f"<{name}>"
        else:
            text += str(part)
    parsed = parse_prompt(text)
    assert placeholders(parsed) == expected
    spelt = "".join(f"<{p.written}>" if isinstance(p, Placeholder) else p for p in parsed)
    assert spelt == text


@given(st.text(max_size=80))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_prompt(text)
    except InvalidArgument as refusal:
        ((field, why),) = refusal.violations
        assert field == "prompt"
        at = re.match(r"at character (\d+): ", why)
        assert at
        assert text[int(at[1])] == "<"


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_every_text_can_be_said(text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace("<", "\\<")
    assert "".join(map(str, parse_prompt(escaped))) == text


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("<Tom>", 0),
        ("a <tom", 2),
        ("<tom@>", 0),
        ("<tom@0>", 0),
        ("<acme/>", 0),
        ("<a/b/c>", 0),
        ("<tom> <>", 6),
        ("< tom>", 0),
        ("é<tom-@1>", 1),
        ("i <3 you", 2),
    ],
)
def test_a_malformed_placeholder_is_refused_where_it_stands(text: str, at: int) -> None:
    with pytest.raises(InvalidArgument, match=rf"negative_prompt: at character {at}: "):
        parse_prompt(text, "negative_prompt")


def test_versions_have_names() -> None:
    (tom, _, rex) = parse_prompt("<tom> <globex/rex@7>")
    assert isinstance(tom, Placeholder)
    assert isinstance(rex, Placeholder)
    assert str(tom.name("acme")) == "tenants/acme/concepts/tom/versions/latest"
    assert str(rex.name("acme")) == "tenants/globex/concepts/rex/versions/7"


def test_too_many_are_refused() -> None:
    parse_prompt("<tom>" * MAX_PLACEHOLDERS)
    with pytest.raises(InvalidArgument, match="more than 64"):
        parse_prompt("<tom>" * (MAX_PLACEHOLDERS + 1))
