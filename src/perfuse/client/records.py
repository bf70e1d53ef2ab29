"""What is kept of people's consent and of who did what, as callers see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

ConsentScope = Literal["TRAIN", "RENDER"]
"""A use of a living person's likeness."""

ConsentState = Literal["PENDING", "ACTIVE", "EXPIRED", "REVOKED"]
"""Whether a consent counts at the moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """A living person's consent to the use of a likeness.

    Attributes:
        name: `tenants/{tenant}/concepts/{concept}/consents/{consent}`.
        giver: who consented, or where that is written.
        scopes: to what.
        state: as it was when it was read.
        recorder, revoker: who recorded it, and who took it back.
    """

    name: str
    uid: str
    giver: str = field(repr=False)
    scopes: tuple[ConsentScope, ...]
    state: ConsentState
    start_time: datetime | None = None
    expire_time: datetime | None = None
    revoke_time: datetime | None = None
    recorder: str = ""
    revoker: str = ""
    create_time: datetime | None = None
    etag: str = ""

    @property
    def id(self) -> str:
        """The last part of the name."""
        return self.name.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasedAdapter:
    """A file of an erased concept: PENDING, REMOVED, or KEPT since others have the same.

    `preview` says that it was a preview's and no adapter.
    """

    digest: str
    size_bytes: int
    state: str
    holder_count: int
    preview: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """What is left of an erased concept.

    Attributes:
        name: `tenants/{tenant}/erasures/{concept}`.
        concept: whose name is never given again.
        state: ERASING, or COMPLETE once Registry and Trainer have removed what they kept.
        trainer: what the Trainer removed, by the fields of `TrainerErasure`; None before.
        unconfirmed: what the receipt does not vouch for.
        receipt, receipt_mac: canonical JSON and its HMAC-SHA256; empty in lists.
    """

    name: str
    concept: str
    uid: str
    eraser: str
    erase_time: datetime | None
    state: str
    complete_time: datetime | None = None
    version_count: int = 0
    alias_count: int = 0
    grant_count: int = 0
    consent_count: int = 0
    adapters: tuple[ErasedAdapter, ...] = ()
    trainer: dict[str, int] | None = None
    unconfirmed: tuple[str, ...] = ()
    receipt: str = ""
    receipt_mac: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """Who changed what, or was refused to.

    Attributes:
        sequence: rises with every event of the service.
        tenant, subject: the caller.
        rpc: name of the method.
        resource: name of what was changed.
        code: of the gRPC status; `OK` where the change was made.
        request_id: of the request, where it had one.
        call_id: under which the service's log has the call.
        peer: the address that the call came from.
    """

    sequence: int
    event_time: datetime | None
    tenant: str
    subject: str
    rpc: str
    resource: str
    code: str
    request_id: str = ""
    call_id: str = ""
    peer: str = ""
