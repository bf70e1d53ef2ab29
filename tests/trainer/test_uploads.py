"""Uploads: what comes in is what a worker reads, all of it or none, whatever callers do."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import torch
from PIL import Image

from perfuse.adapter import digest
from perfuse.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from perfuse.names import ImageSetName
from perfuse.storage.database import Database
from perfuse.storage.requests import Mutation
from perfuse.v1 import trainer_pb2 as wire
from perfuse_trainer.pictures.images import TrainingPicture, read_folder, read_picture
from perfuse_trainer.pictures.intake import MAX_KEPT_PIXELS, mask_name
from perfuse_trainer.pictures.intake_process import PROGRAM
from perfuse_trainer.resources import RunState
from perfuse_trainer.sets.image_sets import kept_pictures
from perfuse_trainer.sets.upload import SentFile, Upload
from perfuse_trainer.sets.uploads import Uploads
from perfuse_trainer.tables import IMAGE_SETS, IMAGES
from perfuse_trainer.vault import Vault
from perfuse_trainer.wire import image_servicer
from trainer.served import (
    Installation,
    Tenant,
    at_once,
    chunks,
    eventually,
    header,
    installed,
    parts,
    refused,
    trainer_storage,
)
from trainer.test_images import (
    SIDES,
    animated,
    apng,
    bomb,
    cutout,
    deep_rgb,
    exif,
    palette,
    phone_picture,
    png,
    saved,
    scene,
    stored,
    with_wrong_checksum,
)

PICTURE = saved(scene(), "PNG")
OTHER = saved(scene(40, 40), "PNG")
MASK = saved(scene().convert("L"), "PNG")

# What no database and no store has a part in is tried on one kind.
embedded = pytest.mark.parametrize("installation", ["sqlite+directory"], indirect=True)


@contextmanager
def nothing_left(tenant: Tenant) -> Iterator[None]:
    """Of uploads to a tenant without images nothing is left: no row, no file, no process."""
    before = tenant.installation.rows(IMAGE_SETS, tenant=tenant.id)
    yield
    eventually(lambda: tenant.stored() == [])
    eventually(lambda: decoders() == [])
    assert tenant.installation.rows(IMAGES, tenant=tenant.id) == []
    assert tenant.installation.rows(IMAGE_SETS, tenant=tenant.id) == before
    eventually(lambda: not tenant.installation.uploads._running)


def decoders() -> list[psutil.Process]:
    """Processes that decode for this one."""
    found = []
    for child in psutil.Process().children():
        try:
            if str(PROGRAM) in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def set_key(tenant: Tenant, made: wire.ImageSet) -> int:
    (row,) = tenant.installation.rows(IMAGE_SETS, uid=made.uid)
    return int(row.id)


def sent(data: bytes) -> SentFile:
    return SentFile(data, digest(data))


# What is kept.

FORMS: dict[str, tuple[bytes, ...]] = {
    "plain.png": (PICTURE,),
    "photo.jpg": (saved(scene(), "JPEG", quality=90),),
    "lossy.webp": (saved(scene(), "WEBP", quality=90),),
    "lying.jpg": (PICTURE,),
    "grey.png": (saved(scene().convert("L"), "PNG"),),
    "print.jpg": (saved(Image.new("CMYK", (9, 5), (255, 0, 0, 0)), "JPEG"),),
    "deep.png": (deep_rgb(),),
    "palette.png": (palette(),),
    "cutout.png": (saved(cutout("RGBA"), "PNG"),),
    "cutout.webp": (saved(cutout("RGBA"), "WEBP", lossless=True, exact=True),),
    "masked.png": (PICTURE, MASK),
    "masked and cut out.png": (
        saved(cutout("RGBA"), "PNG"),
        saved(Image.new("L", (8, 6), 7), "PNG"),
    ),
    "phone.jpg": (phone_picture(),),
    "large.jpg": (saved(Image.new("RGB", (2100, 1400), "teal"), "JPEG"),),
    "Änderung Nr. 1 (Kopie) 猫.png": (OTHER,),
    **{f"turned{n}.jpg": (saved(stored(scene(), n), "JPEG", exif=exif(n)),) for n in SIDES},
}


@cache
def as_a_folder() -> dict[str, TrainingPicture]:
    """All of them as a worker without a server reads them."""
    with tempfile.TemporaryDirectory() as folder:
        for name, (data, *mask) in FORMS.items():
            (Path(folder) / name).write_bytes(data)
            for marks in mask:
                (Path(folder) / mask_name(name)).write_bytes(marks)
        return {picture.name: picture for picture in read_folder(folder)}


def test_what_is_kept_is_what_a_worker_would_have_read(acme: Tenant) -> None:
    made = acme.image_set()
    pictures = [(name, *files) for name, files in FORMS.items()]
    answer = acme.upload(made.name, *pictures, chunk=3001)
    kept = kept_pictures(acme.installation.database, acme.installation.vault, set_key(acme, made))
    assert [picture.name for picture in kept] == sorted(FORMS)
    assert [image.file_name for image in answer.images] == sorted(FORMS)
    for image, picture in zip(answer.images, kept, strict=True):
        expected = as_a_folder()[picture.name]
        assert torch.equal(picture.pixels, expected.pixels), picture.name
        assert picture.pixels.is_contiguous()
        assert (picture.mask is None) == (expected.mask is None)
        if picture.mask is not None and expected.mask is not None:
            assert torch.equal(picture.mask, expected.mask), picture.name
        assert image.digest == digest(FORMS[picture.name][0])
        assert (image.height, image.width) == tuple(expected.pixels.shape[1:])
        assert image.has_mask == (expected.mask is not None)
    assert acme.get(made.name) == answer
    assert answer.etag != made.etag
    assert answer.update_time.ToDatetime() > made.update_time.ToDatetime()
    assert sorted(acme.stored()) == acme.named()
    assert decoders() == []


SECRET = b"a secret place"


def test_nothing_but_pixels_is_kept(acme: Tenant) -> None:
    comment = PICTURE[:33] + png_text(SECRET) + PICTURE[33:]
    files = {
        "exif.jpg": saved(scene(), "JPEG", exif=exif(6), comment=SECRET),
        "exif.webp": saved(scene(), "WEBP", exif=exif(6), xmp=SECRET, icc_profile=SECRET),
        "text.png": comment,
        "zip.png": PICTURE + b"PK\x03\x04" + SECRET,
        "page.jpg": saved(scene(), "JPEG") + b"<script>" + SECRET + b"</script>",
        "program.png": PICTURE + b"MZ" + SECRET,
    }
    assert all(SECRET in data for data in files.values())
    made = acme.image_set()
    acme.upload(made.name, *files.items())
    for blob in acme.stored():
        data = acme.installation.vault.get(acme.id, blob)
        assert SECRET not in data
        assert png_chunks(data) == ["IHDR", "IDAT", "IEND"]


def png_text(text: bytes) -> bytes:
    data = b"Comment\0" + text
    checksum = zlib.crc32(b"tEXt" + data)
    return struct.pack(">I4s", len(data), b"tEXt") + data + struct.pack(">I", checksum)


def png_chunks(data: bytes) -> list[str]:
    """The kinds of a PNG's chunks, each once, and nothing may follow them."""
    place, kinds = 8, []
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        kinds.append(kind.decode())
        place += 12 + length
    assert place == len(data)
    return list(dict.fromkeys(kinds))


