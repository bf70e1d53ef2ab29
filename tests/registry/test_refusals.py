"""No message, however made, has the Registry fail: it is answered, or refused in known words."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from perfuse.adapter import digest
from registry import samples
from registry.served import BASE_MODEL, METHODS, Client, Installation, Refusal, Tenant
from registry.test_erasure import acting_for

MESSAGES = 20
CODES = {"INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "ABORTED"}

INTEGERS = (0, 1, 2, 12, 1000, 2**31 - 1, -1)
DOUBLES = (0.0, 0.7, -1.0, float("nan"), float("inf"), 1e308)
TEXTS = (
    "", "tom", "latest", "1", "x" * 300, "a\0b", "\u202e🐈", "' OR 1=1 --", "%s",
    str(uuid4()), '"0-1"', "sha256:" + "0" * 64, "labels.a = b", "concept_id desc", "number",
    'display_name = "a*" OR NOT concept_id:tom', "(" * 300, "update_time", "description", "*",
    samples.FINGERPRINT, BASE_MODEL, "tenants/nobody",
)  # fmt: skip


def likely(field: FieldDescriptor, tenant: str) -> tuple[str, ...]:
    """What a caller in good faith might write there."""
    tom = f"{tenant}/concepts/tom"
    versions = tuple(f"{tom}/versions/{which}" for which in ("1", "2", "9", "latest", "prod"))
    owner = field.containing_type.name
    if field.name in {"version", "versions", "names"} or "Version" in owner or "Adapter" in owner:
        named: tuple[str, ...] = versions
    elif "AliasMoves" in owner or owner in {"Alias", "GetAliasRequest", "DeleteAliasRequest"}:
        named = (f"{tom}/aliases/prod", f"{tom}/aliases/beta")
    else:
        named = (tom, f"{tenant}/concepts/tim") if "BaseModel" not in owner else (BASE_MODEL,)
    if owner in {"CreateConceptRequest", "ListConceptsRequest"} or "Batch" in owner:
        parents: tuple[str, ...] = (tenant,)
    else:
        parents = (tenant,) if owner == "CheckBlendRequest" else (tom,)
    pools = {
        "name": named,
        "version": versions,
        "versions": versions,
        "names": versions,
        "parent": named if "AliasMoves" in owner else parents,
        "base_model": (BASE_MODEL, "baseModels/none"),
        "request_id": ("", str(uuid4())),
        "digest": (digest(samples.adapter(3)),),
        "known_digest": ("", digest(samples.adapter(1))),
        "covariance_digest": ("",),
        "fingerprint": (samples.FINGERPRINT, "sha256:" + "0" * 64),
        "training_run": ("", f"{tenant}/trainingRuns/one"),
        "filter": ("", "create_time > 2020-01-01T00:00:00Z", "labels.a != b", "number > 1"),
        "order_by": ("", "create_time", "number desc"),
        "page_token": ("",),
        "etag": ("", '"0-1"'),
        "paths": ("description", "labels", "*"),
        "tenant": (tenant.partition("/")[2],),
        "super_category": ("cat",),
    }
    return pools.get(field.name, ("tom", "tim", "prod"))


class Chance:
    """Makes messages at random, the same in every run."""

    def __init__(self, seed: str, tenant: str) -> None:
        self._random = random.Random(seed)
        self._tenant = tenant

    def message(self, kind: type[Message]) -> Any:
        """A message with most of its fields set, to any depth."""
        made = kind()
        self._fill(made)
        return made

    def _fill(self, made: Any) -> None:
        for field in made.DESCRIPTOR.fields:
            inner = field.message_type
            if self._random.random() < 0.08:
                continue
            if inner is not None and inner.GetOptions().map_entry:
                for key in self._random.sample(("a", "b", "team/x", "A", "k" * 70), 2)[:1]:
                    value = self._value(inner.fields_by_name["value"])
                    getattr(made, field.name)[key] = value
            elif inner is not None and field.is_repeated:
                for _ in range(self._random.randint(0, 2)):
                    self._fill(getattr(made, field.name).add())
            elif inner is not None:
                getattr(made, field.name).SetInParent()
                self._fill(getattr(made, field.name))
            elif field.is_repeated:
                count = self._random.randint(0, 3)
                getattr(made, field.name).extend(self._value(field) for _ in range(count))
            else:
                setattr(made, field.name, self._value(field))

    def _value(self, field: FieldDescriptor) -> Any:
        choices: Sequence[Any] = INTEGERS
        if field.type == FieldDescriptor.TYPE_STRING:
            # Good faith in most fields, for a message to get past the first of them.
            hostile = self._random.random() < 0.05
            choices = TEXTS if hostile else likely(field, self._tenant)
        elif field.type == FieldDescriptor.TYPE_BYTES:
            data = samples.adapter(3)
            choices = (data, data, data[:-1], b"", bytes(9))
        elif field.type == FieldDescriptor.TYPE_BOOL:
            choices = (False, True)
        elif field.type == FieldDescriptor.TYPE_ENUM:
            choices = (0, 1, 99)
        elif field.type == FieldDescriptor.TYPE_DOUBLE:
            choices = DOUBLES
        return self._random.choice(choices)


@pytest.fixture(scope="module")
def tenant(installation: Installation) -> Tenant:
    """Something for the names to hit; what calls leave behind is there for the next ones."""
    made = installation.tenant()
    made.concept()
    made.alias("prod", made.version(1))
    made.version(2)
    return made


@pytest.fixture(scope="module")
def caller(tenant: Tenant) -> Client:
    return tenant.installation.client(tenant.id, "admin", "operator")


@pytest.mark.parametrize("method", METHODS)
def test_every_message_is_answered_or_refused(tenant: Tenant, caller: Client, method: str) -> None:
    kind = GetMessageClass(METHODS[method].input_type)
    chance = Chance(method, tenant.name)
    if method == "ConfirmErasure":
        caller = acting_for(tenant)  # Which nobody's own roles allow.
    # Those that look at everything that is stored take long.
    for _ in range(2 if method in {"VerifyIntegrity", "CollectGarbage"} else MESSAGES):
        request = chance.message(kind)
        if method == "DeleteBaseModel" and request.name == BASE_MODEL:
            continue
        try:
            getattr(caller, method)(request)
        except Refusal as refusal:
            if refusal.code not in CODES:
                pytest.fail(f"{method} of {request}: {refusal}")
