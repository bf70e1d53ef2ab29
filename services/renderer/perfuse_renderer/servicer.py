"""`perfuse.v1.RendererService`: message to order, the studio, events to messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from perfuse.errors import InvalidArgument, NotFound, PerfuseError
from perfuse.quotas import Quotas
from perfuse.serving.audit_log import AuditLog
from perfuse.serving.edge import Call, Edge
from perfuse.serving.guard import rpc
from perfuse.v1 import quotas_pb2
from perfuse.v1 import renderer_pb2 as wire
from perfuse.v1.renderer_pb2_grpc import RendererServiceServicer
from perfuse_renderer import messages
from perfuse_renderer.engine.render import (
    Ended,
    Event,
    Failed,
    Finished,
    Previewed,
    Queued,
    Stepped,
)
from perfuse_renderer.engine.schedulers import KINDS
from perfuse_renderer.metering import Meter
from perfuse_renderer.pictures import encode
from perfuse_renderer.planning import Asker
from perfuse_renderer.pool import AdapterPool
from perfuse_renderer.studio import Commission, Studio


class RendererServicer(RendererServiceServicer):
    """Answers the Renderer's calls.

    Args:
        studios: `baseModels/{id}` → studio.
        pool: of adapters, for the status.
        edge: of the server.
        meter: counts what tenants have; by default one that limits nothing.
        audit: who rendered what; by default told to the log.
    """

    def __init__(
        self,
        studios: Mapping[str, Studio],
        pool: AdapterPool,
        edge: Edge,
        meter: Meter | None = None,
        audit: AuditLog | None = None,
    ) -> None:
        self.edge = edge
        self._audit = audit or AuditLog(None)
        edge.on_refusal = self._audit.refused
        self._meter = meter or Meter(Quotas())
        self._studios = studios
        self._pool = pool

    @rpc
    async def Render(
        self, request: wire.RenderRequest, call: Call
    ) -> AsyncIterator[wire.RenderResponse]:
        studio = self._studio(request.settings.base_model)
        work = await self._commission(studio, request.settings, call)
        events = studio.render(
            call.caller.tenant,
            work,
            deadline=call.deadline,
            preview_every=request.preview_every,
        )
        with self._recorded(call, "Render", work):
            async with aclosing(events) as heard:  # type: ignore[type-var]
                async for event in heard:
                    answer = await self._answer(studio, work, request.settings.format, event, call)
                    if answer is not None:
                        yield answer

    @rpc
    async def GenerateImages(
        self, request: wire.GenerateImagesRequest, call: Call
    ) -> wire.GenerateImagesResponse:
        studio = self._studio(request.settings.base_model)
        work = await self._commission(studio, request.settings, call)
        events = studio.render(call.caller.tenant, work, deadline=call.deadline)
        images: dict[int, wire.RenderedImage] = {}
        with self._recorded(call, "GenerateImages", work):
            async with aclosing(events) as heard:  # type: ignore[type-var]
                async for event in heard:
                    answer = await self._answer(studio, work, request.settings.format, event, call)
                    if answer is not None and answer.HasField("image"):
                        images[answer.image.image_index] = answer.image
        return wire.GenerateImagesResponse(images=[images[index] for index in sorted(images)])

    @rpc
    async def GetRendererStatus(
        self, request: wire.GetRendererStatusRequest, call: Call
    ) -> wire.GetRendererStatusResponse:
        return wire.GetRendererStatusResponse(
            base_models=[
                wire.ResidentBaseModel(
                    name=name,
                    fingerprint=studio.base.fingerprint,
                    picture_size=studio.picture_size,
                )
                for name, studio in sorted(self._studios.items())
            ],
            schedulers=sorted(KINDS),
            running_count=sum(studio.backend.running for studio in self._studios.values()),
            waiting_count=sum(studio.backend.waiting for studio in self._studios.values()),
            resident_adapter_count=self._pool.count,
            resident_adapter_bytes=self._pool.size_bytes,
            quotas=[
                quotas_pb2.QuotaUsage(quota=each.quota, used=each.used, limit=each.limit)
                for each in self._meter.used(call.caller.tenant)
            ],
        )

    async def _commission(
        self, studio: Studio, settings: wire.RenderSettings, call: Call
    ) -> Commission:
        """The order settled, and its pictures counted."""
        asked = len(settings.seeds) or settings.image_count or 1
        # Whoever has had enough is not planned for either.
        self._meter.require(call.caller.tenant, asked)
        work = await studio.commission(_asker(call), messages.order(settings))
        self._meter.take(call.caller.tenant, asked)
        return work

    @contextmanager
    def _recorded(self, call: Call, rpc: str, work: Commission) -> Iterator[None]:
        """Record what was rendered with; what fails with an error, the edge tells of."""
        prompts = (work.planned, work.negative) if work.negative else (work.planned,)
        versions = sorted({str(one.version) for each in prompts for one in each.concepts})
        code = "OK"
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            code = "CANCELLED"
            raise
        except BaseException:
            code = ""
            raise
        finally:
            if code:
                self._audit.record(call, rpc, versions, code)

    def _studio(self, name: str) -> Studio:
        if not name:
            if len(self._studios) == 1:
                return next(iter(self._studios.values()))
            raise InvalidArgument.in_field(
                "settings.base_model",
                f"this Renderer has {len(self._studios)}; choose {', '.join(self._studios)}",
            )
        studio = self._studios.get(name)
        if studio is None:
            error = NotFound(
                f"{name} is not resident here; there are {', '.join(sorted(self._studios))}"
            )
            error.resource = name
            raise error
        return studio

    async def _answer(
        self,
        studio: Studio,
        work: Commission,
        form: wire.PictureFormat,
        event: Event,
        call: Call,
    ) -> wire.RenderResponse | None:
        """The message of an event; None for the end. A failure ends the call with its error."""
        match event:
            case Queued(position, wait):
                queued = wire.Queued(position=position, expected_wait_seconds=wait)
                return wire.RenderResponse(queued=queued)
            case Stepped(index, step, steps, seconds):
                self._meter.spend(call.caller.tenant, seconds)
                progress = wire.Progress(image_index=index, step=step, steps=steps)
                return wire.RenderResponse(progress=progress)
            case Previewed(index, step, pixels):
                file = await call.in_thread(encode, pixels, "JPEG")
                preview = wire.Preview(image_index=index, step=step, picture=file)
                return wire.RenderResponse(preview=preview)
            case Finished(index, pixels):
                record = messages.record(studio.record(work, index))
                name = messages.format_name(form)
                told = MessageToDict(record, preserving_proto_field_name=True)
                file = await call.in_thread(encode, pixels, name, told)
                image = wire.RenderedImage(
                    image_index=index,
                    picture=file,
                    format=messages.FORMATS[name],
                    record=record,
                )
                return wire.RenderResponse(image=image)
            case Failed(_, error):
                raise error
            case Ended(error):
                if isinstance(error, PerfuseError):
                    raise error
                return None


def _asker(call: Call) -> Asker:
    return Asker(call.caller.tenant, call.authorization)


def request_kinds() -> list[type[Message]]:
    """Every kind of request, so that their rules can be compiled before the first call."""
    service = wire.DESCRIPTOR.services_by_name["RendererService"]
    return [getattr(wire, method.input_type.name) for method in service.methods]
