"""What an image set takes, whoever asks: open sets, honest digests, so many images and pixels."""

from __future__ import annotations

from sqlalchemy import Connection

from perfuse.adapter.header import digest as digest_of
from perfuse.errors import (
    AlreadyExists,
    DigestMismatch,
    FailedPrecondition,
    ImageSetEmpty,
    PerfuseError,
    PictureRefused,
)
from perfuse.names import ImageSetName
from perfuse.storage.database import AnyRow
from perfuse.storage.moments import now
from perfuse_trainer.pictures.intake import MAX_KEPT_PIXELS, MAX_PICTURES
from perfuse_trainer.pictures.picture_header import shown
from perfuse_trainer.sets.image_rows import had_run


def closed(connection: Connection, row: AnyRow, name: ImageSetName) -> PerfuseError | None:
    """Why a set takes no more images; None while it does.

    `ImageSetEmpty` where it has none any more, so that nothing could be there already.
    """
    refusal: PerfuseError | None = None
    if row.emptied or row.expire_time <= now():
        refusal = ImageSetEmpty(
            f"the images of {name} were deleted, or are about to be: its runs ended or its time "
            "is over. Make another set"
        )
    elif had_run(connection, row.id):
        refusal = FailedPrecondition(
            f"{name} takes no more images since a run was queued with it. Make another set"
        )
    if refusal is not None:
        refusal.resource = str(name)
    return refusal


def require_digest(called: str, data: bytes, claimed: str) -> None:
    """Refuse bytes that are not those whose digest was claimed.

    Raises:
        DigestMismatch: they are not.
    """
    found = digest_of(data)
    if found != claimed:
        raise DigestMismatch(
            f"{called} arrived with the digest {found}, not {claimed} as claimed; send it again"
        )


def too_many(file_name: str) -> PictureRefused:
    """The refusal of one image more than `MAX_PICTURES`."""
    return PictureRefused(
        f"{shown(file_name)} would be image {MAX_PICTURES + 1} of its set; a set has at most "
        f"{MAX_PICTURES}: keep the best of them"
    )


def too_large(file_name: str, pixels: int) -> PictureRefused:
    """The refusal of an image with which there would be more than `MAX_KEPT_PIXELS`."""
    return PictureRefused(
        f"with {shown(file_name)} the images come to {pixels / 1e6:.0f} megapixels after "
        f"shrinking; at most {MAX_KEPT_PIXELS / 1e6:.0f} are kept: crop the long strips among "
        "them to their subject"
    )


def other_content(file_name: str, name: ImageSetName) -> AlreadyExists:
    """The refusal of a file name that stands for other bytes already."""
    return AlreadyExists(
        f"{name} has another image or mask called {shown(file_name)}, or this upload sent one "
        "before. Give this one another name"
    )