@embedded
@pytest.mark.parametrize("size", [1, 7, 4 << 20])
def test_bytes_come_in_pieces_of_any_size(acme: Tenant, size: int) -> None:
    small = saved(scene(9, 7), "PNG")
    made = acme.image_set()
    answer = acme.upload(made.name, ("a.png", small, small), ("b.png", small), chunk=size)
    assert [image.digest for image in answer.images] == [digest(small)] * 2


# The order of messages.

Messages = Callable[[str], list[wire.UploadImagesRequest]]

HEADER = header("a.png", PICTURE)
BODY = list(chunks(PICTURE, 500))
OUT_OF_ORDER: dict[str, tuple[Messages, str, str]] = {
    "nothing": (lambda name: [], "image_set", "carries nothing"),
    "no set": (lambda name: [HEADER, *BODY], "image_set", "carries header"),
    "bytes first": (lambda name: BODY, "image_set", "carries chunk"),
    "an empty message": (lambda name: [wire.UploadImagesRequest()], "part", "required"),
    "no name": (
        lambda name: [wire.UploadImagesRequest(image_set="tom")],
        "image_set",
        "not of the form",
    ),
    "another set": (
        lambda name: [named(name), HEADER, *BODY, named(name)],
        "image_set",
        "named once",
    ),
    "bytes without a header": (
        lambda name: [named(name), *BODY],
        "chunk",
        "before any header",
    ),
    "too few bytes": (
        lambda name: [named(name), HEADER, *BODY[:-1]],
        "chunk",
        f"a.png was announced with {len(PICTURE)} bytes, and only",
    ),
    "too few bytes before another": (
        lambda name: [named(name), HEADER, *BODY[:-1], header("b.png", PICTURE), *BODY],
        "chunk",
        f"a.png was announced with {len(PICTURE)} bytes, and only",
    ),
    "too many bytes": (
        lambda name: [named(name), HEADER, *BODY, *BODY],
        "chunk",
        f"a.png was announced with {len(PICTURE)} bytes, and {len(PICTURE) + 500} have come",
    ),
    "a mask alone": (
        lambda name: [named(name), header("a.png", MASK, is_mask=True), *chunks(MASK)],
        "header.is_mask",
        "the mask of a.png does not follow its image",
    ),
    "another's mask": (
        lambda name: [named(name), HEADER, *BODY, header("b.png", MASK, is_mask=True)],
        "header.is_mask",
        "the mask of b.png does not follow its image",
    ),
    "two masks": (
        lambda name: [*parts(name, ("a.png", PICTURE, MASK)), header("a.png", MASK, is_mask=True)],
        "header.is_mask",
        "the mask of a.png does not follow its image",
    ),
    "too few bytes of a mask": (
        lambda name: list(parts(name, ("a.png", PICTURE, MASK), chunk=100))[:-1],
        "chunk",
        "the mask of a.png was announced with",
    ),
    "no bytes": (
        lambda name: [named(name), header("a.png", b"")],
        "header.size_bytes",
        "greater than or equal to 1",
    ),
    "21 megabytes": (
        lambda name: [named(name), header("a.png", PICTURE, size_bytes=21_000_000)],
        "header.size_bytes",
        "less than or equal to 20000000",
    ),
    "a path": (
        lambda name: [named(name), header("../a.png", PICTURE)],
        "header.file_name",
        "",
    ),
    "half a digest": (
        lambda name: [named(name), header("a.png", PICTURE, digest="sha256:00")],
        "header.digest",
        "",
    ),
}


