"""Who may call what: one row for each rpc of the three services, and nowhere else a word about it.

A row says which role the rpc asks for and where its request names what is a tenant's. The edge
reads it before any rule runs: the role first, then the names. A server refuses to start with a
method that has no row, and a test holds the table against the protos.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perfuse.errors import FailedPrecondition, NotFound, PermissionDenied
from perfuse.names import ID
from perfuse.serving.roles import (
    ADMIN,
    CUSTODIAN,
    DELEGATE,
    GRANTED_BY,
    OPERATOR,
    PUBLISHER,
    READER,
    RENDERER,
    TRAINER,
)

_NAME = re.compile("(tenants|baseModels)(/[A-Za-z0-9-]{1,63}){1,7}")
_READS = re.compile("(Get|List|BatchGet|Check|Watch|Download|Verify)[A-Z]")


@dataclass(frozen=True, slots=True)
class Row:
    """What one rpc asks of its caller.

    Attributes:
        rpc: Its name within its service.
        role: That the caller must have, or one that implies it.
        own: Fields of the request whose names must be of the caller's tenant, as `parent` or
            `concept.name`; the edge refuses others as if they did not exist. An empty field, and a
            name that is none, are the rules' to refuse.
        within: As `own`, of names within a concept; the refusal names the concept, as the rules do
            that look for it first.
        shared: Fields whose names may be another tenant's as well, where that tenant granted it:
            the rules look at them, and not the edge.
        delegate: Whether a delegate may call it for the tenant that it acts for.
        operator: Whether an operator may call it too.
        custodian: Whether a custodian may call it by itself, to know what it may no longer keep.
    """

    rpc: str
    role: str
    own: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    delegate: bool = False
    operator: bool = False
    custodian: bool = False

    @property
    def reads(self) -> bool:
        """Whether the rpc changes nothing, which its name tells."""
        return _READS.match(self.rpc) is not None

    def named(self, request: Any) -> str:
        """The name that the request gives first; empty where what it gives is none."""
        for path in (*self.own, *self.within, *self.shared, "name"):
            value = request
            for field in path.split("."):
                value = getattr(value, field, "")
            if isinstance(value, str) and _NAME.fullmatch(value):
                return value
        return ""

    def check_role(self, roles: frozenset[str], subject: str) -> None:
        """Let a caller pass who has such a role.

        Raises:
            PermissionDenied: it has none that grants what the rpc asks for.
        """
        if not GRANTED_BY[self.role].isdisjoint(roles):
            return
        if (self.delegate and DELEGATE in roles) or (self.operator and OPERATOR in roles):
            return
        if self.custodian and CUSTODIAN in roles:
            return
        raise PermissionDenied(
            f"{self.rpc} needs the role {self.role!r}, which {subject!r} does not have; call with "
            "a token that has it"
        )

    def check_names(self, tenant: str, request: Any) -> None:
        """Let a request pass that names nothing of another tenant's.

        Raises:
            NotFound: for the first name that does.
        """
        for path in self.own:
            for name in _values(request, path):
                if _is_anothers(name, tenant):
                    raise _missing(name)
        for path in self.within:
            for name in _values(request, path):
                if _is_anothers(name, tenant):
                    raise _missing("/".join(name.split("/")[:4]))


class Policy:
    """The rows, found by an rpc's full name, `package.Service/Method`.

    Args:
        services: Full name of a service → its rows.

    Raises:
        FailedPrecondition: a row asks for a role that is none, or an rpc has two.
    """

    def __init__(self, services: Mapping[str, Sequence[Row]]) -> None:
        self._rows = {
            f"{service}/{row.rpc}": row for service, rows in services.items() for row in rows
        }
        for row in self._rows.values():
            if row.role not in GRANTED_BY:
                raise FailedPrecondition(
                    f"{row.rpc} asks for {row.role!r}, which is not a role; it must be one of "
                    + ", ".join(GRANTED_BY)
                )
        if len(self._rows) != sum(map(len, services.values())):
            raise FailedPrecondition("an rpc has two rows in the policy; leave one")

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def row(self, rpc: str) -> Row:
        """The row of an rpc.

        Raises:
            FailedPrecondition: it has none.
        """
        row = self._rows.get(rpc)
        if row is None:
            raise FailedPrecondition(
                f"{rpc} has no row in the policy, so nobody could call it; add one to "
                "perfuse.serving.policy"
            )
        return row


def owner_of(name: str) -> str | None:
    """The tenant in a resource's name, None where there is none."""
    collection, _, rest = name.partition("/")
    owner = rest.partition("/")[0]
    return owner if collection == "tenants" and ID.fullmatch(owner) else None


def _is_anothers(name: str, tenant: str) -> bool:
    return not name.startswith(f"tenants/{tenant}/") and owner_of(name) not in (None, tenant)


