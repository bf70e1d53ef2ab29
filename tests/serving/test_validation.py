"""The protos' own rules, held by protovalidate."""

from __future__ import annotations

from perfuse.serving import ProtovalidateValidator
from perfuse.serving.validation import refusal
from perfuse.v1 import registry_pb2


def test_broken_rules_are_found_by_field() -> None:
    validator = ProtovalidateValidator()
    validator.prepare(registry_pb2.ListConceptsRequest)
    right = registry_pb2.ListConceptsRequest(parent="tenants/acme", page_size=10)
    assert validator.validate(right) == []
    wrong = registry_pb2.ListConceptsRequest(parent="tenants/Acme", page_size=-1)
    found = dict(validator.validate(wrong))
    assert set(found) == {"parent", "page_size"}
    assert found["page_size"] == "must be greater than or equal to 0"


def test_a_path_goes_into_maps_and_lists() -> None:
    request = registry_pb2.CreateConceptRequest(
        parent="tenants/acme",
        concept_id="tom",
        concept=registry_pb2.Concept(super_category="cat", labels={"Bad Key!": "x"}),
    )
    (field, _), *_ = ProtovalidateValidator().validate(request)
    assert field == 'concept.labels["Bad Key!"]'


def test_a_refusal_says_what_is_wrong_first_and_how_much_more_there_is() -> None:
    assert str(refusal([("name", "too long")])) == "name: too long"
    error = refusal([("", "both at once"), ("name", "too long"), ("count", "too small")])
    assert str(error) == "both at once (and 2 more)"
    assert len(error.violations) == 3
