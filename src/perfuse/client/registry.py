"""The Registry as services call it: asynchronous, with the credential of whoever is asking."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import grpc

from perfuse.adapter.header import digest as digest_of
from perfuse.client.erased import ErasureCalls
from perfuse.client.faults import from_rpc_error, is_of_a_service
from perfuse.client.publication import Publication
from perfuse.client.traces import trace_metadata
from perfuse.errors import DataLoss, FailedPrecondition, PermissionDenied
from perfuse.names import ConceptName, VersionName
from perfuse.v1 import registry_pb2 as wire
from perfuse.v1.registry_pb2_grpc import RegistryServiceStub

MAX_MESSAGE_BYTES = 8 << 20

_log = logging.getLogger(__name__)

ON_BEHALF_OF = "perfuse-tenant"
"""Metadata in which a service says for which tenant it acts."""

THROUGH = "perfuse-service"
"""Metadata in which a service vouches for itself, beside the caller's credential."""

# Only what certainly did nothing is tried again (AIP-194).
_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "perfuse.v1.RegistryService"}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 3,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)


@dataclass(frozen=True, slots=True)
class FoundVersion:
    """What a name of a version stands for at the moment.

    Attributes:
        name: by number.
        digest: of the adapter's bytes.
        base_model: `baseModels/{id}`.
        fingerprint: of the base model.
        super_category: as the adapter says.
        bias, temperature: suggested for rendering.
        likeness: whether it is of a living person.
        consent_until: until when rendering a likeness is consented to; None where it is not.
    """

    name: VersionName
    digest: str
    base_model: str
    fingerprint: str
    super_category: str
    bias: float
    temperature: float
    likeness: bool = False
    consent_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class FoundConcept:
    """A concept as it is at the moment.

    Attributes:
        name: of the concept.
        super_category: what it is a kind of.
        deleted: whether it was deleted and can be undeleted.
        likeness: whether it is of a living person.
        consent_until: until when training a likeness is consented to; None where it is not.
    """

    name: ConceptName
    super_category: str
    deleted: bool
    likeness: bool = False
    consent_until: datetime | None = None