def named(name: str) -> wire.UploadImagesRequest:
    return wire.UploadImagesRequest(image_set=name)


@embedded
@pytest.mark.parametrize("case", OUT_OF_ORDER)
def test_messages_out_of_order_are_refused(acme: Tenant, case: str) -> None:
    make, field, words = OUT_OF_ORDER[case]
    made = acme.image_set()
    with nothing_left(acme), refused("INVALID_ARGUMENT", field=field) as caught:
        acme.call.UploadImages(iter(make(made.name)))
    assert words in str(caught.value.details["BadRequest"])


def test_an_upload_without_images_is_refused(acme: Tenant) -> None:
    made = acme.image_set()
    with nothing_left(acme), refused("INVALID_ARGUMENT") as caught:
        acme.upload(made.name)
    assert "no image" in caught.value.message


def test_a_set_that_is_not_there_costs_no_bytes(acme: Tenant) -> None:
    """The call ends while its caller would go on sending for ever."""
    read = 0

    def endless() -> Iterator[wire.UploadImagesRequest]:
        nonlocal read
        yield named(f"{acme.name}/imageSets/tim")
        yield header("a.png", b"", size_bytes=20_000_000)
        while True:
            read += 1
            yield wire.UploadImagesRequest(chunk=bytes(1000))

    with refused("NOT_FOUND"):
        acme.call.UploadImages(endless())
    assert read < 20_000
    assert not acme.installation.uploads._running


