"""Contact sheets: where pictures stand, at what size, and that words leave them alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from perfuse.cli.picture_files import montage
from perfuse.cli.sheet import LARGEST_TILE, SMALLEST_TILE, Row, Sheet, tile

RED, BLUE = (255, 0, 0), (0, 0, 255)


def plain(size: tuple[int, int], colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", size, colour)


def areas(page: Image.Image, colour: tuple[int, int, int]) -> tuple[int, int, int, int] | None:
    """The box around all pixels of a colour."""
    mask = Image.new("L", page.size)
    mask.putdata([255 if pixel == colour else 0 for pixel in page.get_flattened_data()])
    return mask.getbbox()


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((32, 32), (128, 128)),
        ((48, 32), (144, 96)),
        ((200, 100), (200, 100)),
        ((512, 512), (384, 384)),
        ((512, 768), (256, 384)),
        ((1, 1), (128, 128)),
    ],
)
def test_tiles(size: tuple[int, int], shown: tuple[int, int]) -> None:
    assert tile(size) == shown
    assert max(shown) <= LARGEST_TILE
    assert max(shown) >= SMALLEST_TILE


def test_each_picture_is_whole_and_in_its_place() -> None:
    sheet = Sheet("a photo of <tom>", "tom@1")
    sheet.section("", Row("", [plain((32, 32), RED), plain((32, 32), BLUE)], ["seed 1", "seed 2"]))
    page = sheet.draw()
    red, blue = areas(page, RED), areas(page, BLUE)
    assert red is not None
    assert blue is not None
    assert (red[2] - red[0], red[3] - red[1]) == (128, 128)
    assert (blue[2] - blue[0], blue[3] - blue[1]) == (128, 128)
    assert red[1] == blue[1]
    assert blue[0] > red[2]
    assert page.getcolors(maxcolors=1 << 20)
    count = {colour: number for number, colour in page.getcolors(maxcolors=1 << 20) or []}
    assert count[RED] == count[BLUE] == 128 * 128, "no word stands on a picture"


def test_rows_labels_and_sections_stand_one_below_the_other() -> None:
    sheet = Sheet("title", "")
    sheet.section("first", Row("a label\nof two lines", [plain((200, 100), RED)]))
    sheet.section("second", Row("b", [plain((100, 200), BLUE)], ["one\ntwo\nthree"]))
    page = sheet.draw()
    red, blue = areas(page, RED), areas(page, BLUE)
    assert red is not None
    assert blue is not None
    assert red[0] == blue[0], "labels have one column"
    assert blue[1] > red[3]
    assert page.height > blue[3] + 40, "three lines of notes have room"


def test_a_long_title_makes_the_page_higher_and_not_wider() -> None:
    def page(title: str) -> Image.Image:
        sheet = Sheet(title, "")
        sheet.section("", Row("", [plain((128, 128), RED)] * 2))
        return sheet.draw()

    short, long = page("short"), page("a photo of <tom> in the snow " * 6)
    assert long.width == short.width
    assert long.height > short.height


def test_a_sheet_is_saved_where_it_is_told(tmp_path: Path) -> None:
    sheet = Sheet("title", "subtitle", width=900)
    sheet.section("", Row("", [plain((512, 512), RED)]))
    path = sheet.save(tmp_path / "new" / "sheet.png")
    with Image.open(path) as saved:
        assert saved.width == 900
        assert saved.format == "PNG"


def test_a_sheet_without_pictures_is_none() -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        Sheet("title", "").draw()


def test_a_montage_keeps_to_its_width() -> None:
    small = montage([[plain((32, 32), RED), plain((32, 32), BLUE)]], 100)
    assert small.size == (66, 32)
    large = montage([[plain((512, 768), RED)] * 4, [plain((512, 768), BLUE)]], 100)
    assert large.width <= 100
    assert large.height == pytest.approx(2 * 23.5 * 1.5, abs=4)
