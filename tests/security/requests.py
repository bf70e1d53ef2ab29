"""A request for every rpc, made from the descriptors: whole, and about what is a given tenant's."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from protovalidate import Validator
from registry import samples

from perfuse.adapter import digest
from perfuse.serving.policy import POLICY
from perfuse.v1 import registry_pb2, renderer_pb2, trainer_pb2

METHODS: dict[str, MethodDescriptor] = {
    f"{service.full_name}/{method.name}": method
    for module in (registry_pb2, trainer_pb2, renderer_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
"""Every rpc of the three services, by its full name."""

IDS = {
    "concepts": "tom",
    "versions": "1",
    "aliases": "prod",
    "grants": "initech",
    "erasures": "gone",
    "imageSets": "tom",
    "trainingRuns": "first",
    "baseModels": "small",
}
"""Ids of what a tenant has, by its collection; other collections' ids are `tom` too."""

PREVIEW = samples.picture(1)
"""That the version has."""

_OWNED = {
    "parent": "tenants/{}",
    "concept": "tenants/{}/concepts/tom",
    "image_set": "tenants/{}/imageSets/tom",
}
_RESOURCES = {
    "Concept": "tenants/{}/concepts/tom",
    "Version": "tenants/{}/concepts/tom/versions/1",
    "Alias": "tenants/{}/concepts/tom/aliases/prod",
    "Erasure": "tenants/{}/erasures/gone",
    "ImageSet": "tenants/{}/imageSets/tom",
    "TrainingRun": "tenants/{}/trainingRuns/first",
}
_TOO_MANY = 40


def empty(rpc: str) -> Any:
    """A request with nothing in it."""
    return GetMessageClass(METHODS[rpc].input_type)()


def about(rpc: str, tenant: str) -> Any:
    """A request that keeps the proto's rules and names what is the tenant's."""
    request, row = empty(rpc), POLICY.row(rpc)
    for path in (*row.own, *row.within):
        _put(request, path, tenant, rpc)
    if row.rpc == "DownloadPreview":
        request.digest = digest(PREVIEW)
    for _ in range(_TOO_MANY):
        violations = _validator().collect_violations(request)
        if not violations:
            return request
        _mend(request, violations[0].proto, tenant)
    raise AssertionError(f"no request of {rpc} keeps the rules: {violations[0].proto}")


@cache
def _validator() -> Validator:
    return Validator()


def _put(request: Message, path: str, tenant: str, rpc: str) -> None:
    """Fill a field whose rule, if it has one, the proto does not state."""
    *parents, name = path.split(".")
    holder: Any = request
    for each in parents:
        holder = getattr(holder, each)
        holder.SetInParent()
    field = holder.DESCRIPTOR.fields_by_name[name]
    if name == "name":
        noun = holder.DESCRIPTOR.name if parents else rpc.split("/")[1]
        form = next((form for kind, form in _RESOURCES.items() if noun.endswith(kind)), "")
        holder.name = form.format(tenant)
    elif name in _OWNED and not field.is_repeated:
        setattr(holder, name, _OWNED[name].format(tenant))


def _mend(request: Message, violation: Any, tenant: str) -> None:
    """Give the field that breaks a rule a value that keeps it."""
    holder: Any = request
    *path, last = violation.field.elements
    for element in path:
        holder = getattr(holder, element.field_name)
        if element.subscript is not None:
            holder = holder[element.subscript.value]
    name, rule = last.field_name, violation.rule_id
    field = holder.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        # A oneof that must have one of its fields.
        field = holder.DESCRIPTOR.oneofs_by_name[name].fields[0]
        name = field.name
    if rule == "repeated.min_items":
        several = getattr(holder, name)
        several.add() if field.message_type else several.append("")
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        getattr(holder, name).SetInParent()
        if field.message_type.name == "Timestamp":
            getattr(holder, name).FromJsonString("2126-01-01T00:00:00Z")
    elif field.type == FieldDescriptor.TYPE_ENUM:
        setattr(holder, name, 1)
    elif rule == "string.pattern":
        text = sample(re.findall("`(.*)`", violation.message)[0], tenant)
        if last.subscript is not None:
            getattr(holder, name)[last.subscript.value] = text
        else:
            setattr(holder, name, text)
    elif field.type == FieldDescriptor.TYPE_BYTES:
        setattr(holder, name, b"x")
    elif field.type == FieldDescriptor.TYPE_STRING:
        setattr(holder, name, "x")
    else:
        setattr(holder, name, 1)


def sample(pattern: str, tenant: str) -> str:
    """A text that the pattern of a name, an id or a digest matches."""
    text = pattern.removeprefix("^").removesuffix("$").replace("[0-9a-f]{64}", "a" * 64)
    text = text.replace("tenants/([a-z]([a-z0-9-]{0,61}[a-z0-9])?|-)", f"tenants/{tenant}")
    text = text.replace("([1-9][0-9]{0,17}|[a-z]([a-z0-9-]{0,61}[a-z0-9])?)", "ID")
    text = text.replace("[a-z]([a-z0-9-]{0,61}[a-z0-9])?", "ID")
    parts = text.split("/")
    for place, part in enumerate(parts):
        if part == "ID":
            collection = parts[place - 1] if place else ""
            parts[place] = tenant if collection == "tenants" else IDS.get(collection, "tom")
    text = "/".join(parts)
    assert re.fullmatch(pattern, text), f"nothing is known that {pattern} matches; it is not {text}"
    return text