# Hostile files.

TOO_LARGE = png(5001, 5000)
HOSTILE: dict[str, tuple[tuple[bytes, ...], str]] = {
    "text.png": ((b"this is not a picture",), "not a picture by its content"),
    "party.png": ((saved(scene(), "GIF"),), "party.png is a GIF"),
    "moving.webp": ((animated("WEBP"),), "animated"),
    "moving.png": ((apng(),), "animated"),
    "vast.png": ((TOO_LARGE,), "25.0 megapixels; at most 25 are read"),
    "cut.png": ((PICTURE[:-20],), "cut.png is damaged"),
    "cut.jpg": ((saved(scene(), "JPEG")[:-40],), "cut.jpg is damaged"),
    "cut.webp": ((saved(scene(), "WEBP")[:-40],), "cut.webp is damaged"),
    "checksum.png": ((with_wrong_checksum(),), "checksum.png is damaged"),
    "nothing.png": ((saved(Image.new("RGBA", (8, 8)), "PNG"),), "transparent everywhere"),
    "jpeg mask.png": (
        (PICTURE, saved(scene(), "JPEG")),
        "the mask of jpeg mask.png is a JPEG; a mask is a PNG file",
    ),
    "small mask.png": (
        (PICTURE, OTHER),
        "the mask of small mask.png is 40 × 40 pixels and small mask.png is 48 × 32",
    ),
    "black mask.png": (
        (PICTURE, saved(Image.new("L", (48, 32)), "PNG")),
        "the mask of black mask.png is black everywhere",
    ),
    "cut mask.png": ((PICTURE, MASK[:-20]), "the mask of cut mask.png is damaged"),
}


@embedded
@pytest.mark.parametrize("name", HOSTILE)
def test_one_bad_file_refuses_the_whole_upload(acme: Tenant, name: str) -> None:
    files, words = HOSTILE[name]
    made = acme.image_set()
    good = [("a.png", PICTURE), ("z.png", PICTURE, MASK)]
    with nothing_left(acme), refused("INVALID_ARGUMENT", "PICTURE_REFUSED") as caught:
        acme.upload(made.name, good[0], (name, *files), good[1])
    assert words in caught.value.message
    assert name in caught.value.message


def test_the_wrong_bytes_are_refused(acme: Tenant) -> None:
    made = acme.image_set()
    lying = [*parts(made.name, ("a.png", PICTURE)), header("b.png", OTHER, digest=digest(b""))]
    with nothing_left(acme), refused("INVALID_ARGUMENT", "DIGEST_MISMATCH") as caught:
        acme.call.UploadImages(iter([*lying, *chunks(OTHER)]))
    assert caught.value.message.startswith("b.png arrived with the digest")
    wrong_mask = header("a.png", MASK, digest=digest(b""), is_mask=True)
    with nothing_left(acme), refused("INVALID_ARGUMENT", "DIGEST_MISMATCH") as caught:
        acme.call.UploadImages(
            iter([*parts(made.name, ("a.png", PICTURE)), wrong_mask, *chunks(MASK)])
        )
    assert caught.value.message.startswith("the mask of a.png arrived with the digest")


# How many.


def test_sixty_four_images_and_no_more(acme: Tenant) -> None:
    small = saved(scene(3, 2), "PNG")
    many = [(f"{number:02}.png", small) for number in range(65)]
    made = acme.image_set()
    full = acme.upload(made.name, *many[:64])
    assert len(full.images) == 64
    done = threading.Event()

    def up_to_a_header(*before: tuple[str, bytes]) -> Iterator[wire.UploadImagesRequest]:
        yield from parts(made.name, *before)
        yield header(*many[64])
        done.wait(30)  # No byte follows, nor the stream's end: the header alone is refused.

    with refused("INVALID_ARGUMENT", "PICTURE_REFUSED") as caught:
        acme.call.UploadImages(up_to_a_header())
    assert "64.png would be image 65 of its set" in caught.value.message
    with refused("INVALID_ARGUMENT", field="header") as caught:
        acme.call.UploadImages(up_to_a_header(*many[:64]))
    assert "64.png would be image 65 of its upload" in caught.value.message
    done.set()
    assert acme.get(made.name) == full


