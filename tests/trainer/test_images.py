"""Pictures are hostile until read: what is refused, with which sentence, and what is read right.

Files are made here byte by byte or with Pillow; nothing is mocked but, where the guard itself is on
trial, the program that the guard runs.
"""

from __future__ import annotations

import os
import re
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from perfuse.errors import FailedPrecondition, InvalidArgument, NotFound, PictureRefused
from perfuse_trainer.pictures import images, intake_process
from perfuse_trainer.pictures.images import TrainingPicture, fit, read_folder, read_picture
from perfuse_trainer.pictures.intake_process import IntakeProcess, kept_size
from perfuse_trainer.pictures.picture_header import (
    MAX_BLOCKS,
    MAX_PICTURE_BYTES,
    PictureFormat,
    judge,
)

PNG = b"\x89PNG\r\n\x1a\n"
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(width: int, height: int, rows: bytes = b"", *, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG whose header says what it is told to; `rows` are filter bytes and samples."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    packed = zlib.compress(rows, 9)
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND")


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def scene(width: int = 48, height: int = 32) -> Image.Image:
    """Smooth, not symmetric in any way, and too rich for a decoder to get right by luck."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = [x * 255 / max(1, width - 1), y * 255 / max(1, height - 1), (x * y) % 200]
    return Image.fromarray(np.stack(rgb, -1).astype(np.uint8), "RGB")


def array(picture: TrainingPicture) -> np.ndarray:
    return picture.pixels.permute(1, 2, 0).numpy()


def bomb() -> bytes:
    """169 megapixels of nothing in about 20 KB."""
    return png(13_000, 13_000, bytes(13_000 // 8 + 1) * 13_000, depth=1, colour=0)


def slow_jpeg() -> bytes:
    """A small progressive JPEG that sends its decoder over the picture thousands of times."""
    data = saved(Image.new("L", (3000, 3000), 90), "JPEG", progressive=True)
    starts = [found.start() for found in re.finditer(rb"\xff\xda", data)]
    scan = data[starts[-1] : -2]
    return data[:-2] + scan * 20_000 + data[-2:]


def apng() -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    return saved(frames[0], "PNG", save_all=True, append_images=frames[1:])


def animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


# Refused by the header alone: name, bytes, and what the sentence must say.
BY_HEADER: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "empty.png": (lambda: b"", ("empty", "PNG, JPEG and WebP")),
    "text.png": (lambda: b"this is not a picture", ("not a picture", "PNG, JPEG and WebP")),
    "short.png": (lambda: b"\x89PNG", ("not a picture",)),
    "drawing.svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", ("an SVG",)),
    "drawing2.svg": (lambda: b"\n<?xml version='1.0'?><svg/>", ("an XML file",)),
    "party.gif": (lambda: animated("GIF"), ("a GIF", "save it as one of these")),
    "still.gif": (lambda: saved(scene(), "GIF"), ("a GIF",)),
    "old.bmp": (lambda: saved(scene(), "BMP"), ("a BMP",)),
    "scan.tiff": (lambda: saved(scene(), "TIFF"), ("a TIFF",)),
    "phone.heic": (lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", ("a HEIC",)),
    "web.avif": (lambda: b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", ("an AVIF",)),
    "paper.jpg": (lambda: b"%PDF-1.7\n", ("a PDF",)),
    "bomb.png": (bomb, ("13000 × 13000", "169.0 megapixels", "at most 25", "shrink")),
    "wide.png": (lambda: png(50_000, 1), ("50000 × 1 pixels", "16384", "shrink")),
    "tall.png": (lambda: png(1, 50_000), ("1 × 50000 pixels", "16384")),
    "hollow.png": (lambda: png(50_000, 9)[:33], ("50000 × 9 pixels", "16384")),
    "vast.png": (lambda: png(2**31 - 1, 2**31 - 1), ("16384",)),
    "flat.png": (lambda: png(0, 7), ("0 × 7", "at least 1")),
    "headless.png": (lambda: PNG + chunk(b"IDAT"), ("a PNG", "makes no sense")),
    "cut.png": (lambda: png(4, 4, bytes(52))[:40], ("a PNG", "breaks off")),
    "chatty.png": (
        lambda: png(4, 4)[:33] + chunk(b"tEXt") * (MAX_BLOCKS + 1) + png(4, 4)[33:],
        ("a PNG", "makes no sense"),
    ),
    "moving.png": (apng, ("animated", "one frame", "save the frame")),
    "moving.webp": (lambda: animated("WEBP"), ("animated", "one frame")),
    "wide.webp": (
        # An extended header that claims the format's largest canvas.
        lambda: b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff" * 6,
        ("16777216 × 16777216", "16384"),
    ),
    "cut.webp": (lambda: saved(scene(), "WEBP")[:24], ("a WebP", "breaks off")),
    "cut.jpg": (lambda: saved(scene(), "JPEG")[:30], ("a JPEG", "breaks off")),
    "wide.jpg": (
        lambda: b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x01\xff\xff\x01\x01\x11\x00",
        ("65535 × 1 pixels", "16384"),
    ),
    "padded.jpg": (lambda: b"\xff\xd8" + b"\xff" * 1_000_000, ("a JPEG", "makes no sense")),
    "nameless\nline.png": (lambda: b"x", (r"'nameless\nline.png' is not a picture",)),
}


@pytest.mark.parametrize("name", BY_HEADER)
def test_refused_by_its_header_without_a_process(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> IntakeProcess:
        raise AssertionError("a process was started for a file that its header condemns")

    monkeypatch.setattr(images, "IntakeProcess", none)
    make, words = BY_HEADER[name]
    with pytest.raises(PictureRefused) as refused:
        read_picture(make(), name)
    sentence = str(refused.value)
    assert all(word in sentence for word in words), sentence
    assert sentence.isprintable()
    assert name in sentence or ascii(name) in sentence


def test_a_file_over_twenty_megabytes_is_refused() -> None:
    data = png(4, 4)
    with pytest.raises(PictureRefused, match="20000001 bytes; a picture has at most 20000000"):
        judge(data + bytes(MAX_PICTURE_BYTES + 1 - len(data)), "heavy.png")


@given(
    start=st.sampled_from(
        [PNG, PNG + chunk(b"IHDR", bytes(13)), b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBPVP8X", b""]
    ),
    rest=st.binary(max_size=80),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_bytes_are_judged_or_refused(start: bytes, rest: bytes) -> None:
    try:
        header = judge(start + rest, "x")
    except PictureRefused:
        return
    assert header.width * header.height >= 1
    assert header.format in PictureFormat


@pytest.fixture(scope="module")
def intake() -> Iterator[IntakeProcess]:
    with IntakeProcess() as process:
        yield process


def decode(intake: IntakeProcess, data: bytes, name: str) -> intake_process.DecodedPicture:
    return intake.decode(data, name, judge(data, name))


def with_wrong_checksum() -> bytes:
    data = bytearray(saved(scene(), "PNG"))
    place = data.index(b"IDAT")
    length = struct.unpack_from(">I", data, place - 4)[0]
    data[place + 4 + length] ^= 1
    return bytes(data)


DAMAGED: dict[str, Callable[[], bytes]] = {
    "checksum.png": with_wrong_checksum,
    "garbage.png": lambda: png(4, 4).replace(zlib.compress(b"", 9), b"\x01\x02\x03\x04"),
    "endless.png": lambda: png(4, 4, bytes(52))[:-12],
    "truncated.jpg": lambda: saved(scene(640, 480), "JPEG")[:9000],
    "endless.jpg": lambda: saved(scene(), "JPEG")[:-2],
    "truncated.webp": lambda: saved(scene(640, 480), "WEBP")[:5000],
    "bits.jpg": lambda: saved(scene(), "JPEG").replace(
        b"\xff\xc0\x00\x11\x08", b"\xff\xc0\0\x11\x0c"
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_refused_and_the_process_goes_on(name: str, intake: IntakeProcess) -> None:
    with pytest.raises(PictureRefused, match=f"^{name} is damaged and cannot be decoded .*save it"):
        decode(intake, DAMAGED[name](), name)
    assert decode(intake, saved(scene(), "PNG"), "good.png").full_size == (48, 32)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@given(data=st.data())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_no_part_of_a_file_is_taken_for_the_whole(
    kind: str, intake: IntakeProcess, data: st.DataObject
) -> None:
    whole = saved(scene(), kind)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(PictureRefused, match=r"^cut "):
        decode(intake, cut, "cut")


# The spec's words for orientations 1 to 8: the visual side of row 0, and of column 0.
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def stored(upright: Image.Image, orientation: int) -> Image.Image:
    """How a camera held that way would have stored the picture."""
    rows, columns = SIDES[orientation]
    pixels = np.asarray(upright)
    if rows in ("left", "right"):
        pixels = pixels.swapaxes(0, 1)
    if rows in ("right", "bottom"):
        pixels = pixels[::-1]
    if columns in ("right", "bottom"):
        pixels = pixels[:, ::-1]
    return Image.fromarray(np.ascontiguousarray(pixels))


def exif(orientation: int) -> Image.Exif:
    entries = Image.Exif()
    entries[0x0112] = orientation
    entries[0x010E] = "a secret place"
    return entries


def cutout(kind: str) -> Image.Image:
    """Green with a hidden red under transparent pixels in its left half."""
    image = Image.new("RGBA", (8, 6), (0, 128, 0, 255))
    image.paste((255, 0, 0, 0), (0, 0, 4, 6))
    return image if kind == "RGBA" else image.convert(kind)


def palette() -> bytes:
    image = Image.new("P", (6, 4), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 3, 4))
    return saved(image, "PNG", transparency=0)


def deep_grey() -> bytes:
    rows = b"".join(b"\0" + struct.pack(">4H", *(0, 255, 32768, 65535)) for _ in range(2))
    return png(4, 2, rows, depth=16, colour=0)


def deep_rgb() -> bytes:
    rows = b"\0" + struct.pack(">6H", 65535, 0, 32768, 256, 255, 0)
    return png(2, 1, rows, depth=16, colour=2)


def phone_picture() -> bytes:
    """A JPEG with a second picture behind it, as phones store previews and gain maps."""
    return saved(scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TrainingPicture]:
    """A folder of everything that is allowed, read at once."""
    folder = tmp_path_factory.mktemp("pictures")
    files = {
        "plain.png": saved(scene(), "PNG"),
        "lying.jpg": saved(scene(), "PNG"),
        "grey.png": saved(scene().convert("L"), "PNG"),
        "line.png": saved(Image.new("1", (5, 3), 1), "PNG"),
        "lossless.webp": saved(scene(), "WEBP", lossless=True),
        "lossy.webp": saved(scene(), "WEBP", quality=95),
        "photo.jpg": saved(scene(), "JPEG", quality=95),
        "progressive.jpg": saved(scene(), "JPEG", quality=95, progressive=True),
        "phone.jpg": phone_picture(),
        "print.jpg": saved(Image.new("CMYK", (9, 5), (255, 0, 0, 0)), "JPEG", quality=95),
        "turned.jpg": saved(stored(scene(), 6), "JPEG", quality=95, exif=exif(6)),
        "nonsense.png": saved(scene(), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        "cutout.png": saved(cutout("RGBA"), "PNG"),
        "cutout.webp": saved(cutout("RGBA"), "WEBP", lossless=True, exact=True),
        "cutout2.png": saved(cutout("LA"), "PNG"),
        "opaque.png": saved(scene().convert("RGBA"), "PNG"),
        "palette.png": palette(),
        "deep.png": deep_grey(),
        "deep2.png": deep_rgb(),
        "masked.png": saved(scene(), "PNG"),
        "masked.mask.png": saved(Image.new("L", (48, 32), 0), "PNG"),
        "large.jpg": saved(Image.new("RGB", (2100, 1400), "teal"), "JPEG"),
        ".DS_Store": b"whatever",
        **{
            f"turned{number}.png": saved(stored(scene(), number), "PNG", exif=exif(number))
            for number in SIDES
        },
    }
    marks = Image.new("1", (48, 32), 0)
    marks.paste(1, (10, 4, 30, 20))
    files["masked.mask.png"] = saved(marks, "PNG")
    for name, data in files.items():
        (folder / name).write_bytes(data)
    found = read_folder(folder)
    assert [picture.name for picture in found] == sorted(
        name for name in files if not name.startswith(".") and ".mask." not in name
    )
    return {picture.name: picture for picture in found}


@pytest.mark.parametrize(
    "name",
    ["plain.png", "lying.jpg", "lossless.webp", "opaque.png", "masked.png", "nonsense.png"]
    + [f"turned{number}.png" for number in SIDES],
)
def test_lossless_files_are_read_exactly_and_upright(
    name: str, read: dict[str, TrainingPicture]
) -> None:
    picture = read[name]
    assert picture.pixels.dtype == torch.uint8
    assert picture.pixels.is_contiguous()
    assert np.array_equal(array(picture), np.asarray(scene()))
    assert (picture.mask is None) == (name != "masked.png")


@pytest.mark.parametrize(
    "name", ["photo.jpg", "progressive.jpg", "phone.jpg", "turned.jpg", "lossy.webp"]
)
def test_lossy_files_are_read_nearly(name: str, read: dict[str, TrainingPicture]) -> None:
    difference = array(read[name]).astype(int) - np.asarray(scene()).astype(int)
    assert array(read[name]).shape == (32, 48, 3)
    assert np.abs(difference).mean() < 12  # a wrong turn gives over 60


def test_other_colour_modes_become_rgb_of_8_bit(read: dict[str, TrainingPicture]) -> None:
    assert array(read["deep.png"])[0, :, 0].tolist() == [0, 0, 128, 255]
    assert array(read["deep2.png"])[0].tolist() == [[255, 0, 128], [1, 0, 0]]
    assert array(read["line.png"]).min() == 255
    grey = np.asarray(scene().convert("L"))
    assert np.array_equal(array(read["grey.png"]), np.stack([grey] * 3, -1))
    # Full cyan, nothing else.
    assert np.abs(array(read["print.jpg"]).astype(int) - [0, 255, 255]).max() < 10


@pytest.mark.parametrize("name", ["cutout.png", "cutout.webp", "cutout2.png"])
def test_transparency_becomes_the_mask_and_white(
    name: str, read: dict[str, TrainingPicture]
) -> None:
    picture = read[name]
    assert picture.mask is not None
    assert picture.mask.shape == (1, 6, 8)
    assert picture.mask[0, 0].tolist() == [0] * 4 + [255] * 4
    # What was erased is gone: white, not the colour that still lies under it in the file.
    assert (picture.pixels[:, :, :4] == 255).all()
    assert (picture.pixels[:, :, 4:] < 255).all()


def test_a_transparent_palette_entry_is_transparent(read: dict[str, TrainingPicture]) -> None:
    picture = read["palette.png"]
    assert picture.mask is not None
    assert picture.mask[0, 0].tolist() == [0, 0, 0, 255, 255, 255]
    assert array(picture)[0, [0, 5]].tolist() == [[255, 255, 255], [0, 0, 255]]


def test_a_mask_beside_a_picture_is_its_mask(read: dict[str, TrainingPicture]) -> None:
    mask = read["masked.png"].mask
    assert mask is not None
    expected = torch.zeros(1, 32, 48, dtype=torch.uint8)
    expected[:, 4:20, 10:30] = 255
    assert torch.equal(mask, expected)


def test_large_pictures_are_shrunk_to_what_a_base_can_use(
    read: dict[str, TrainingPicture],
) -> None:
    assert kept_size(2100, 1400) == (1536, 1024)
    assert kept_size(1024, 9000) == (1024, 9000)
    assert read["large.jpg"].pixels.shape == (3, 1024, 1536)
    assert np.abs(array(read["large.jpg"]).astype(int) - [0, 128, 128]).max() <= 4


def test_pixel_art_shown_enlarged_returns_to_its_very_pixels() -> None:
    art = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    large = Image.fromarray(art).resize((2048, 2048), Image.Resampling.NEAREST)
    picture = read_picture(saved(large, "PNG"), "art.png")
    assert picture.pixels.shape == (3, 1024, 1024)
    pixels, _ = fit(picture, 32)
    expected = torch.from_numpy(art).permute(2, 0, 1).float() / 127.5 - 1
    assert torch.equal(pixels, expected)


def test_a_mask_may_come_as_bytes() -> None:
    mask = Image.new("RGBA", (48, 32), (255, 255, 255, 0))
    mask.paste((255, 255, 255, 255), (0, 0, 24, 32))
    picture = read_picture(saved(scene(), "PNG"), "a.png", mask=saved(mask, "PNG"))
    assert picture.mask is not None
    assert picture.mask[0, 0].tolist() == [255] * 24 + [0] * 24


FOLDERS: dict[str, tuple[dict[str, Callable[[], bytes]], str]] = {
    "no files": ({}, r"holds no picture; put 1 to 64 pictures"),
    "hidden files only": ({".hidden.png": lambda: b""}, r"holds no picture"),
    "65 pictures": (
        {f"{number}.png": lambda: b"" for number in range(65)},
        r"holds 65 files; at most 64 pictures are read: keep the best",
    ),
    "notes": (
        {"a.png": lambda: saved(scene(), "PNG"), "notes.txt": lambda: b"buy milk"},
        r"notes\.txt is not a picture .*take it away",
    ),
    "50 000 px wide": (
        {"a.png": lambda: saved(scene(), "PNG"), "wide.png": lambda: png(50_000, 1)},
        r"wide\.png is 50000 × 1 pixels",
    ),
    "one corrupt": (
        {"a.png": lambda: saved(scene(), "PNG"), "b.png": with_wrong_checksum},
        r"b\.png is damaged and cannot be decoded",
    ),
    "a mask alone": (
        {"a.png": lambda: saved(scene(), "PNG"), "b.mask.png": lambda: saved(scene(), "PNG")},
        r"b\.mask\.png is the mask of no picture here",
    ),
    "a mask of the wrong kind": (
        {"a.png": lambda: saved(scene(), "PNG"), "a.mask.png": lambda: saved(scene(), "JPEG")},
        r"a\.mask\.png is a JPEG; a mask is a PNG file",
    ),
    "a mask of the wrong name": (
        {"a.png": lambda: saved(scene(), "PNG"), "a.mask.jpg": lambda: saved(scene(), "JPEG")},
        r"a\.mask\.jpg is named like a mask",
    ),
    "a mask of the wrong size": (
        {
            "a.png": lambda: saved(scene(), "PNG"),
            "a.mask.png": lambda: saved(scene(32, 48), "PNG"),
        },
        r"a\.mask\.png is 32 × 48 pixels and a\.png is 48 × 32; a mask has the size",
    ),
    "a black mask": (
        {
            "a.png": lambda: saved(scene(), "PNG"),
            "a.mask.png": lambda: saved(Image.new("L", (48, 32)), "PNG"),
        },
        r"a\.mask\.png is black everywhere",
    ),
    "one mask for two": (
        {
            "a.jpg": lambda: saved(scene(), "JPEG"),
            "a.png": lambda: saved(scene(), "PNG"),
            "a.mask.png": lambda: saved(scene(), "PNG"),
        },
        r"a\.mask\.png could belong to a\.jpg and to a\.png",
    ),
    "an invisible picture": (
        {"a.png": lambda: saved(Image.new("RGBA", (8, 8)), "PNG")},
        r"a\.png is transparent everywhere",
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_bad_folder_is_refused_with_one_sentence(case: str, tmp_path: Path) -> None:
    files, words = FOLDERS[case]
    for name, make in files.items():
        (tmp_path / name).write_bytes(make())
    with pytest.raises(PictureRefused, match=words) as refused:
        read_folder(tmp_path)
    assert str(refused.value).isprintable()


def test_what_is_no_folder_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="absent is not a folder"):
        read_folder(tmp_path / "absent")
    (tmp_path / "more").mkdir()
    with pytest.raises(PictureRefused, match="more is not a file"):
        read_folder(tmp_path)
    (tmp_path / "more").rmdir()
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(PictureRefused, match=r"pipe\.png is not a file"):
        read_folder(tmp_path)
    (tmp_path / "pipe.png").unlink()
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(PictureRefused, match="1000000000000 bytes"):
        read_folder(tmp_path)


def test_many_long_strips_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    for number in range(20):
        # 16 megapixels each that the shorter side does not shrink; no pixels inside.
        (tmp_path / f"{number}.png").write_bytes(png(16_000, 1_000))
    with pytest.raises(PictureRefused, match="come to 320 megapixels after shrinking; at most 268"):
        read_folder(tmp_path)


def test_a_decoder_that_computes_without_end_is_stopped() -> None:
    data = slow_jpeg()
    assert len(data) < MAX_PICTURE_BYTES
    with (
        # The clock is no part of this: the machine may be busy.
        IntakeProcess(cpu_seconds=1, wall_seconds=250) as intake,
        pytest.raises(PictureRefused, match=r"slow\.jpg takes more than 1 seconds of computing"),
    ):
        decode(intake, data, "slow.jpg")


def test_a_decoder_that_wants_too_much_memory_is_refused_and_goes_on() -> None:
    data = saved(Image.new("RGBA", (4000, 4000), (1, 2, 3, 4)), "PNG", compress_level=1)
    with IntakeProcess(memory=160 << 20) as intake:
        with pytest.raises(PictureRefused, match=r"big\.png takes more than 160 MiB to decode"):
            decode(intake, data, "big.png")
        assert decode(intake, saved(scene(), "PNG"), "small.png").full_size == (48, 32)


@linux
def test_the_caller_does_not_pay_for_pixels() -> None:
    largest = saved(Image.new("RGBA", (5000, 5000), (1, 2, 3, 4)), "PNG", compress_level=1)

    def peak() -> int:
        status = Path("/proc/self/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])

    Path("/proc/self/clear_refs").write_text("5")  # forget earlier peaks
    before = peak()
    with pytest.raises(PictureRefused):
        read_picture(bomb(), "bomb.png")
    assert read_picture(largest, "largest.png").pixels.shape == (3, 1024, 1024)
    assert peak() - before < 40_000  # decoding holds 100 000 kB several times over


@linux
def test_the_process_has_no_torch_and_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFUSE_TEST_SECRET", "hunter2")
    with IntakeProcess() as intake:
        decode(intake, saved(scene(), "WEBP"), "a.webp")
        home = Path(f"/proc/{intake._process.pid}")
        assert b"hunter2" not in (home / "environ").read_bytes()
        mapped = (home / "maps").read_text()
        assert "_imaging" in mapped
        assert "torch" not in mapped
        assert "numpy" not in mapped
    assert not home.exists()


def test_a_child_that_misbehaves_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved(scene(), "PNG")
    program = tmp_path / "child.py"
    monkeypatch.setattr(intake_process, "PROGRAM", program)
    hello = "import os, sys, time; sys.stdout.write('ready\\n'); sys.stdout.flush()\n"
    reads = "sys.stdin.buffer.read(10)\n"
    for act, words in {
        "os.kill(os.getpid(), 11)": r"a\.png made the decoder stop \(Segmentation fault\)",
        "sys.exit(3)": r"a\.png made the decoder stop \(exit status 3\)",
        # Promises pixels, sends one.
        "sys.stdout.buffer.write(bytes(4)); sys.exit()": "made the decoder stop",
        # A verdict that there is not, and a reason full of control characters.
        "sys.stdout.buffer.write(b'\\x63\\0\\0\\x03\\0a\\nb')": r"damaged .* \(ab\)",
    }.items():
        program.write_text(hello + reads + act)
        with IntakeProcess() as intake, pytest.raises(PictureRefused, match=words):
            decode(intake, data, "a.png")
    program.write_text(hello + "time.sleep(60)")
    with (
        IntakeProcess(wall_seconds=1.5) as intake,
        pytest.raises(PictureRefused, match=r"a\.png was not decoded within 1\.5 seconds"),
    ):
        decode(intake, data, "a.png")
    program.write_text("raise ImportError('no PIL here')")
    with pytest.raises(FailedPrecondition, match=r"did not start .*no PIL here"):
        IntakeProcess()


def of(pixels: torch.Tensor, mask: torch.Tensor | None = None) -> TrainingPicture:
    return TrainingPicture("x.png", pixels, mask)


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    size=st.integers(1, 40),
    value=st.integers(0, 255),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_plain_picture_stays_plain_at_any_size(
    height: int, width: int, size: int, value: int
) -> None:
    plain = torch.full((3, height, width), value, dtype=torch.uint8)
    pixels, mask = fit(of(plain, plain[:1]), size)
    assert pixels.shape == (3, size, size)
    assert pixels.min() >= -1
    assert pixels.max() <= 1
    torch.testing.assert_close(
        pixels, torch.full_like(pixels, value / 127.5 - 1), atol=1e-5, rtol=0
    )
    assert mask is not None
    torch.testing.assert_close(mask, torch.full_like(mask, value / 255), atol=1e-5, rtol=0)


def test_fit_takes_the_central_square() -> None:
    pixels = torch.zeros(3, 4, 10, dtype=torch.uint8)
    pixels[:, :, 3:7] = 255
    assert (fit(of(pixels), 4)[0] == 1).all()
    assert (fit(of(pixels.transpose(1, 2)), 2)[0] == 1).all()


@pytest.mark.parametrize("size", [5, 7, 8, 13, 40])
def test_fit_keeps_edges_where_they_are_and_values_in_range(size: int) -> None:
    """Half black, half white, at every ratio: the mean stays, nothing overshoots."""
    pixels = torch.zeros(3, 20, 20, dtype=torch.uint8)
    pixels[:, :, 10:] = 255
    fitted, mask = fit(of(pixels, pixels[:1]), size)
    assert abs(float(fitted.mean())) < 1e-5
    assert float(fitted.abs().max()) <= 1
    assert float(fitted[:, :, 0].max()) < -0.98
    assert mask is not None
    torch.testing.assert_close(mask, (fitted[:1] + 1) / 2, atol=1e-6, rtol=0)


def test_fit_refuses_a_size_of_nothing() -> None:
    with pytest.raises(InvalidArgument, match="size is 0"):
        fit(of(torch.zeros(3, 4, 4, dtype=torch.uint8)), 0)
