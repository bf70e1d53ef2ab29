"""Training pictures: read from hostile bytes, and fitted to a base model's size.

Files are judged by their headers first (`picture_header`), then decoded in a process of their own
(`intake_process`); what arrives here is plain RGB without any metadata. Colour profiles are dropped
and not applied, so that a picture in a wide-gamut space comes out slightly paler.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from perfuse.errors import InvalidArgument, NotFound, PictureRefused
from perfuse_trainer.pictures.intake import (
    MASK_SUFFIX,
    MAX_KEPT_PIXELS,
    MAX_PICTURES,
    decode_picture,
    judge_mask,
    mask_name,
)
from perfuse_trainer.pictures.intake_process import DecodedPicture, IntakeProcess, kept_size
from perfuse_trainer.pictures.picture_header import (
    ALLOWED,
    MAX_PICTURE_BYTES,
    judge,
    judge_bytes,
    shown,
)


@dataclass(frozen=True, eq=False)
class TrainingPicture:
    """One picture, upright, without metadata.

    A picture whose shorter side was over `KEPT_SIDE` has been shrunk to it.

    Attributes:
        name: of its file.
        pixels: uint8 [3, H, W], RGB; what was transparent is white.
        mask: uint8 [1, H, W], 255 where the subject is, from a mask file or else from an alpha
            channel; None where there is neither, or the alpha channel is opaque everywhere.
    """

    name: str
    pixels: Tensor
    mask: Tensor | None


def read_picture(data: bytes, name: str, *, mask: bytes | None = None) -> TrainingPicture:
    """Read one picture from the bytes of a PNG, JPEG or WebP file.

    Args:
        data: the file's content.
        name: the file's name; its suffix is not believed.
        mask: content of a PNG file of the same size, bright where the subject is.

    Raises:
        PictureRefused: one sentence with the name, what was found, the rule and the remedy.
        FailedPrecondition: the process that decodes cannot be started.
    """
    header = judge(data, name)
    marks = None if mask is None else (mask, judge_mask(mask, mask_name(name)))
    with IntakeProcess() as intake:
        return _picture(name, decode_picture(intake, name, (data, header), marks))


def read_folder(folder: str | Path, *, limit: int = MAX_PICTURES) -> tuple[TrainingPicture, ...]:
    """Read every picture of a folder, sorted by name.

    `NAME.mask.png` is the mask of the picture called NAME with any suffix. Hidden files are
    ignored; anything else that is not a picture is refused, and with it the whole folder. All
    headers are judged before the first picture is decoded.

    Args:
        folder: holds 1 to `limit` pictures.
        limit: how many it may hold.

    Raises:
        NotFound: there is no such folder.
        PictureRefused: the folder is empty or too full, or a file in it cannot be used.
        FailedPrecondition: the process that decodes cannot be started.
    """
    home = Path(folder)
    pictures, masks = _listed(home, limit)
    kept = 0
    for path in pictures:
        header = judge(_content(path), path.name)
        width, height = kept_size(header.width, header.height)
        kept += width * height
    if kept > MAX_KEPT_PIXELS:
        raise PictureRefused(
            f"the {len(pictures)} pictures of {home} come to {kept / 1e6:.0f} megapixels after "
            f"shrinking; at most {MAX_KEPT_PIXELS / 1e6:.0f} are kept: crop the long strips among "
            "them to their subject"
        )
    for path in masks.values():
        judge_mask(_content(path), path.name)
    read = []
    with IntakeProcess() as intake:
        for path in pictures:
            data = _content(path)
            mask = None
            if (beside := masks.get(path.stem)) is not None:
                marks = _content(beside)
                mask = (marks, judge_mask(marks, beside.name))
            # Judged anew: the file may have changed since.
            picture = (data, judge(data, path.name))
            read.append(_picture(path.name, decode_picture(intake, path.name, picture, mask)))
    return tuple(read)


def read_kept(data: bytes, name: str, *, mask: bytes | None = None) -> TrainingPicture:
    """Read a picture from the files that an upload made of it; no guard, since they are ours.

    Args:
        data: the PNG file of the picture, RGB.
        name: of the file that was sent.
        mask: the PNG file of its mask, 8-bit grey.
    """
    marks = None if mask is None else _samples(mask)
    return TrainingPicture(name, _samples(data), marks)


def fit(picture: TrainingPicture, size: int) -> tuple[Tensor, Tensor | None]:
    """The central square of a picture at a base model's size, as its autoencoder wants it.

    Shrinking by a whole factor averages blocks, so that pixel art shown enlarged returns to its
    very pixels; shrinking by another factor filters first (bilinear, antialiased), so that fine
    texture does not turn into a pattern. Enlarging is bicubic, held to the range: it suits
    photographs. Pixel art smaller than the base is better enlarged beforehand, by whole factors.

    Args:
        picture: of any size.
        size: height and width to fit to, in pixels.

    Returns:
        Pixels float32 [3, size, size] in -1 to 1, and the mask [1, size, size] in 0 to 1 or None.

    Raises:
        InvalidArgument: a size below 1.
    """
    if size < 1:
        raise InvalidArgument(f"size is {size}; a picture has at least 1 pixel on each side")
    pixels = _square(picture.pixels, size) / 127.5 - 1
    mask = None if picture.mask is None else _square(picture.mask, size) / 255
    return pixels, mask


def _square(image: Tensor, size: int) -> Tensor:
    """uint8 [C, H, W] to float32 [C, size, size] in 0 to 255."""
    height, width = image.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[None, :, top : top + side, left : left + side].to(torch.float32)
    if side == size:
        return square[0]
    if side % size == 0:
        return functional.avg_pool2d(square, side // size)[0]
    mode = "bilinear" if side > size else "bicubic"
    resized = functional.interpolate(
        square, size=(size, size), mode=mode, antialias=True, align_corners=False
    )
    return resized[0].clamp(0, 255)


def _samples(data: bytes) -> Tensor:
    """uint8 [C, H, W] of a PNG file that we wrote."""
    with Image.open(BytesIO(data), formats=("PNG",)) as image:
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        shaped = pixels.reshape(image.height, image.width, len(image.getbands()))
    return shaped.permute(2, 0, 1).contiguous()


def _listed(folder: Path, limit: int) -> tuple[list[Path], dict[str, Path]]:
    """The pictures of a folder by name, and their masks by the pictures' stems."""
    if not folder.is_dir():
        raise NotFound(f"{folder} is not a folder; give the folder that holds the pictures")
    try:
        found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise PictureRefused(
            f"{folder} cannot be listed ({error.strerror}); make it readable for this user"
        ) from error
    masks = {path.name[: -len(MASK_SUFFIX)]: path for path in found if _is_mask(path)}
    pictures = [path for path in found if not _is_mask(path)]
    if not pictures:
        raise PictureRefused(
            f"{folder} holds no picture; put 1 to {limit} pictures of one thing into it ({ALLOWED})"
        )
    if len(pictures) > limit:
        raise PictureRefused(
            f"{folder} holds {len(pictures)} files; at most {limit} pictures are read: keep the "
            "best of them"
        )
    by_stem: dict[str, Path] = {}
    for path in pictures:
        if path.stem.lower().endswith(".mask"):
            raise PictureRefused(
                f"{shown(path.name)} is named like a mask; a mask is a PNG file called "
                f"NAME{MASK_SUFFIX}: save it as such, or rename the picture"
            )
        other = by_stem.setdefault(path.stem, path)
        if other is not path and path.stem in masks:
            raise PictureRefused(
                f"{shown(masks[path.stem].name)} could belong to {shown(other.name)} and to "
                f"{shown(path.name)}; a mask has one picture: rename one of them"
            )
    for stem, path in masks.items():
        if stem not in by_stem:
            raise PictureRefused(
                f"{shown(path.name)} is the mask of no picture here; NAME{MASK_SUFFIX} stands "
                "beside a picture called NAME: rename it or take it away"
            )
    return pictures, masks


def _is_mask(path: Path) -> bool:
    return path.name.lower().endswith(MASK_SUFFIX) and path.name.lower() != MASK_SUFFIX


def _content(path: Path) -> bytes:
    """A file's bytes, of which no more than the limit is ever read."""
    try:
        if not path.is_file():
            raise PictureRefused(
                f"{shown(path.name)} is not a file; a folder of pictures holds files and nothing "
                "else: take it away"
            )
        judge_bytes(path.stat().st_size, path.name)
        with path.open("rb") as file:
            return file.read(MAX_PICTURE_BYTES + 1)
    except OSError as error:
        raise PictureRefused(
            f"{shown(path.name)} cannot be read ({error.strerror}); make it readable for this "
            "user, or take it away"
        ) from error


def _picture(name: str, decoded: DecodedPicture) -> TrainingPicture:
    shape = (decoded.height, decoded.width)
    pixels = torch.frombuffer(decoded.pixels, dtype=torch.uint8).reshape(*shape, 3)
    marks = decoded.alpha
    return TrainingPicture(
        name=name,
        pixels=pixels.permute(2, 0, 1).contiguous(),
        mask=None
        if marks is None
        else torch.frombuffer(marks, dtype=torch.uint8).reshape(1, *shape),
    )