def test_so_many_pixels_and_no_more(acme: Tenant) -> None:
    made = acme.image_set()
    acme.upload(made.name, ("a.png", PICTURE))
    (row,) = acme.installation.rows(IMAGES, tenant=acme.id)
    room = 48 * 32
    acme.installation.change(IMAGES, row.id, width=MAX_KEPT_PIXELS // 2 - room, height=2)
    acme.upload(made.name, ("b.png", PICTURE))
    strip = png(16_000, 1_000)  # No pixels inside: it is refused before it is decoded.
    for file in (("c.png", strip), ("c.png", PICTURE), ("c.png", OTHER)):
        if file[1] is PICTURE:
            acme.upload(made.name, file)  # The last that fits, to the very pixel.
            file = ("d.png", png(1, 1))
        with refused("INVALID_ARGUMENT", "PICTURE_REFUSED") as caught:
            acme.upload(made.name, (f"x{file[0]}", file[1]))
        assert "megapixels after shrinking; at most 268" in caught.value.message
    assert len(acme.get(made.name).images) == 3


# Again, and others.


def test_a_repeated_upload_succeeds_and_changes_nothing(acme: Tenant) -> None:
    made = acme.image_set()
    pictures = [("a.png", PICTURE), ("b.png", PICTURE, MASK)]
    first = acme.upload(made.name, *pictures)
    files = acme.stored()
    assert acme.upload(made.name, *pictures) == first
    assert acme.upload(made.name, pictures[1]) == first
    assert acme.upload(made.name, pictures[0], pictures[0]) == first
    assert acme.stored() == files
    more = acme.upload(made.name, *pictures, ("c.png", OTHER), ("c.png", OTHER))
    assert [image.file_name for image in more.images] == ["a.png", "b.png", "c.png"]
    assert sorted(acme.stored()) == acme.named()
    # Even where the set takes nothing else any more.
    acme.run(made.name)
    assert acme.upload(made.name, *pictures) == more


@embedded
@pytest.mark.parametrize(
    "files", [(OTHER,), (PICTURE,), (PICTURE, PICTURE)], ids=["image", "no mask", "mask"]
)
def test_a_name_stands_for_one_content(acme: Tenant, files: tuple[bytes, ...]) -> None:
    made = acme.image_set()
    first = acme.upload(made.name, ("a.png", PICTURE, MASK))
    before = acme.stored()
    with refused("ALREADY_EXISTS") as caught:
        acme.upload(made.name, ("b.png", OTHER), ("a.png", *files))
    assert "called a.png" in caught.value.message
    assert acme.get(made.name) == first
    eventually(lambda: acme.stored() == before)
    fresh = acme.image_set()
    with refused("ALREADY_EXISTS"):
        acme.upload(fresh.name, ("a.png", PICTURE, MASK), ("a.png", *files))
    assert list(acme.get(fresh.name).images) == []


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.SUCCEEDED])
def test_a_set_with_a_run_takes_no_more_images(acme: Tenant, state: RunState) -> None:
    made = acme.image_set(keep=True)
    before = acme.upload(made.name, ("a.png", PICTURE))
    acme.run(made.name, state)
    with refused("FAILED_PRECONDITION") as caught:
        acme.upload(made.name, ("b.png", OTHER))
    assert "takes no more images" in caught.value.message
    assert acme.get(made.name) == before
    assert sorted(acme.stored()) == acme.named()


def test_a_set_whose_time_is_over_takes_no_more_images(acme: Tenant) -> None:
    made = acme.image_set()
    acme.installation.expire(made)
    with refused("FAILED_PRECONDITION", "IMAGE_SET_EMPTY"):
        acme.upload(made.name, ("a.png", PICTURE))
    assert acme.stored() == []


# Races, with the rules themselves, which know nothing of calls.


