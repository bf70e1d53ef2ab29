"""The messages of an upload, put together into files; what is out of order is refused."""

from __future__ import annotations

from typing import NamedTuple

from perfuse.errors import InvalidArgument
from perfuse.names import ImageSetName
from perfuse.v1 import trainer_pb2 as wire
from perfuse_trainer.pictures.intake import MAX_PICTURES
from perfuse_trainer.pictures.picture_header import shown
from perfuse_trainer.sets.upload import SentFile


class SentImage(NamedTuple):
    """An image with its mask, all of whose bytes have arrived."""

    file_name: str
    image: SentFile
    mask: SentFile | None


def named_set(message: wire.UploadImagesRequest | None) -> ImageSetName:
    """The set that the first message names; None stands for the stream's end.

    Raises:
        InvalidArgument: it carries something else, or no name.
    """
    part = None if message is None else message.WhichOneof("part")
    if message is None or part != "image_set":
        raise InvalidArgument.in_field(
            "image_set", f"the first message carries {part or 'nothing'}; it must name the set"
        )
    return ImageSetName.parse(message.image_set, "image_set")


class ImageStream:
    """What follows the set's name. At most one image and its mask are held at a time."""

    def __init__(self) -> None:
        self._count = 0
        self._header: wire.ImageHeader | None = None
        self._bytes = bytearray()
        self._image: SentFile | None = None

    def take(self, message: wire.UploadImagesRequest | None) -> SentImage | None:
        """Take the next message; None stands for the stream's end.

        Returns:
            The image before, once a message shows that it is complete.

        Raises:
            InvalidArgument: the message does not belong here; the reason names the file.
        """
        if message is None:
            return self._complete()
        part = message.WhichOneof("part")
        if part == "image_set":
            raise InvalidArgument.in_field(
                "image_set", "the set is named once, by the first message; leave it out here"
            )
        if part == "chunk":
            self._append(message.chunk)
            return None
        if message.header.is_mask:
            self._begin_mask(message.header)
            return None
        done = self._complete()
        self._count += 1
        if self._count > MAX_PICTURES:
            raise InvalidArgument.in_field(
                "header",
                f"{shown(message.header.file_name)} would be image {self._count} of its upload; a "
                f"set has at most {MAX_PICTURES}: keep the best of them",
            )
        self._header, self._image = message.header, None
        return done

    def _append(self, chunk: bytes) -> None:
        if self._header is None:
            raise InvalidArgument.in_field(
                "chunk", "bytes came before any header; send the header of their file first"
            )
        arrived = len(self._bytes) + len(chunk)
        if arrived > self._header.size_bytes:
            raise InvalidArgument.in_field(
                "chunk",
                f"{_called(self._header)} was announced with {self._header.size_bytes} bytes, and "
                f"{arrived} have come; announce as many as follow",
            )
        self._bytes += chunk

    def _begin_mask(self, header: wire.ImageHeader) -> None:
        image = self._header
        if image is None or image.is_mask or image.file_name != header.file_name:
            raise InvalidArgument.in_field(
                "header.is_mask",
                f"{_called(header)} does not follow its image; send it at once behind the image's "
                "bytes, with the same file name, and only one",
            )
        self._image = self._file(image)
        self._header = header

    def _complete(self) -> SentImage | None:
        if self._header is None:
            return None
        last = self._file(self._header)
        if self._image is None:
            return SentImage(self._header.file_name, last, None)
        return SentImage(self._header.file_name, self._image, last)

    def _file(self, header: wire.ImageHeader) -> SentFile:
        """The file whose bytes came last, all of them."""
        if len(self._bytes) < header.size_bytes:
            raise InvalidArgument.in_field(
                "chunk",
                f"{_called(header)} was announced with {header.size_bytes} bytes, and only "
                f"{len(self._bytes)} came; announce as many as follow",
            )
        data, self._bytes = bytes(self._bytes), bytearray()
        return SentFile(data, header.digest)


def _called(header: wire.ImageHeader) -> str:
    name = shown(header.file_name)
    return f"the mask of {name}" if header.is_mask else name
