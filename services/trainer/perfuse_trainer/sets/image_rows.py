"""The rows of image sets and their images, as every rule about them reads them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, bindparam, exists, select

from perfuse.errors import NotFound
from perfuse.names import ImageSetName, TenantName
from perfuse.storage.database import AnyRow
from perfuse_trainer.resources import ENDED, Image, ImageSet
from perfuse_trainer.tables import IMAGE_SETS, IMAGES, RUNS

_COLUMNS = tuple(name for name in ImageSet.__dataclass_fields__ if name in IMAGE_SETS.c)
_ENDED = tuple(state.value for state in ENDED)

_SET = select(IMAGE_SETS).where(
    IMAGE_SETS.c.tenant == bindparam("tenant"),
    IMAGE_SETS.c.image_set_id == bindparam("image_set_id"),
)
_WITH_IMAGES = _SET.add_columns(
    IMAGES.c.file_name, IMAGES.c.digest, IMAGES.c.width, IMAGES.c.height, IMAGES.c.mask_blob
).outerjoin_from(IMAGE_SETS, IMAGES, IMAGES.c.image_set == IMAGE_SETS.c.id)
_IMAGES = select(IMAGES).where(IMAGES.c.image_set == bindparam("image_set"))
_ITS_RUN = RUNS.c.image_set == bindparam("image_set")
_HAD_RUN = select(exists().where(_ITS_RUN))
_USED = select(exists().where(_ITS_RUN, RUNS.c.state.not_in(_ENDED)))


def missing(name: ImageSetName | TenantName) -> NotFound:
    """The one answer for what does not exist and for what is another tenant's."""
    refusal = NotFound(f"{name} does not exist, or is not yours to see. Check the name")
    refusal.resource = str(name)
    return refusal


def require_own(tenant: str, name: ImageSetName | TenantName) -> None:
    """Refuse a name of another tenant's, as if it did not exist.

    Raises:
        NotFound: it is.
    """
    if name.tenant != tenant:
        raise missing(name)


def found_set(connection: Connection, name: ImageSetName, *, lock: bool = False) -> AnyRow | None:
    """A set's row, with `lock` held until the transaction ends."""
    chosen = _SET.with_for_update() if lock else _SET
    asked = {"tenant": name.tenant, "image_set_id": name.image_set}
    return connection.execute(chosen, asked).first()


def found_with_images(connection: Connection, name: ImageSetName) -> ImageSet | None:
    """A set with its images as they were at one moment."""
    asked = {"tenant": name.tenant, "image_set_id": name.image_set}
    rows = connection.execute(_WITH_IMAGES, asked).all()
    if not rows:
        return None
    return image_set_of(rows[0], _by_name([row for row in rows if row.file_name is not None]))


def images_in(connection: Connection, image_set: int) -> list[AnyRow]:
    """The rows of a set's images, by file name."""
    return _by_name(connection.execute(_IMAGES, {"image_set": image_set}).all())


def is_used(connection: Connection, image_set: int) -> bool:
    """Whether a run that has not ended uses the set."""
    return bool(connection.execute(_USED, {"image_set": image_set}).scalar_one())


def had_run(connection: Connection, image_set: int) -> bool:
    """Whether a run uses the set or did, and was not deleted since."""
    return bool(connection.execute(_HAD_RUN, {"image_set": image_set}).scalar_one())


def due(moment: datetime) -> ColumnElement[bool]:
    """Whether a set is to be emptied at that moment, since its time is over and nobody uses it."""
    used = exists().where(RUNS.c.image_set == IMAGE_SETS.c.id, RUNS.c.state.not_in(_ENDED))
    return and_(IMAGE_SETS.c.expire_time <= moment, IMAGE_SETS.c.emptied.is_(False), ~used)


def image_set_of(row: AnyRow, images: Sequence[AnyRow] = ()) -> ImageSet:
    """The set in a row of its table, with the images of these rows."""
    return ImageSet(
        **{name: getattr(row, name) for name in _COLUMNS},
        images=tuple(
            Image(
                file_name=image.file_name,
                digest=image.digest,
                width=image.width,
                height=image.height,
                has_mask=image.mask_blob is not None,
            )
            for image in images
        ),
    )


def _by_name(rows: Sequence[AnyRow]) -> list[AnyRow]:
    # Here and not in SQL: databases order text each in their own way.
    return sorted(rows, key=lambda row: str(row.file_name))