def opened(tenant: Tenant, made: wire.ImageSet, *pictures: tuple[str, bytes]) -> Upload:
    """An upload that has taken these pictures in and is yet to be committed."""
    upload = tenant.installation.uploads.open(
        Mutation(tenant.id, "t"), ImageSetName.parse(made.name)
    )
    upload.begin()
    for name, data in pictures:
        upload.add(name, sent(data))
    return upload


def test_what_others_did_meanwhile_is_seen_at_the_end(acme: Tenant) -> None:
    sets = acme.installation.image_sets
    changes: dict[type[Exception], Callable[[wire.ImageSet], object]] = {
        NotFound: lambda made: sets.delete(Mutation(acme.id, "t"), ImageSetName.parse(made.name)),
        FailedPrecondition: lambda made: acme.run(made.name),
    }
    for refusal, change in changes.items():
        made = acme.image_set("tom")
        upload = opened(acme, made, ("a.png", PICTURE))
        change(made)
        with pytest.raises(refusal):
            upload.commit()
        assert acme.stored() == []
    made = acme.image_set("tim")
    upload = opened(acme, made, ("a.png", PICTURE))
    acme.call.DeleteImageSet(wire.DeleteImageSetRequest(name=made.name))
    again = acme.image_set("tim")
    with pytest.raises(NotFound):
        upload.commit()
    assert acme.get(again.name) == again
    assert acme.stored() == []


def test_uploads_of_the_same_files_at_once_all_succeed(acme: Tenant) -> None:
    for _ in range(2):
        made = acme.image_set()
        files = [("a.png", PICTURE), ("b.png", OTHER)]
        uploads = [opened(acme, made, *files, (f"{n}.png", PICTURE)) for n in range(4)]
        answers = at_once(*(upload.commit for upload in uploads))
        assert not [answer for answer in answers if isinstance(answer, Exception)], answers
        assert [image.file_name for image in acme.get(made.name).images] == [
            *(f"{n}.png" for n in range(4)), "a.png", "b.png",
        ]  # fmt: skip
        assert sorted(acme.stored()) == acme.named()


def test_of_different_files_of_one_name_one_wins(acme: Tenant) -> None:
    made = acme.image_set()
    uploads = [opened(acme, made, ("a.png", data)) for data in (PICTURE, OTHER, MASK)]
    answers = at_once(*(upload.commit for upload in uploads))
    codes = sorted(getattr(answer, "status", "OK") for answer in answers)
    assert codes == ["ALREADY_EXISTS", "ALREADY_EXISTS", "OK"]
    assert sorted(acme.stored()) == acme.named()
    assert len(acme.stored()) == 1


def test_an_upload_and_a_deletion_at_once(acme: Tenant) -> None:
    for _ in range(4):
        made = acme.image_set()
        upload = opened(acme, made, ("a.png", PICTURE))
        name = ImageSetName.parse(made.name)
        delete = partial(acme.installation.image_sets.delete, Mutation(acme.id, "t"), name)
        answer, deleted = at_once(upload.commit, delete)
        assert deleted is None
        assert not isinstance(answer, Exception) or isinstance(answer, NotFound)
        assert acme.named() == acme.stored() == []


def test_an_upload_abandoned_at_any_moment_leaves_nothing(acme: Tenant) -> None:
    """Between, before and while images are taken in."""
    made = acme.image_set()
    for delay in (0.0, 0.1, 0.2, 0.3, 0.4):
        upload = opened(acme, made)
        worker = threading.Thread(target=quietly, args=(upload,))
        worker.start()
        worker.join(delay)
        upload.abandon()
        worker.join(30)
        assert acme.stored() == []
        assert decoders() == []
    assert not acme.installation.uploads._running


def quietly(upload: Upload) -> None:
    try:
        for number in range(100):
            upload.add(f"{number}.png", sent(PICTURE))
    except Exception:
        return


# Callers that go away.


