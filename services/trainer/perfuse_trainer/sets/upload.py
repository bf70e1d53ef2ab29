"""One upload: images decoded, encoded anew and stored one by one, and made a set's at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import Enum, auto
from io import BytesIO

from PIL import Image as Pillow
from sqlalchemy import Connection, insert, update

from perfuse.errors import (
    Aborted,
    DeadlineExceeded,
    ImageSetEmpty,
    InvalidArgument,
    PerfuseError,
    Unavailable,
)
from perfuse.names import ImageSetName
from perfuse.storage.database import AnyRow, Database
from perfuse.storage.moments import now
from perfuse.storage.mutation import Mutation
from perfuse_trainer.pictures.intake import (
    MAX_KEPT_PIXELS,
    MAX_PICTURES,
    decode_picture,
    judge_mask,
)
from perfuse_trainer.pictures.intake_process import IntakeProcess, kept_size
from perfuse_trainer.pictures.picture_header import judge, shown
from perfuse_trainer.requests import AUDIT
from perfuse_trainer.resources import ImageSet
from perfuse_trainer.sets.admission import (
    closed,
    other_content,
    require_digest,
    too_large,
    too_many,
)
from perfuse_trainer.sets.image_rows import found_set, image_set_of, images_in, missing
from perfuse_trainer.tables import IMAGE_SETS, IMAGES
from perfuse_trainer.vault import Vault


@dataclass(frozen=True, slots=True)
class SentFile:
    """A file as it came, and the digest that the caller claims for it."""

    data: bytes
    digest: str


class _State(Enum):
    OPEN = auto()
    COMMITTING = auto()
    OVER = auto()


@dataclass(frozen=True, slots=True)
class _Kept:
    """An image that was taken in; `blob` is empty where the set had it before."""

    file_name: str
    digest: str
    mask_digest: str | None
    width: int = 0
    height: int = 0
    blob: str = ""
    mask_blob: str | None = None


class Upload:
    """One upload: `begin`, `add` and `commit` one after the other, `abandon` at any time.

    Args:
        database: With the Trainer's tables.
        vault: Where images go.
        name: Of the set.
        limit: How long the upload may take.
        on_end: Called once, when nothing of it is left to do.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        mutation: Mutation,
        name: ImageSetName,
        *,
        limit: timedelta,
        on_end: Callable[[], None],
    ) -> None:
        self._database, self._vault, self._name = database, vault, name
        self._mutation = mutation
        self._on_end = on_end
        self._limit = limit.total_seconds()
        self._until = time.monotonic() + self._limit
        self._uid = ""
        self._refusal: PerfuseError | None = None
        # File name → digest of its image and of its mask, of what the set has or is to have.
        self._there: dict[str, tuple[str, str | None]] = {}
        self._pixels = 0
        self._kept: dict[str, _Kept] = {}
        self._blobs: list[str] = []
        self._intake: IntakeProcess | None = None
        self._lock = threading.Lock()
        self._state = _State.OPEN

    @property
    def remaining(self) -> float:
        """Seconds that are left for it, 0 at least."""
        return max(0.0, self._until - time.monotonic())

    def begin(self) -> None:
        """See what the set has; to be called first.

        Raises:
            NotFound: there is no such set.
            ImageSetEmpty: its images were deleted, or its time is over.
        """

        def work(connection: Connection) -> tuple[AnyRow, list[AnyRow], PerfuseError | None]:
            row = found_set(connection, self._name)
            if row is None:
                raise missing(self._name)
            return row, images_in(connection, row.id), closed(connection, row, self._name)

        row, images, self._refusal = self._database.read(work)
        if isinstance(self._refusal, ImageSetEmpty):
            raise self._refusal
        # Another set of the same name, made meanwhile, is not filled.
        self._uid = row.uid
        self._there = {image.file_name: (image.digest, image.mask_digest) for image in images}
        self._pixels = sum(image.width * image.height for image in images)

    def expect(self, file_name: str, digest: str) -> None:
        """Refuse an image before its bytes are read, as far as its header tells.

        Raises:
            AlreadyExists: the set has other bytes under this file name.
            FailedPrecondition: a run uses or used the set.
            PictureRefused: it would be one image too many.
            DeadlineExceeded: the upload took too long.
        """
        self._require_time()
        there = self._there.get(file_name)
        if there is not None:
            if there[0] != digest:
                raise other_content(file_name, self._name)
            return
        if self._refusal is not None:
            raise self._refusal
        if len(self._there) >= MAX_PICTURES:
            raise too_many(file_name)

    def add(self, file_name: str, image: SentFile, mask: SentFile | None = None) -> None:
        """Take one image in; what the set has already, byte for byte, is not taken twice.

        Raises:
            DigestMismatch: the bytes are not those whose digest was claimed.
            PictureRefused: image or mask cannot be used; the message names the file and says why.
            FailedPrecondition: the process that decodes cannot be started.
            Unavailable: the store did not take it.
            AlreadyExists, DeadlineExceeded: as `expect`.
        """
        self.expect(file_name, image.digest)
        called = f"the mask of {shown(file_name)}"
        require_digest(shown(file_name), image.data, image.digest)
        if mask is not None:
            require_digest(called, mask.data, mask.digest)
        digests = (image.digest, None if mask is None else mask.digest)
        there = self._there.get(file_name)
        if there is not None:
            if there != digests:
                raise other_content(file_name, self._name)
            self._kept.setdefault(file_name, _Kept(file_name, *digests))
            return
        header = judge(image.data, file_name)
        marks = None if mask is None else (mask.data, judge_mask(mask.data, called))
        width, height = kept_size(header.width, header.height)
        self._pixels += width * height
        if self._pixels > MAX_KEPT_PIXELS:
            raise too_large(file_name, self._pixels)
        decoded = decode_picture(
            self._process(), file_name, (image.data, header), marks, called=called
        )
        size = (decoded.width, decoded.height)
        blob = self._put(_png("RGB", size, decoded.pixels))
        mask_blob = None if decoded.alpha is None else self._put(_png("L", size, decoded.alpha))
        self._there[file_name] = digests
        self._kept[file_name] = _Kept(file_name, *digests, *size, blob, mask_blob)

    def commit(self) -> ImageSet:
        """Make all of them images of the set; after a refusal none is.

        Returns:
            The set with all its images.

        Raises:
            InvalidArgument: no image was added.
            NotFound: the set was deleted meanwhile.
            FailedPrecondition, AlreadyExists, PictureRefused: what `expect` and `add` refuse, since
                others changed the set meanwhile.
            DeadlineExceeded: the upload took too long.
            Unavailable: the database does not answer; the images may or may not be the set's, and
                uploading them again does no harm.
        """
        with self._lock:
            if self._state is not _State.OPEN:
                raise _given_up()
            self._state = _State.COMMITTING
        unused: list[str] = []
        try:
            if not self._kept:
                raise InvalidArgument("the upload holds no image; send 1 to 64 of one thing")
            answer, unused = self._database.transact(self._commit)
        except PerfuseError as error:
            # When the database did not answer, rows may name them; if none does, they are swept.
            if not isinstance(error, Unavailable):
                unused = self._blobs
            raise
        finally:
            self._state = _State.OVER
            self._end(unused)
        return answer

    def abandon(self) -> None:
        """End it, and remove what it put; nothing happens once `commit` was called."""
        with self._lock:
            if self._state is not _State.OPEN:
                return
            self._state = _State.OVER
        self._end(self._blobs)

    def _commit(self, connection: Connection) -> tuple[ImageSet, list[str]]:
        self._require_time()
        row = found_set(connection, self._name, lock=True)
        if row is None or row.uid != self._uid:
            raise missing(self._name)
        images = images_in(connection, row.id)
        there = {image.file_name: (image.digest, image.mask_digest) for image in images}
        fresh = []
        for kept in self._kept.values():
            if kept.file_name not in there:
                fresh.append(kept)
            elif there[kept.file_name] != (kept.digest, kept.mask_digest):
                raise other_content(kept.file_name, self._name)
        if fresh:
            refusal = closed(connection, row, self._name)
            if refusal is not None:
                raise refusal
            if len(images) + len(fresh) > MAX_PICTURES:
                raise too_many(fresh[-1].file_name)
            pixels = sum(image.width * image.height for image in images)
            pixels += sum(kept.width * kept.height for kept in fresh)
            if pixels > MAX_KEPT_PIXELS:
                raise too_large(fresh[-1].file_name, pixels)
            place = {"image_set": row.id, "tenant": self._name.tenant}
            connection.execute(insert(IMAGES), [place | asdict(kept) for kept in fresh])
            changed = update(IMAGE_SETS).where(IMAGE_SETS.c.id == row.id)
            row = connection.execute(
                changed.values(revision=row.revision + 1, update_time=now()).returning(IMAGE_SETS)
            ).one()
            images = images_in(connection, row.id)
            AUDIT.record(connection, self._mutation, "UploadImages", str(self._name))
        used = {blob for kept in fresh for blob in (kept.blob, kept.mask_blob)}
        return image_set_of(row, images), [blob for blob in self._blobs if blob not in used]

    def _process(self) -> IntakeProcess:
        """The decoder, started when the first image comes to it."""
        if self._intake is None:
            started = IntakeProcess()
            with self._lock:
                if self._state is _State.OPEN:
                    self._intake = started
            if self._intake is None:
                started.close()
                raise _given_up()
        return self._intake

    def _put(self, data: bytes) -> str:
        blob = self._vault.put(self._name.tenant, data)
        with self._lock:
            if self._state is _State.OPEN:
                self._blobs.append(blob)
                return blob
        self._vault.drop(self._name.tenant, [blob])
        raise _given_up()

    def _end(self, blobs: Sequence[str]) -> None:
        try:
            if self._intake is not None:
                self._intake.close()
            self._vault.drop(self._name.tenant, blobs)
        finally:
            self._on_end()

    def _require_time(self) -> None:
        if self.remaining <= 0:
            raise DeadlineExceeded(
                f"an upload may take {self._limit / 60:g} minutes, and this one took longer. "
                "Upload the images again, in several calls"
            )


def _png(mode: str, size: tuple[int, int], samples: bytearray) -> bytes:
    file = BytesIO()
    image = Pillow.frombuffer(mode, size, samples, "raw", mode, 0, 1)
    # Fast rather than small: it is kept for days.
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _given_up() -> Aborted:
    return Aborted("the upload was given up. Begin it again")
