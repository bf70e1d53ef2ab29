"""A record that only grows, and in which a changed line shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perfuse.errors import DataLoss, FailedPrecondition
from perfuse.serving.audit_log import AuditLog, verify
from perfuse.serving.call import Call
from perfuse.serving.identity import Caller
from perfuse.serving.threads import InPlace

CALL = Call(
    Caller("acme", "paula", frozenset({"renderer"})),
    "call-1",
    None,
    InPlace(),
    "Bearer secret",
    "ipv4:127.0.0.1:5",
)


def written(path: Path, *resources: str) -> None:
    log = AuditLog(path)
    for each in resources:
        log.record(CALL, "Render", [each])
    log.close()


def test_it_goes_on_where_it_ended(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, "a", "b")
    written(path, "c")
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event["resources"] for event in events] == [["a"], ["b"], ["c"]]
    assert {event["subject"] for event in events} == {"paula"}
    assert "secret" not in path.read_text()
    assert verify(path) == 3
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("how", ["changed", "removed", "swapped"])
def test_what_was_done_to_it_shows(tmp_path: Path, how: str) -> None:
    path = tmp_path / "audit.jsonl"
    written(path, "a", "b", "c")
    lines = path.read_text().splitlines()
    if how == "changed":
        lines[1] = lines[1].replace('["b"]', '["x"]')
    elif how == "removed":
        del lines[1]
    else:
        lines[0], lines[1] = lines[1], lines[0]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataLoss, match="does not follow"):
        verify(path)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="cannot be written"):
        AuditLog(tmp_path / "nowhere" / "audit.jsonl")