def test_a_caller_that_cancels_leaves_nothing(acme: Tenant) -> None:
    made = acme.image_set()
    files = list(parts(made.name, ("a.png", PICTURE), ("b.png", PICTURE, MASK), chunk=400))
    # Before anything, within a file, between an image and its mask, before the stream's end.
    for count in (1, 2, 4, len(files) // 2, len(files)):
        sent_all, go_on = threading.Event(), threading.Event()

        def half(
            count: int = count,
            sent_all: threading.Event = sent_all,
            go_on: threading.Event = go_on,
        ) -> Iterator[wire.UploadImagesRequest]:
            yield from files[:count]
            sent_all.set()
            go_on.wait(30)

        with nothing_left(acme):
            call = acme.call.stub.UploadImages.future(half(), metadata=acme.call.metadata)
            sent_all.wait(30)
            call.cancel()
            go_on.set()
            with pytest.raises(grpc.FutureCancelledError):
                call.result()


def test_a_deadline_leaves_nothing(acme: Tenant) -> None:
    made = acme.image_set()
    done = threading.Event()

    def slow() -> Iterator[wire.UploadImagesRequest]:
        yield from parts(made.name, ("a.png", PICTURE), ("b.png", PICTURE))
        done.wait(30)

    with nothing_left(acme):
        with pytest.raises(grpc.RpcError) as caught:
            acme.call.stub.UploadImages(slow(), metadata=acme.call.metadata, timeout=0.7)
        done.set()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]


def test_a_vanished_caller_leaves_nothing(acme: Tenant) -> None:
    """A process that sends half an upload and is killed."""
    made = acme.image_set()
    script = """
import sys, time, grpc
from perfuse.v1 import trainer_pb2 as wire
from perfuse.v1.trainer_pb2_grpc import TrainerServiceStub
target, token, name, path = sys.argv[1:]
def half():
    for line in open(path):
        yield wire.UploadImagesRequest.FromString(bytes.fromhex(line))
    print("sent", flush=True)
    time.sleep(60)
stub = TrainerServiceStub(grpc.insecure_channel(target))
stub.UploadImages(half(), metadata=(("authorization", token),))
"""
    with tempfile.NamedTemporaryFile("w") as file, nothing_left(acme):
        for message in parts(made.name, ("a.png", PICTURE), ("b.png", PICTURE)):
            print(message.SerializeToString().hex(), file=file, flush=True)
        arguments = [acme.installation.target, acme.call.metadata[0][1], made.name, file.name]
        process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        with process.stdout:
            assert process.stdout.readline() == b"sent\n"
            eventually(lambda: acme.stored() != [])
            process.kill()
            process.wait()


def test_a_caller_that_falls_silent_is_hung_up_on(
    acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_servicer, "IDLE_SECONDS", 0.5)
    made = acme.image_set()
    done = threading.Event()

    def silent() -> Iterator[wire.UploadImagesRequest]:
        yield from parts(made.name, ("a.png", PICTURE), ("b.png", PICTURE))
        done.wait(30)

    with nothing_left(acme), refused("DEADLINE_EXCEEDED"):
        acme.call.UploadImages(silent())
    done.set()


def test_so_many_uploads_at_a_time(installation: Installation, acme: Tenant, rival: Tenant) -> None:
    few = Uploads(installation.database, installation.vault, most=3, most_of_tenant=2)
    mine, theirs = (ImageSetName.parse(each.image_set().name) for each in (acme, rival))
    with pytest.raises(NotFound):
        few.open(Mutation(acme.id, "t"), theirs)
    running = [few.open(Mutation(acme.id, "t"), mine), few.open(Mutation(acme.id, "t"), mine)]
    with pytest.raises(ResourceExhausted, match="2 uploads of yours") as caught:
        few.open(Mutation(acme.id, "t"), mine)
    assert caught.value.retry_after
    running.append(few.open(Mutation(rival.id, "t"), theirs))
    with pytest.raises(ResourceExhausted, match="3 in all"):
        few.open(Mutation(rival.id, "t"), theirs)
    for upload in running:
        upload.abandon()
        upload.abandon()
    assert not few._running


# What goes wrong behind it.


