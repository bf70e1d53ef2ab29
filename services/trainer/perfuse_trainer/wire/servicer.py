"""`perfuse.v1.TrainerService`: each rpc is message to value, the rule, value to message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from perfuse.client.registry import RegistryClient
from perfuse.errors import (
    ConceptDeleted,
    ConsentMissing,
    DataLoss,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from perfuse.names import BaseModelName, ConceptName, ImageSetName, TenantName, TrainingRunName
from perfuse.serving import audit_events, tracing
from perfuse.serving.edge import Call, Edge
from perfuse.serving.guard import rpc
from perfuse.serving.roles import OPERATOR
from perfuse.storage.listing import Query
from perfuse.v1 import audit_pb2, quotas_pb2
from perfuse.v1 import trainer_pb2 as wire
from perfuse.v1.trainer_pb2_grpc import TrainerServiceServicer
from perfuse_trainer.resources import Event, EventKind, RunState
from perfuse_trainer.runs.runs import RunOrder
from perfuse_trainer.trainer import Trainer
from perfuse_trainer.wire import run_messages
from perfuse_trainer.wire.image_servicer import ImageSetServicer, mutation

_WATCH_PAUSE = 0.25
"""Seconds between two looks for new events."""


class TrainerServicer(ImageSetServicer, TrainerServiceServicer):
    """Answers the Trainer's calls; the caller's tenant comes from the edge.

    Args:
        trainer: the rules.
        registry: asked with the caller's own credential what a run is to learn.
        base_models: ids of those that workers have.
        edge: of the server.
    """

    def __init__(
        self,
        trainer: Trainer,
        registry: RegistryClient,
        base_models: Sequence[str],
        edge: Edge,
    ) -> None:
        self.edge, self._audit = edge, trainer.audit
        edge.on_refusal = trainer.audit.refused
        self.image_sets, self.uploads = trainer.image_sets, trainer.uploads
        self._runs, self._registry = trainer.runs, registry
        self._origins = trainer.origins
        self._base_models = tuple(sorted(base_models))

    @rpc
    async def CreateTrainingRun(
        self, request: wire.CreateTrainingRunRequest, call: Call
    ) -> wire.TrainingRun:
        parent = TenantName.parse(request.parent, "parent")
        if parent.tenant != call.caller.tenant:
            raise _missing(parent)
        asked = mutation(call, request.request_id)
        content = run_messages.content(request)
        made = await call.in_thread(self._runs.earlier, asked, content)
        if made is None:
            order = await self._order(request, call)
            made = await call.in_thread(self._runs.create, asked, order, content)
        return run_messages.run(made)

    @rpc
    async def GetTrainingRun(
        self, request: wire.GetTrainingRunRequest, call: Call
    ) -> wire.TrainingRun:
        name = TrainingRunName.parse(request.name)
        return run_messages.run(await call.in_thread(self._runs.get, call.caller.tenant, name))

    @rpc
    async def ListTrainingRuns(
        self, request: wire.ListTrainingRunsRequest, call: Call
    ) -> wire.ListTrainingRunsResponse:
        parent = TenantName.parse(request.parent, "parent")
        query = Query(request.page_size, request.page_token, request.filter, request.order_by)
        page = await call.in_thread(self._runs.list, call.caller.tenant, parent, query)
        return wire.ListTrainingRunsResponse(
            training_runs=map(run_messages.run, page.items), next_page_token=page.next_page_token
        )

    @rpc
    async def CancelTrainingRun(
        self, request: wire.CancelTrainingRunRequest, call: Call
    ) -> wire.TrainingRun:
        name = TrainingRunName.parse(request.name)
        asked = mutation(call, request.request_id)
        return run_messages.run(await call.in_thread(self._runs.cancel, asked, name))

    @rpc
    async def DeleteTrainingRun(self, request: wire.DeleteTrainingRunRequest, call: Call) -> Empty:
        name = TrainingRunName.parse(request.name)
        await call.in_thread(self._runs.delete, mutation(call, request.request_id), name)
        return Empty()

    @rpc
    async def WatchTrainingRun(
        self, request: wire.WatchTrainingRunRequest, call: Call
    ) -> AsyncIterator[wire.WatchTrainingRunResponse]:
        tenant, name = call.caller.tenant, TrainingRunName.parse(request.name)
        uid = (await call.in_thread(self._runs.get, tenant, name)).uid
        after, ended = request.after_sequence, False
        while not ended:
            events = await call.in_thread(self._runs.events, tenant, name, uid, after)
            for each in events:
                yield await self._answer(tenant, each, call)
                after, ended = each.sequence, _is_last(each)
            if not events:
                # Whoever asks for what comes after the end is told so at once.
                run = await call.in_thread(self._runs.get, tenant, name)
                ended = run.state.is_final and after >= run.next_sequence - 1
                if self.edge.draining and not ended:
                    # A run may take hours; the grace is for calls that end by themselves.
                    raise Unavailable(
                        "the Trainer is ending; the run goes on. Watch again with after_sequence "
                        f"{after}"
                    )
                if not ended:
                    await asyncio.sleep(_WATCH_PAUSE)

    @rpc
    async def GetTrainingUsage(
        self, request: wire.GetTrainingUsageRequest, call: Call
    ) -> wire.GetTrainingUsageResponse:
        name = TenantName.parse(request.name)
        counted = await call.in_thread(self._runs.usage, call.caller.tenant, name)
        return wire.GetTrainingUsageResponse(
            quotas=[
                quotas_pb2.QuotaUsage(quota=each.quota, used=each.used, limit=each.limit)
                for each in counted
            ]
        )

    @rpc
    async def CheckTrainingImage(
        self, request: wire.CheckTrainingImageRequest, call: Call
    ) -> wire.CheckTrainingImageResponse:
        name = TrainingRunName.parse(request.name)
        used, count = await call.in_thread(
            self._origins.learned_from, call.caller.tenant, name, request.digest
        )
        return wire.CheckTrainingImageResponse(used=used, image_count=count)

    @rpc
    async def ListAuditEvents(
        self, request: audit_pb2.ListAuditEventsRequest, call: Call
    ) -> audit_pb2.ListAuditEventsResponse:
        page = await call.in_thread(
            self._audit.list,
            call.caller.tenant,
            request.parent,
            Query(request.page_size, request.page_token, request.filter),
            everyone=OPERATOR in call.caller.roles,
        )
        return audit_events.page(page.items, page.next_page_token)

    async def _answer(self, tenant: str, event: Event, call: Call) -> wire.WatchTrainingRunResponse:
        picture = b""
        if event.blob is not None:
            try:
                picture = await call.in_thread(self._runs.preview, tenant, event.blob)
            except DataLoss:
                # Of a run that is being deleted; its events end with it.
                picture = b""
        return run_messages.event(event, picture)

    async def _order(self, request: wire.CreateTrainingRunRequest, call: Call) -> RunOrder:
        """What is asked for, with all that the Registry knows of it settled."""
        sent = request.training_run
        name = ConceptName.parse(sent.concept, "training_run.concept")
        image_set = ImageSetName.parse(sent.image_set, "training_run.image_set")
        base_model_id = self._base_model(sent.base_model)
        concept, fingerprint = await asyncio.gather(
            self._registry.concept(name, call.authorization),
            self._registry.fingerprint(f"baseModels/{base_model_id}", call.authorization),
        )
        if name.tenant != call.caller.tenant:
            raise _missing(name)
        if concept.deleted:
            raise ConceptDeleted(f"{name} was deleted. Undelete it first, or use another concept")
        if concept.likeness and concept.consent_until is None:
            missing = ConsentMissing(
                f"{name} is a living person's likeness, and there is no live consent to training "
                "it: none was recorded, or it is not yet in force, expired or revoked. Record the "
                "person's consent in the Registry with CreateConsent, or do without"
            )
            missing.resource = str(name)
            raise missing
        if sent.super_category not in ("", concept.super_category):
            raise InvalidArgument.in_field(
                "training_run.super_category",
                f"{sent.super_category!r} is not what {name} is a kind of, which is "
                f"{concept.super_category!r}. Leave it empty",
            )
        return RunOrder(
            tenant=call.caller.tenant,
            run_id=request.training_run_id,
            concept=name,
            image_set=image_set,
            base_model_id=base_model_id,
            settings=run_messages.settings(sent, name.concept, concept.super_category, fingerprint),
            description=sent.description,
            labels=dict(sent.labels),
            exclusive=sent.settings.exclusive,
            consent_until=concept.consent_until if concept.likeness else None,
            traceparent=tracing.carried(),
        )

    def _base_model(self, name: str) -> str:
        if not name:
            if len(self._base_models) == 1:
                return self._base_models[0]
            raise InvalidArgument.in_field(
                "training_run.base_model",
                f"this Trainer has {len(self._base_models)}; choose one of "
                + ", ".join(f"baseModels/{each}" for each in self._base_models),
            )
        base_model_id = BaseModelName.parse(name, "training_run.base_model").base_model
        if base_model_id not in self._base_models:
            refusal = NotFound(
                f"{name} is not installed here; there are "
                + ", ".join(f"baseModels/{each}" for each in self._base_models)
            )
            refusal.resource = name
            raise refusal
        return base_model_id


def _is_last(event: Event) -> bool:
    return event.kind is EventKind.STATE and RunState(event.body["state"]).is_final


def _missing(name: object) -> NotFound:
    refusal = NotFound(f"{name} does not exist, or is not yours to see. Check the name")
    refusal.resource = str(name)
    return refusal


def request_kinds() -> list[type[Message]]:
    """Every kind of request, so that their rules can be compiled before the first call."""
    service = wire.DESCRIPTOR.services_by_name["TrainerService"]
    return [GetMessageClass(method.input_type) for method in service.methods]
