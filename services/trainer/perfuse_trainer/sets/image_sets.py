"""Rules for image sets: made, read, deleted, and emptied once nobody needs their images.

Whatever changes a set holds its row first: uploads, deletion, expiry, the creation of a run and the
end of one. Under that lock a run that uses the set is either seen or not there yet.

The row is locked by one statement and everything else is looked at by the next: on PostgreSQL a
statement that waited for a lock answers from before its wait.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy import Connection, delete, insert, select, update

from perfuse.errors import AlreadyExists, ImageSetInUse, InvalidArgument
from perfuse.names import ImageSetName, TenantName, check_id
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.filters import Field, Kind
from perfuse.storage.listing import Lists, Page, Query
from perfuse.storage.moments import now
from perfuse.storage.paging import Listing
from perfuse.storage.requests import Mutation
from perfuse_trainer.requests import once
from perfuse_trainer.resources import ImageSet
from perfuse_trainer.sets.image_rows import (
    found_set,
    found_with_images,
    image_set_of,
    images_in,
    is_used,
    missing,
    require_own,
)
from perfuse_trainer.tables import IMAGE_SETS, IMAGES, RUNS
from perfuse_trainer.vault import Vault

if TYPE_CHECKING:
    from perfuse_trainer.pictures.images import TrainingPicture

FILTERS = {
    "image_set_id": Field(IMAGE_SETS.c.image_set_id, Kind.TEXT),
    "create_time": Field(IMAGE_SETS.c.create_time, Kind.TIMESTAMP),
    "expire_time": Field(IMAGE_SETS.c.expire_time, Kind.TIMESTAMP),
}
ORDERS = {
    "image_set_id": IMAGE_SETS.c.image_set_id,
    "create_time": IMAGE_SETS.c.create_time,
    "expire_time": IMAGE_SETS.c.expire_time,
}

TTL = timedelta(days=7)
"""How long a set is kept where nobody says."""


class ImageSets:
    """Image sets of every tenant.

    Args:
        database: With the Trainer's tables.
        vault: Where the images are.
        lists: For pages.
    """

    def __init__(self, database: Database, vault: Vault, lists: Lists) -> None:
        self._database = database
        self._vault = vault
        self._lists = lists

    def create(
        self,
        mutation: Mutation,
        parent: TenantName,
        image_set_id: str = "",
        *,
        keep: bool = False,
        ttl: timedelta | None = None,
    ) -> ImageSet:
        """A new set without images.

        Args:
            mutation: Who asks.
            parent: The tenant.
            image_set_id: Drawn where it is empty.
            keep: Keep the images when the last run that uses them has ended.
            ttl: How long they are kept at most; None for `TTL`.

        Raises:
            NotFound: the tenant is not the caller's.
            InvalidArgument: the id is none, or the time is not positive.
            AlreadyExists: the id is taken.
        """
        require_own(mutation.tenant, parent)
        if image_set_id:
            check_id("image_set_id", image_set_id)
        ttl = TTL if ttl is None else ttl
        if ttl <= timedelta(0):
            raise InvalidArgument.in_field(
                "image_set.ttl", f"it is {ttl.total_seconds():g} s; images are kept for some time"
            )

        def work(connection: Connection) -> ImageSet:
            name = ImageSetName(parent.tenant, image_set_id or f"set-{uuid4().hex[:12]}")
            if found_set(connection, name) is not None:
                refusal = AlreadyExists(f"{name} exists already. Choose another id, or none")
                refusal.resource = str(name)
                raise refusal
            moment = now()
            made = insert(IMAGE_SETS).values(
                tenant=name.tenant,
                image_set_id=name.image_set,
                uid=str(uuid4()),
                keep=keep,
                emptied=False,
                revision=1,
                create_time=moment,
                update_time=moment,
                expire_time=moment + ttl,
            )
            return image_set_of(connection.execute(made.returning(IMAGE_SETS)).one())

        content = [str(parent), image_set_id, keep, ttl.total_seconds()]
        return once(self._database, mutation, "CreateImageSet", content, ImageSet, work)

    def get(self, tenant: str, name: ImageSetName) -> ImageSet:
        """A set with its images, by file name.

        Raises:
            NotFound: there is none, or it is another tenant's.
        """
        require_own(tenant, name)
        found = self._database.read(lambda connection: found_with_images(connection, name))
        if found is None:
            raise missing(name)
        return found

    def list(self, tenant: str, parent: TenantName, query: Query) -> Page[ImageSet]:
        """A page of a tenant's sets, without the single images, by default the newest first.

        Raises:
            NotFound: the tenant is not the caller's.
            InvalidArgument: filter, order, token or size.
        """
        require_own(tenant, parent)
        return self._lists.page(
            select(IMAGE_SETS).where(IMAGE_SETS.c.tenant == parent.tenant),
            query,
            Listing(tenant, "ListImageSets", str(parent), query.filter),
            FILTERS,
            ORDERS,
            "create_time desc",
            IMAGE_SETS.c.id,
            image_set_of,
        )

    def delete(self, mutation: Mutation, name: ImageSetName) -> None:
        """Delete a set and its images for good.

        Raises:
            NotFound: there is none, or it is another tenant's.
            ImageSetInUse: a run that has not ended uses it.
        """
        require_own(mutation.tenant, name)
        left: list[str] = []

        def work(connection: Connection) -> None:
            left.clear()
            row = found_set(connection, name, lock=True)
            if row is None:
                raise missing(name)
            if is_used(connection, row.id):
                refusal = ImageSetInUse(
                    f"a run that has not ended uses {name}. Wait for its end, or cancel it"
                )
                refusal.resource = str(name)
                raise refusal
            left.extend(remove_set(connection, row.id))

        once(self._database, mutation, "DeleteImageSet", [str(name)], type(None), work)
        self._vault.drop(mutation.tenant, left)


def release(connection: Connection, image_set: int) -> list[str]:
    """Empty a set that nothing holds any more: no run that goes on, no wish to keep it.

    Args:
        connection: In a transaction in which the run that let go of it has ended already.
        image_set: Key of its row; it may be gone.

    Returns:
        Digests of files that no row names once the transaction is committed, for `Vault.drop`.
    """
    row = _locked(connection, image_set)
    if row is None or (row.keep and row.expire_time > now()):
        return []
    return _emptied(connection, row) or []


def remove_set(connection: Connection, image_set: int) -> list[str]:
    """Delete a set that no run needs any more, with its images.

    Returns:
        As `release`.
    """
    if _locked(connection, image_set) is None:
        return []
    left = _without_images(connection, image_set)
    gone = update(RUNS).where(RUNS.c.image_set == image_set)
    connection.execute(gone.values(image_set=None))
    connection.execute(delete(IMAGE_SETS).where(IMAGE_SETS.c.id == image_set))
    return left


def expire(connection: Connection, image_set: int, moment: datetime) -> list[str] | None:
    """Empty a set whose time was over at that moment, unless a run uses it.

    Returns:
        As `release`, or None where the set is not to be emptied, or was before.
    """
    row = _locked(connection, image_set)
    return _emptied(connection, row) if row is not None and row.expire_time <= moment else None


def kept_pictures(database: Database, vault: Vault, image_set: int) -> list[TrainingPicture]:
    """What a worker trains on: a set's images by file name.

    Args:
        database: With the Trainer's tables.
        vault: Where the images are.
        image_set: Key of the set's row.

    Raises:
        DataLoss: a file is gone or is another.
        Unavailable: database or store do not answer.
    """
    # Workers alone read pixels; the server that answers for sets has no use for torch.
    from perfuse_trainer.pictures.images import read_kept

    rows = database.read(lambda connection: images_in(connection, image_set))
    pictures = []
    for row in rows:
        data = vault.get(row.tenant, row.blob)
        mask = None if row.mask_blob is None else vault.get(row.tenant, row.mask_blob)
        pictures.append(read_kept(data, row.file_name, mask=mask))
    return pictures


def _locked(connection: Connection, image_set: int) -> AnyRow | None:
    chosen = select(IMAGE_SETS).where(IMAGE_SETS.c.id == image_set)
    return connection.execute(chosen.with_for_update()).first()


def _emptied(connection: Connection, row: AnyRow) -> list[str] | None:
    if row.emptied or is_used(connection, row.id):
        return None
    changed = update(IMAGE_SETS).where(IMAGE_SETS.c.id == row.id)
    connection.execute(changed.values(emptied=True, revision=row.revision + 1, update_time=now()))
    return _without_images(connection, row.id)


def _without_images(connection: Connection, image_set: int) -> list[str]:
    """Delete a set's rows of images; the digests of their files."""
    rows = images_in(connection, image_set)
    connection.execute(delete(IMAGES).where(IMAGES.c.image_set == image_set))
    return [blob for row in rows for blob in (row.blob, row.mask_blob) if blob is not None]
