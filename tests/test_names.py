"""Names survive the round trip, and nothing else is taken for a name."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfuse.errors import InvalidArgument
from perfuse.names import (
    ID,
    AliasName,
    BaseModelName,
    ConceptName,
    TenantName,
    VersionName,
    check_id,
)

ids = st.from_regex(re.compile(r"\A[a-z]([a-z0-9-]{0,61}[a-z0-9])?\Z"), fullmatch=True)
KINDS = (TenantName, ConceptName, VersionName, AliasName, BaseModelName)


@given(ids, ids, ids, st.integers(1, 10**18 - 1))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_names_survive_the_round_trip(tenant: str, concept: str, alias: str, number: int) -> None:
    here = ConceptName(tenant, concept)
    for name in (
        TenantName(tenant),
        here,
        here.version(number),
        here.version(alias),
        here.alias(alias),
        BaseModelName(concept),
    ):
        assert type(name).parse(str(name)) == name
    assert here.version(number).number == number
    assert here.version(alias).number is None
    assert here.version(alias).parent == here.alias(alias).parent == here


def test_names_are_spelt_so() -> None:
    assert str(ConceptName("acme", "tom").version(3)) == "tenants/acme/concepts/tom/versions/3"
    assert str(ConceptName("acme", "tom").alias("prod")) == "tenants/acme/concepts/tom/aliases/prod"
    assert str(BaseModelName("sd15")) == "baseModels/sd15"


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_other_texts_are_refused_or_mean_themselves(text: str) -> None:
    for kind in KINDS:
        with contextlib.suppress(InvalidArgument):
            assert str(kind.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tenants/",
        "tenants/acme/",
        "tenants/Acme/concepts/tom",
        "tenants/acme/concepts/../versions/1",
        "tenants/acme/concepts/tom/versions/0",
        "tenants/acme/concepts/tom/versions/01",
        "tenants/acme/concepts/tom/versions/1\n",
        "tenants/acme/concepts/tom/versions/" + "9" * 19,
        "tenants/acme/concepts/" + "a" * 64 + "/versions/1",
        "tenants/1/concepts/2/versions/3",
    ],
)
def test_near_misses_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is not of the form"):
        VersionName.parse(text)


def test_ids_are_judged_alone_too() -> None:
    assert check_id("concept_id", "tom-2") == "tom-2"
    for wrong in ("", "Tom", "tom-", "2tom", "t" * 64, "tom\n"):
        assert not ID.fullmatch(wrong)
        with pytest.raises(InvalidArgument, match=r"concept_id: .* is not an id"):
            check_id("concept_id", wrong)