def test_an_upload_that_took_too_long_makes_nothing(acme: Tenant) -> None:
    hasty = Uploads(
        acme.installation.database, acme.installation.vault, limit=timedelta(seconds=1.5)
    )
    upload = hasty.open(Mutation(acme.id, "t"), ImageSetName.parse(acme.image_set().name))
    upload.begin()
    upload.add("a.png", sent(PICTURE))
    assert upload.remaining > 0
    eventually(lambda: upload.remaining == 0)
    with nothing_left(acme):
        with pytest.raises(DeadlineExceeded, match="several calls"):
            upload.expect("b.png", digest(OTHER))
        with pytest.raises(DeadlineExceeded):
            upload.commit()


class Forgetful(Database):
    """Does what it is told and says that it does not know."""

    def transact(self, work: Any) -> Any:
        super().transact(work)
        raise Unavailable("the answer was lost")


def test_a_lost_answer_of_the_database_loses_no_bytes(acme: Tenant) -> None:
    made = acme.image_set()
    database = Forgetful(acme.installation.storage.url)
    upload = Uploads(database, acme.installation.vault).open(
        Mutation(acme.id, "t"), ImageSetName.parse(made.name)
    )
    try:
        upload.begin()
        upload.add("a.png", sent(PICTURE))
        with pytest.raises(Unavailable):
            upload.commit()
        upload.abandon()
    finally:
        database.close()
    (picture,) = kept_pictures(
        acme.installation.database, acme.installation.vault, set_key(acme, made)
    )
    assert torch.equal(picture.pixels, read_picture(PICTURE, "a.png").pixels)
    assert acme.upload(made.name, ("a.png", PICTURE)) == acme.get(made.name)


class FullStore:
    """A store that takes so many files and no more."""

    def __init__(self, vault: Vault, room: int) -> None:
        self._blobs, self._room = vault.blobs, room

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    def put(self, *arguments: Any) -> None:
        if not self._room:
            raise Unavailable("the store is full")
        self._room -= 1
        self._blobs.put(*arguments)


def test_a_store_that_fails_leaves_nothing(acme: Tenant) -> None:
    made = acme.image_set()
    vault = Vault(FullStore(acme.installation.vault, 2))  # type: ignore[arg-type]
    upload = Uploads(acme.installation.database, vault).open(
        Mutation(acme.id, "t"), ImageSetName.parse(made.name)
    )
    with nothing_left(acme):
        upload.begin()
        upload.add("a.png", sent(PICTURE))
        with pytest.raises(Unavailable):
            upload.add("b.png", sent(PICTURE), sent(MASK))
        upload.abandon()


def test_a_restarted_server_has_what_was_committed(backend: str, tmp_path: Path) -> None:
    with trainer_storage(backend, tmp_path) as storage:
        with installed(storage) as installation:
            acme = installation.tenant()
            made = acme.image_set()
            answer = acme.upload(made.name, ("a.png", PICTURE, MASK))
            opened(acme, made, ("b.png", PICTURE))._intake.close()  # type: ignore[union-attr]
        with installed(storage) as installation:
            again = Tenant(installation, acme.id)
            assert again.get(made.name) == answer
            more = again.upload(made.name, ("a.png", PICTURE, MASK), ("b.png", PICTURE))
            assert [image.file_name for image in more.images] == ["a.png", "b.png"]


# What it costs.


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_bomb_costs_little(acme: Tenant) -> None:
    data = bomb()
    assert len(data) < 30_000
    made = acme.image_set()
    acme.upload(made.name, ("a.png", PICTURE))

    def peak() -> int:
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])

    Path("/proc/self/clear_refs").write_text("5")  # forget earlier peaks
    before, began = peak(), time.monotonic()
    with refused("INVALID_ARGUMENT", "PICTURE_REFUSED") as caught:
        acme.upload(made.name, ("bomb.png", data))
    seconds = time.monotonic() - began
    assert "bomb.png is 13000 × 13000 pixels, 169.0 megapixels" in caught.value.message
    # Its header condemns it: no process is started, and this one decodes nothing.
    assert peak() - before < 100_000
    assert seconds < 1
    assert len(acme.get(made.name).images) == 1


def test_a_server_that_takes_images_in_needs_no_torch() -> None:
    script = (
        "import sys, perfuse_trainer.wire.image_servicer, perfuse_trainer.sweeping;"
        "print(sorted({'torch', 'numpy', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert found.stdout == b"[]\n"
