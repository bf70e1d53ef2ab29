"""Image sets, as callers use them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from perfuse.client import reading_trainer as reading
from perfuse.client._sync.calls import Calls
from perfuse.client.channels import sync_pause
from perfuse.client.training import ImageSet
from perfuse.client.uploads import Picture, read_pictures, upload_parts
from perfuse.client.writing import request_id_or_new
from perfuse.errors import Unavailable
from perfuse.v1 import trainer_pb2 as wire

_UPLOAD_SECONDS = 300.0
_ATTEMPTS = 4


class ImageSets:
    """Image sets of the Trainer; meant by id or whole name."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def create(
        self,
        image_set: str = "",
        *,
        keep: bool = False,
        ttl: timedelta | None = None,
        request_id: str = "",
    ) -> ImageSet:
        """Make an empty image set.

        Args:
            image_set: its id to be; drawn by the Trainer where it is empty.
            keep: keep the images when the last run that uses them has ended.
            ttl: how long at most; seven days by default.
            request_id: the same for the same wish, so that it is done once; drawn by default.
        """
        request = wire.CreateImageSetRequest(
            parent=self._calls.names.parent,
            image_set_id=image_set,
            image_set=wire.ImageSet(keep=keep),
            request_id=request_id_or_new(request_id),
        )
        if ttl is not None:
            request.image_set.ttl.FromTimedelta(ttl)
        return reading.image_set(self._calls.call("trainer", "CreateImageSet", request))

    def upload(
        self,
        image_set: str,
        images: Sequence[str | Path | Picture],
        masks: Mapping[str, str | Path | bytes] | None = None,
        *,
        timeout: float = _UPLOAD_SECONDS,
    ) -> ImageSet:
        """Add pictures, all or none; an upload that a connection cut short is done again.

        Args:
            image_set: id or name.
            images: files, folders of files, or pictures in memory.
            masks: file name of a picture → its mask, a PNG, bright where the subject is.
            timeout: seconds, for each attempt.

        Raises:
            NotFound, InvalidArgument: as `read_pictures` says.
            PictureRefused: a picture cannot be used; the message has its name and the reason.
        """
        name = str(self._calls.names.image_set(image_set))
        pictures = read_pictures(images, masks)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                parts = upload_parts(name, pictures)
                made = self._calls.upload("trainer", "UploadImages", parts, timeout)
                return reading.image_set(made)
            except Unavailable:
                if attempt == _ATTEMPTS:
                    raise
            sync_pause(0.5 * attempt)
            # It may have been done, and only the answer lost.
            found = self.get(name)
            if {picture.digest for picture in pictures} <= {each.digest for each in found.images}:
                return found
        raise AssertionError("unreachable")

    def get(self, image_set: str) -> ImageSet:
        """An image set with its images."""
        request = wire.GetImageSetRequest(name=str(self._calls.names.image_set(image_set)))
        return reading.image_set(self._calls.call("trainer", "GetImageSet", request))

    def list(
        self, *, filter: str = "", order_by: str = "", page_size: int = 0
    ) -> Iterator[ImageSet]:
        """The tenant's image sets without their images, the newest first."""
        request = wire.ListImageSetsRequest(
            parent=self._calls.names.parent, filter=filter, order_by=order_by, page_size=page_size
        )
        for each in self._calls.pages("trainer", "ListImageSets", request, "image_sets"):
            yield reading.image_set(each)

    def delete(self, image_set: str) -> None:
        """Delete an image set and its images for good.

        Raises:
            ImageSetInUse: a run that has not ended uses it.
        """
        name = str(self._calls.names.image_set(image_set))
        request = wire.DeleteImageSetRequest(name=name, request_id=request_id_or_new(""))
        self._calls.call("trainer", "DeleteImageSet", request)
