"""What is printed: nothing that speaks to a terminal, JSON that is JSON, tables that are whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfuse.cli import output
from perfuse.cli.exits import Exit


@given(st.text())
def test_no_control_character_comes_through(text: str) -> None:
    said = output.clean(text)
    assert len(said) == len(text)
    assert not [each for each in said if each not in "\n\t" and ord(each) in range(32)]
    assert not [each for each in said if 127 <= ord(each) < 160]
    assert output.clean(said) == said


@dataclass(frozen=True)
class Thing:
    name: str
    when: datetime | None
    parts: tuple[int, ...]
    data: bytes


def test_values_become_json(capsys: pytest.CaptureFixture[str]) -> None:
    moment = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    thing = Thing("tom\x1b", moment, (1, 2), b"abc")
    output.document({"thing": thing, "path": Path("a/b"), "exit": Exit.FAILED, "none": None})
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert json.loads(said) == {
        "thing": {"name": "tom\x1b", "when": moment.isoformat(), "parts": [1, 2], "data": 3},
        "path": "a/b",
        "exit": 6,
        "none": None,
    }
    output.line({"a": "é"})
    assert capsys.readouterr().out == '{"a": "é"}\n'


def test_a_table_outside_a_terminal_is_cut_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 60
    output.table(("name", "text"), [("tom", long), ("[red]tim", None)], nothing="none")
    seen = capsys.readouterr()
    lines = seen.out.splitlines()
    assert lines[1].startswith("tom")
    assert long.strip() in lines[1]
    assert lines[2] == "[red]tim", "what looks like markup is text"
    assert seen.err == ""
    output.table(("name",), [], nothing="There is nothing.")
    assert capsys.readouterr() == ("", "There is nothing.\n")


def test_facts_leave_out_what_is_empty(capsys: pytest.CaptureFixture[str]) -> None:
    output.facts([("name", "tom"), ("gone", None), ("labels", {"b": "2", "a": "1"}), ("n", 0.25)])
    assert capsys.readouterr().out.splitlines() == [
        "name    tom",
        "labels  a=1 b=2",
        "n       0.25",
    ]