def _values(request: Any, path: str) -> Sequence[str]:
    value = request
    for field in path.split("."):
        value = getattr(value, field)
    return (value,) if isinstance(value, str) else value


def _missing(name: str) -> NotFound:
    refusal = NotFound(f"{name} does not exist, or is not yours to see. Check the name")
    refusal.resource = name
    return refusal


POLICY = Policy(
    {
        "perfuse.v1.RegistryService": (
            Row("CreateConcept", PUBLISHER, own=("parent",)),
            Row("GetConcept", READER, delegate=True, shared=("name",)),
            Row("ListConcepts", READER, own=("parent",)),
            Row("UpdateConcept", PUBLISHER, own=("concept.name",)),
            Row("DeleteConcept", PUBLISHER, own=("name",)),
            Row("UndeleteConcept", PUBLISHER, own=("name",)),
            Row("EraseConcept", ADMIN, own=("name",)),
            Row("GetErasure", ADMIN, own=("name",)),
            # The rule looks whose: the parent may be every tenant.
            Row(
                "ListErasures",
                ADMIN,
                shared=("parent",),
                delegate=True,
                operator=True,
                custodian=True,
            ),
            Row("ConfirmErasure", DELEGATE, own=("name",)),
            Row("CreateVersion", PUBLISHER, own=("parent",), delegate=True),
            Row("GetVersion", READER, shared=("name",)),
            Row("ListVersions", READER, shared=("parent",), delegate=True),
            Row("UpdateVersion", PUBLISHER, within=("version.name",)),
            Row("DeleteVersion", PUBLISHER, within=("name",)),
            Row("BatchGetVersions", READER, own=("parent",), shared=("names",)),
            Row("DownloadAdapter", READER, shared=("name",)),
            Row("DownloadPreview", READER, shared=("name",)),
            Row("CreateAlias", PUBLISHER, own=("parent",)),
            Row("GetAlias", READER, shared=("name",)),
            Row("ListAliases", READER, shared=("parent",)),
            Row("UpdateAlias", PUBLISHER, within=("alias.name",)),
            Row("DeleteAlias", PUBLISHER, within=("name",)),
            Row("ListAliasMoves", READER, within=("parent",)),
            Row("CreateGrant", ADMIN, own=("parent",)),
            Row("GetGrant", READER, shared=("name",)),
            Row("ListGrants", READER, own=("parent",)),
            Row("DeleteGrant", ADMIN, own=("name",)),
            Row("ListReceivedGrants", READER, own=("parent",)),
            Row("GetStorageUsage", READER, own=("name",)),
            Row("CreateConsent", PUBLISHER, own=("parent",)),
            Row("GetConsent", PUBLISHER, own=("name",)),
            Row("ListConsents", PUBLISHER, own=("parent",)),
            Row("RevokeConsent", PUBLISHER, own=("name",)),
            Row("CreateBaseModel", OPERATOR),
            Row("GetBaseModel", READER),
            Row("ListBaseModels", READER),
            Row("DeleteBaseModel", OPERATOR),
            Row("CheckCompatibility", READER, shared=("version",)),
            Row("CheckBlend", READER, own=("parent",), shared=("versions",)),
            Row("VerifyIntegrity", OPERATOR),
            Row("CollectGarbage", OPERATOR),
            # The rule looks whose: an operator's parent may be every tenant.
            Row("ListAuditEvents", ADMIN, shared=("parent",), operator=True),
        ),
        "perfuse.v1.TrainerService": (
            Row("CreateImageSet", TRAINER, own=("parent",)),
            Row("UploadImages", TRAINER, own=("image_set",)),
            Row("GetImageSet", READER, own=("name",)),
            Row("ListImageSets", READER, own=("parent",)),
            Row("DeleteImageSet", TRAINER, own=("name",)),
            Row(
                "CreateTrainingRun",
                TRAINER,
                own=("parent", "training_run.concept", "training_run.image_set"),
            ),
            Row("GetTrainingRun", READER, own=("name",)),
            Row("ListTrainingRuns", READER, own=("parent",)),
            Row("CancelTrainingRun", TRAINER, own=("name",)),
            Row("CheckTrainingImage", TRAINER, own=("name",)),
            Row("DeleteTrainingRun", TRAINER, own=("name",)),
            Row("WatchTrainingRun", READER, own=("name",)),
            Row("ListAuditEvents", ADMIN, shared=("parent",), operator=True),
            Row("GetTrainingUsage", READER, own=("name",)),
        ),
        # What a prompt names, the Registry is asked for with the caller's own credential.
        "perfuse.v1.RendererService": (
            Row("Render", RENDERER),
            Row("GenerateImages", RENDERER),
            Row("GetRendererStatus", READER),
        ),
    }
)