class RegistryClient(ErasureCalls):
    """Calls to one Registry; a channel that is made once and shared.

    Args:
        target: `host:port`.
        credentials: of TLS; None for plain text on loopback.
        timeout: seconds for a call, retries included.
        custody: the service's own credential, with the role `custodian`, as metadata carries it;
            empty for none, and then nothing comes that is shared for rendering alone.
    """

    def __init__(
        self,
        target: str,
        credentials: grpc.ChannelCredentials | None = None,
        *,
        timeout: float = 10.0,
        custody: str = "",
    ) -> None:
        self._custody = custody
        options = [
            ("grpc.service_config", _SERVICE_CONFIG),
            ("grpc.enable_retries", 1),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ]
        if credentials is None:
            self._channel: Any = grpc.aio.insecure_channel(target, options=options)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options=options)
        self._stub: Any = RegistryServiceStub(self._channel)  # type: ignore[no-untyped-call]
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        await self._channel.close()

    async def version(self, name: VersionName, authorization: str) -> FoundVersion:
        """The version that a name stands for, by number, alias or `latest`.

        Args:
            name: of any tenant; what the credential may not see is not found.
            authorization: the caller's own credential, as its metadata had it.

        Raises:
            PerfuseError: as the Registry refused, among them NotFound and Unavailable.
        """
        request = wire.GetVersionRequest(name=str(name))
        return _found(await self._call(self._stub.GetVersion, request, authorization))

    async def adapter(
        self, name: VersionName, authorization: str, *, shared: bool = False
    ) -> tuple[FoundVersion, bytes]:
        """A version with its bytes, whose digest was compared here too.

        Args:
            name: as `version`.
            authorization: as `version`.
            shared: whether it is another tenant's than the caller's: then the service vouches for
                itself, so that it gets what the caller may only render with.

        Raises:
            DataLoss: the bytes are not those of the digest.
            FailedPrecondition: they are shared for rendering alone, and there is no custody.
            PerfuseError: as the Registry refused.
        """
        request = wire.DownloadAdapterRequest(name=str(name))
        through = ((THROUGH, self._custody),) if shared and self._custody else ()
        try:
            answer = await self._call(
                self._stub.DownloadAdapter, request, authorization, further=through
            )
        except PermissionDenied as refusal:
            if not shared or through:
                raise
            raise FailedPrecondition(
                f"{name} is shared for rendering alone, which takes a Renderer with a credential "
                "of its own. Its operator gives it one with PERFUSE_RENDERER_REGISTRY_TOKEN"
            ) from refusal
        found = _found(answer.version)
        if digest_of(answer.adapter) != found.digest:
            raise DataLoss(
                f"the bytes that came for {found.name} are not those of {found.digest}. Download "
                "them again; if that does not help, ask the Registry's operator to verify"
            )
        return found, answer.adapter

    async def concept(
        self, name: ConceptName, authorization: str, *, tenant: str | None = None
    ) -> FoundConcept:
        """A concept.

        Args:
            name: of the concept.
            authorization: the caller's own credential, or a delegate's.
            tenant: for which the delegate acts.

        Raises:
            PerfuseError: as the Registry refused, among them NotFound and Unavailable.
        """
        request = wire.GetConceptRequest(name=str(name))
        found = await self._call(self._stub.GetConcept, request, authorization, tenant)
        name = ConceptName.parse(found.name)
        return FoundConcept(
            name,
            found.super_category,
            found.HasField("delete_time"),
            found.likeness,
            _moment(found, "train_consent_expire_time"),
        )

    async def fingerprint(self, base_model: str, authorization: str) -> str:
        """The fingerprint of a base model, `baseModels/{id}`.

        Raises:
            PerfuseError: as the Registry refused, among them NotFound and Unavailable.
        """
        request = wire.GetBaseModelRequest(name=base_model)
        found = await self._call(self._stub.GetBaseModel, request, authorization)
        return str(found.fingerprint)

    async def publish(self, work: Publication, authorization: str) -> VersionName:
        """Make an adapter the next version of its concept, on behalf of the concept's tenant.

        Args:
            work: what is published.
            authorization: of a service that may act for tenants (role `delegate`).

        Raises:
            PerfuseError: as the Registry refused.
        """
        request = work.request()
        made = await self._call(
            self._stub.CreateVersion, request, authorization, work.concept.tenant
        )
        return VersionName.parse(made.name)

    async def published(self, work: Publication, authorization: str) -> VersionName | None:
        """The version that came of a run already, with the same bytes; None if there is none.

        For publications tried again after the Registry has forgotten their `request_id`.

        Raises:
            PerfuseError: as the Registry refused.
        """
        request = wire.ListVersionsRequest(
            parent=str(work.concept),
            filter=(
                f'training_run = "{work.training_run}" AND digest = "{digest_of(work.adapter)}"'
            ),
            page_size=1,
        )
        page = await self._call(
            self._stub.ListVersions, request, authorization, work.concept.tenant
        )
        return VersionName.parse(page.versions[0].name) if page.versions else None

    async def _call(
        self,
        method: Any,
        request: Any,
        authorization: str,
        tenant: str | None = None,
        further: tuple[tuple[str, str], ...] = (),
    ) -> Any:
        # A caller who showed no token must not pass for us, who have a certificate: an empty
        # credential is one that nobody vouches for. A delegate may be known by it alone.
        known = bool(authorization) or tenant is None
        metadata: tuple[tuple[str, str], ...] = (
            *((("authorization", authorization),) if known else ()),
            *further,
            *trace_metadata(),
        )
        if tenant is not None:
            metadata = (*metadata, (ON_BEHALF_OF, tenant))
        try:
            return await method(request, timeout=self._timeout, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if is_of_a_service(error):
                raise from_rpc_error(error) from None
            unreached = error
        # gRPC's own words name machines and ports: for our log, and not for whoever called us.
        _log.warning("the Registry was not reached: %s", unreached.details())
        fault = from_rpc_error(unreached)
        told = type(fault)("the Registry does not answer at the moment. Call again later")
        told.status = fault.status
        raise told


def _found(sent: wire.Version) -> FoundVersion:
    return FoundVersion(
        name=VersionName.parse(sent.name),
        digest=sent.digest,
        base_model=sent.base_model,
        fingerprint=sent.base_model_fingerprint,
        super_category=sent.super_category,
        bias=sent.bias,
        temperature=sent.temperature,
        likeness=sent.likeness,
        consent_until=_moment(sent, "render_consent_expire_time"),
    )


def _moment(sent: Any, field: str) -> datetime | None:
    if not sent.HasField(field):
        return None
    told: datetime = getattr(sent, field).ToDatetime(UTC)
    return told
