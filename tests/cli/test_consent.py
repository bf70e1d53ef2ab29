"""A living person's likeness on a whole platform: taught, rendered, proved, taken back, told."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from platform_up import Platform

from perfuse_toybox.concepts import TOM

from .shell import Shell


def test_a_likeness_is_of_use_while_the_person_consents(
    platform: Platform,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    perfuse = Shell(platform.connection, monkeypatch, capsys)
    eri, pictures = f"eri-{uuid4().hex[:8]}", tmp_path / "pictures"
    pictures.mkdir()
    TOM.write_pictures(pictures)
    made = perfuse("concept", "create", eri, "--super-category", "cat", "--likeness", "--json")
    assert made.json["likeness"]
    train = ("train", eri, str(pictures), "--super-category", "cat", "--steps", "2", "--batch", "1")
    assert perfuse(*train, "--json").refusal["reason"] == "CONSENT_MISSING"
    assert f"perfuse consent give {eri}" in perfuse("consent", "list", eri).err

    given = perfuse("consent", "give", eri, "--giver", "form 17", "--until", "2100-01-01", "--json")
    consent = given.json["name"].rpartition("/")[2]
    taught = perfuse(*train)
    assert taught.code == 0, taught.err
    render = ("render", f"a photo of <{eri}>", "--steps", "2", "--seed", "1")
    rendered = perfuse(*render, "-o", str(tmp_path / "a.png"))
    assert rendered.code == 0, rendered.err

    runs = perfuse("runs", "list", "--json").json
    run = next(each["name"] for each in runs if each["concept"].endswith(f"/{eri}"))
    other = tmp_path / "other.png"
    other.write_bytes(b"another file")
    used = next(pictures.glob("*.png"))
    told = perfuse("runs", "check", run, str(used), str(other), "--json").json
    assert told == {str(used): True, str(other): False}

    assert perfuse("consent", "revoke", eri, consent).code == 0
    assert [each["state"] for each in perfuse("consent", "list", eri, "--json").json] == ["REVOKED"]

    def refused() -> bool:
        answer = perfuse(*render, "-o", str(tmp_path / "b.png"), "--json")
        return answer.code == 1 and answer.refusal["reason"] == "CONSENT_REVOKED"

    # What the Renderer was told is five seconds old at most, however long the renders take.
    assert any(refused() for _ in range(60))

    name = f"{made.json['name']}"
    recorded = perfuse("audit", "--filter", f'resource = "{name}*"', "--json").json
    assert [(each["rpc"], each["code"]) for each in reversed(recorded)] == [
        ("CreateConcept", "OK"),
        ("CreateConsent", "OK"),
        ("CreateVersion", "OK"),
        ("RevokeConsent", "OK"),
    ]
    trainer = perfuse("audit", "--service", "trainer", "--filter", "code = OK", "--json").json
    assert any(each["resource"] == run and each["rpc"] == "CreateTrainingRun" for each in trainer)
    assert "form 17" not in str(recorded + trainer)
