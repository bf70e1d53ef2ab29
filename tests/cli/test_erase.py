"""A concept that is erased on a whole platform: services, receipt, and what is said of it later."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import uuid4

import pytest
from platform_up import Platform

from perfuse_toybox.concepts import TOM

from .shell import Shell


def test_a_concept_is_erased_by_all_three(
    platform: Platform,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    perfuse = Shell(platform.connection, monkeypatch, capsys)
    tom, pictures = f"tom-{uuid4().hex[:8]}", tmp_path / "pictures"
    pictures.mkdir()
    TOM.write_pictures(pictures)
    train = ("train", tom, str(pictures), "--super-category", "cat", "--steps", "2", "--batch", "1")
    taught = perfuse(*train)
    assert taught.code == 0, taught.err
    render = ("render", f"a photo of <{tom}>", "--steps", "2", "--seed", "1", "--json")
    assert perfuse(*render, "-o", str(tmp_path / "a.png")).code == 0

    # Nothing is typed here, so nothing is erased.
    assert perfuse("erase", tom).code != 0
    assert perfuse("concept", "show", tom).code == 0
    erased = perfuse("erase", tom, "--yes", "--json")
    assert erased.code == 0, erased.err
    assert [each["state"] for each in erased.json["adapters"]] == ["REMOVED"]
    refusal = perfuse("concept", "show", tom, "--json").refusal
    assert refusal["reason"] == "CONCEPT_ERASED"

    receipt: dict[str, object] = {}
    for _ in range(120):
        receipt = perfuse("erase", tom, "--receipt", "--json").json
        if receipt["state"] == "COMPLETE":
            break
        time.sleep(0.25)
    assert receipt["state"] == "COMPLETE"
    assert receipt["trainer"]["run_count"] == 1  # type: ignore[index]
    assert receipt["uid"] == erased.json["uid"]

    def refused() -> bool:
        answer = perfuse(*render, "-o", str(tmp_path / "b.png"))
        return answer.code == 1 and answer.refusal["reason"] == "CONCEPT_ERASED"

    # What the Renderer was told is five seconds old at most, however long the renders take.
    assert any(refused() for _ in range(60))
