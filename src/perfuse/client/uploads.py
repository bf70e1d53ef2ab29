"""Pictures on their way to the Trainer: read, digested, cut into messages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perfuse.client.writing import file_bytes
from perfuse.errors import InvalidArgument, NotFound
from perfuse.v1 import trainer_pb2 as wire

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""Of files that are taken from a folder."""

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture to send.

    Attributes:
        file_name: under which it is kept and refused.
        data: the file's bytes.
        mask: bytes of a PNG of its size, bright where the subject is.
    """

    file_name: str
    data: bytes = field(repr=False)
    mask: bytes | None = field(default=None, repr=False)

    @property
    def digest(self) -> str:
        """`sha256:` and hexadecimal digits."""
        return _digest(self.data)


def read_pictures(
    said: Sequence[str | Path | Picture], masks: Mapping[str, str | Path | bytes] | None = None
) -> tuple[Picture, ...]:
    """Pictures, files and folders of files, as pictures.

    Args:
        said: a folder stands for the pictures in it, by name.
        masks: file name of a picture → its mask.

    Raises:
        NotFound: a file is not there, or a folder holds no picture.
        InvalidArgument: two pictures of one name, or a mask without a picture.
    """
    left = dict(masks or {})
    found: dict[str, Picture] = {}
    for each in said:
        for picture in [each] if isinstance(each, Picture) else map(_read, _files(Path(each))):
            if picture.file_name in found:
                raise InvalidArgument.in_field(
                    "images", f"two pictures are called {picture.file_name}; rename one of them"
                )
            mask = left.pop(picture.file_name, None)
            if mask is not None:
                picture = Picture(picture.file_name, picture.data, file_bytes(mask))
            found[picture.file_name] = picture
    if left:
        raise InvalidArgument.in_field(
            "masks", f"there is a mask of {', '.join(sorted(left))}, but no such picture"
        )
    return tuple(found.values())


def upload_parts(image_set: str, pictures: Sequence[Picture]) -> Iterator[wire.UploadImagesRequest]:
    """The messages of one upload, in the order that the Trainer takes them."""
    yield wire.UploadImagesRequest(image_set=image_set)
    for picture in pictures:
        yield from _part(picture.file_name, picture.data, is_mask=False)
        if picture.mask is not None:
            yield from _part(picture.file_name, picture.mask, is_mask=True)


def _part(name: str, data: bytes, *, is_mask: bool) -> Iterator[wire.UploadImagesRequest]:
    header = wire.ImageHeader(
        file_name=name, digest=_digest(data), size_bytes=len(data), is_mask=is_mask
    )
    yield wire.UploadImagesRequest(header=header)
    for begin in range(0, len(data), _CHUNK):
        yield wire.UploadImagesRequest(chunk=data[begin : begin + _CHUNK])


def _files(path: Path) -> Sequence[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not found:
        raise NotFound(f"{path} holds no pictures; they must be {', '.join(SUFFIXES)}")
    return found


def _read(path: Path) -> Picture:
    return Picture(path.name, file_bytes(path))


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
