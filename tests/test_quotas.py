"""The operator's file of quotas: what it says holds, and what breaks a rule changes nothing."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from perfuse.errors import FailedPrecondition
from perfuse.quotas import QUOTAS, Quotas, exceeded


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "quotas.toml"


def rewrite(file: Path, text: str) -> None:
    """As another moment's file, whatever the clock's grain."""
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.write_text(text)
    os.utime(file, ns=(before + 10**9, before + 10**9))


def test_without_a_file_nothing_is_limited() -> None:
    assert all(Quotas().limit("acme", quota) is None for quota in QUOTAS)


def test_a_tenant_s_own_limit_goes_before_the_defaults(file: Path) -> None:
    file.write_text(
        "[defaults]\nconcepts = 3\nbytes = 1_000\n"
        "[tenants.acme]\nconcepts = 7\nbytes = inf\nimages_per_minute = 0\n"
    )
    quotas = Quotas(file)
    assert quotas.limit("acme", "concepts") == 7
    assert quotas.limit("acme", "bytes") is None
    assert quotas.limit("acme", "images_per_minute") == 0
    assert quotas.limit("globex", "concepts") == 3
    assert quotas.limit("globex", "bytes") == 1000
    assert quotas.limit("globex", "images_per_minute") is None
    # A tenant may well be called so.
    assert quotas.limit("defaults", "concepts") == 3


def test_a_change_holds_from_the_next_question_on(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rewrite(file, "[defaults]\nconcepts = 3\n")
    quotas = Quotas(file)
    assert quotas.limit("acme", "concepts") == 3
    rewrite(file, "[tenants.acme]\nconcepts = 4\n")
    assert quotas.limit("acme", "concepts") == 4
    assert quotas.limit("globex", "concepts") is None
    # One that cannot be read leaves what was; it is told once.
    with caplog.at_level(logging.ERROR, "perfuse.quotas"):
        rewrite(file, "[tenants.acme]\nconcepts = -4\n")
        assert [quotas.limit("acme", "concepts") for _ in range(3)] == [4, 4, 4]
        file.unlink()
        assert [quotas.limit("acme", "concepts") for _ in range(3)] == [4, 4, 4]
    assert len(caplog.records) == 2
    assert "concepts = -4" in caplog.text
    file.write_text("[tenants.acme]\nconcepts = 5\n")
    assert quotas.limit("acme", "concepts") == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("concepts = 3", "alone, not concepts"),
        ("tenants = 3", "alone"),
        ("[tenant.acme]\nconcepts = 3", "alone, not tenant"),
        ("[defaults]\nconcept = 3", "concept = 3"),
        ("[defaults]\nconcepts = -1", "concepts = -1"),
        ("[defaults]\nconcepts = nan", "concepts = nan"),
        ("[defaults]\nconcepts = true", "concepts = True"),
        ('[defaults]\nconcepts = "3"', "concepts = '3'"),
        ("[tenants]\nacme = 3", r"acme = 3"),
        ("[tenants.Acme]\nconcepts = 3", "'Acme', which is no id"),
        ("[defaults", "not TOML"),
        ("\udcff", "not TOML"),
    ],
)
def test_what_breaks_a_rule_is_refused_at_the_start(file: Path, text: str, words: str) -> None:
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(FailedPrecondition, match=words):
        Quotas(file)


def test_a_file_that_is_not_there_is_refused_at_the_start(file: Path) -> None:
    with pytest.raises(FailedPrecondition, match="cannot be read"):
        Quotas(file)


def test_a_refusal_says_whose_which_and_how_much() -> None:
    refusal = exceeded("acme", "concepts", 3, "Delete one", 2.0)
    assert str(refusal) == "the quota concepts of acme is 3 and used up. Delete one"
    assert (refusal.quota, refusal.limit, refusal.resource) == ("concepts", 3, "tenants/acme")
    assert (refusal.status, refusal.reason) == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")
    assert refusal.retry_after == 2.0
