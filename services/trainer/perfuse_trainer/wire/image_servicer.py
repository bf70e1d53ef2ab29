"""The half of `perfuse.v1.TrainerService` that answers for image sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from google.protobuf.empty_pb2 import Empty

from perfuse.errors import DeadlineExceeded
from perfuse.names import ImageSetName, TenantName
from perfuse.serving.edge import Call, Edge
from perfuse.serving.guard import rpc
from perfuse.storage.requests import Mutation
from perfuse.v1 import trainer_pb2 as wire
from perfuse_trainer.sets.image_sets import ImageSets
from perfuse_trainer.sets.uploads import Uploads
from perfuse_trainer.wire import image_messages as messages
from perfuse_trainer.wire.image_stream import ImageStream, named_set

IDLE_SECONDS = 60.0
"""The longest that an upload waits for its next message."""


class ImageSetServicer:
    """Answers the calls about image sets, for a servicer to inherit from.

    Attributes:
        edge: Of the servicer.
        image_sets: The rules.
        uploads: Images on their way into sets.
    """

    edge: Edge
    image_sets: ImageSets
    uploads: Uploads

    @rpc
    async def CreateImageSet(
        self, request: wire.CreateImageSetRequest, call: Call
    ) -> wire.ImageSet:
        made = await call.in_thread(
            self.image_sets.create,
            mutation(call, request.request_id),
            TenantName.parse(request.parent, "parent"),
            request.image_set_id,
            keep=request.image_set.keep,
            ttl=messages.ttl(request.image_set),
        )
        return messages.image_set(made)

    @rpc
    async def UploadImages(
        self, requests: AsyncIterator[wire.UploadImagesRequest], call: Call
    ) -> wire.ImageSet:
        name = named_set(await _next(requests, IDLE_SECONDS))
        upload = self.uploads.open(mutation(call, ""), name)
        try:
            await call.in_thread(upload.begin)
            stream = ImageStream()
            ended = False
            while not ended:
                message = await _next(requests, min(IDLE_SECONDS, upload.remaining))
                ended = message is None
                complete = stream.take(message)
                if complete is not None:
                    await call.in_thread(upload.add, *complete)
                if message is not None and _begins_image(message):
                    upload.expect(message.header.file_name, message.header.digest)
            return messages.image_set(await call.in_thread(upload.commit))
        finally:
            # Also where the call was cancelled, and then on no thread that calls wait for.
            await asyncio.shield(asyncio.to_thread(upload.abandon))

    @rpc
    async def GetImageSet(self, request: wire.GetImageSetRequest, call: Call) -> wire.ImageSet:
        name = ImageSetName.parse(request.name)
        return messages.image_set(
            await call.in_thread(self.image_sets.get, call.caller.tenant, name)
        )

    @rpc
    async def ListImageSets(
        self, request: wire.ListImageSetsRequest, call: Call
    ) -> wire.ListImageSetsResponse:
        parent = TenantName.parse(request.parent, "parent")
        page = await call.in_thread(
            self.image_sets.list, call.caller.tenant, parent, messages.query(request)
        )
        return wire.ListImageSetsResponse(
            image_sets=map(messages.image_set, page.items), next_page_token=page.next_page_token
        )

    @rpc
    async def DeleteImageSet(self, request: wire.DeleteImageSetRequest, call: Call) -> Empty:
        await call.in_thread(
            self.image_sets.delete,
            mutation(call, request.request_id),
            ImageSetName.parse(request.name),
        )
        return Empty()


def mutation(call: Call, request_id: str) -> Mutation:
    """Who changes something, under which request id; a UUID is the same in capitals."""
    return Mutation(
        call.caller.tenant, call.caller.subject, request_id.lower(), call.request_id, call.peer
    )


def _begins_image(message: wire.UploadImagesRequest) -> bool:
    return message.HasField("header") and not message.header.is_mask


async def _next(
    messages: AsyncIterator[wire.UploadImagesRequest], seconds: float
) -> wire.UploadImagesRequest | None:
    """The next message, None at the stream's end."""
    try:
        async with asyncio.timeout(seconds):
            return await anext(messages, None)
    except TimeoutError:
        raise DeadlineExceeded(
            f"no message came for {seconds:.0f} seconds, or the upload took too long in all. "
            "Upload the images again, if need be in several calls"
        ) from None
