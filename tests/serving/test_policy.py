"""The table of who may call what: whole, and nothing in it that is not there."""

from __future__ import annotations

from typing import Any

import pytest
from security.requests import METHODS, about, empty

from perfuse.errors import FailedPrecondition, PermissionDenied
from perfuse.serving.policy import POLICY, Policy, Row, owner_of
from perfuse.serving.roles import GRANTED_BY


def test_every_rpc_has_a_row_and_every_row_an_rpc() -> None:
    assert set(POLICY) == set(METHODS)


@pytest.mark.parametrize("rpc", METHODS)
def test_every_name_of_a_request_is_somebodys(rpc: str) -> None:
    """Fields that name what is a tenant's are in the row; the others concern base models."""
    row, request = POLICY.row(rpc), METHODS[rpc].input_type
    named = {path: field_of(request, path) for path in (*row.own, *row.within, *row.shared)}
    assert all(field.cpp_type == field.CPPTYPE_STRING for field in named.values())
    for name in {"name", "names", "parent", "versions"} & set(request.fields_by_name):
        assert name in named or "BaseModel" in rpc
    for field in request.fields:
        # Update: the name stands in the resource.
        kind = field.message_type
        if "Update" in request.name and kind is not None and "name" in kind.fields_by_name:
            assert f"{field.name}.name" in named


@pytest.mark.parametrize("rpc", METHODS)
def test_a_refusal_can_be_recorded_with_what_it_was_about(rpc: str) -> None:
    row, request = POLICY.row(rpc), about(rpc, "acme")
    if row.own or row.within or row.shared:
        assert row.named(request).startswith("tenants/acme")
        assert row.named(empty(rpc)) == ""
    elif "name" in METHODS[rpc].input_type.fields_by_name:
        assert row.named(request) == request.name


def field_of(message: Any, path: str) -> Any:
    first, _, rest = path.partition(".")
    field = message.fields_by_name[first]
    return field_of(field.message_type, rest) if rest else field


@pytest.mark.parametrize("role", GRANTED_BY)
def test_a_row_lets_pass_whom_its_role_names(role: str) -> None:
    row = Row("Ask", role)
    for mine in GRANTED_BY:
        if mine in GRANTED_BY[role]:
            row.check_role(frozenset({mine}), "alice")
        else:
            with pytest.raises(PermissionDenied, match=f"needs the role '{role}'"):
                row.check_role(frozenset({mine}), "alice")
    with pytest.raises(PermissionDenied):
        row.check_role(frozenset(), "alice")


def test_nobody_has_a_way_round_the_operator() -> None:
    for_all = {rpc for rpc in METHODS if POLICY.row(rpc).role == "operator"}
    assert for_all
    assert not any(POLICY.row(rpc).delegate for rpc in for_all)
    assert GRANTED_BY["operator"] == {"operator"}


def test_a_table_that_contradicts_itself_is_none() -> None:
    with pytest.raises(FailedPrecondition, match="two rows"):
        Policy({"p.S": [Row("Ask", "reader"), Row("Ask", "admin")]})
    with pytest.raises(FailedPrecondition, match="'root', which is not a role"):
        Policy({"p.S": [Row("Ask", "root")]})
    with pytest.raises(FailedPrecondition, match="Tell has no row"):
        Policy({"p.S": [Row("Ask", "reader")]}).row("p.S/Tell")


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("tenants/acme", "acme"),
        ("tenants/acme/concepts/tom", "acme"),
        ("tenants/acme/", "acme"),
        ("tenants/", None),
        ("tenants//concepts/tom", None),
        ("tenants/-/concepts/tom", None),
        ("tenants/Acme", None),
        ("baseModels/sd15", None),
        ("", None),
    ],
)
def test_the_owner_of_a_name(name: str, owner: str | None) -> None:
    assert owner_of(name) == owner
