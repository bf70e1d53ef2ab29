"""Rendered pictures as files, and the sheet that shows them together."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from perfuse.cli import terminal_pictures
from perfuse.cli.output import answers
from perfuse.cli.versions import short_version
from perfuse.client import RenderedImage, RenderRecord
from perfuse.client.rendering import SUFFIX

_COLUMNS = 4
_BETWEEN, _WIDEST = 2, 48


def keep(image: RenderedImage, folder: Path, name: str) -> Path:
    """Write a picture as `NAME-SEED` and its format's suffix."""
    return image.save(folder / f"{name}-{image.record.seed}{SUFFIX[image.format]}")


def opened(image: RenderedImage) -> Image.Image:
    """The picture, decoded."""
    with Image.open(io.BytesIO(image.picture)) as found:
        return found.convert("RGB")


def in_rows(images: Sequence[RenderedImage]) -> list[Sequence[RenderedImage]]:
    """Pictures in rows of one length but for the last, as square a page as reads well."""
    columns = min(len(images), _COLUMNS if len(images) <= 2 * _COLUMNS else 2 * _COLUMNS)
    return [images[at : at + columns] for at in range(0, len(images), max(columns, 1))]


def about(record: RenderRecord, *, without_bias_of: str = "") -> str:
    """What made a picture, in a line or two: versions with their gates, then the settings."""
    concepts = ", ".join(
        f"<{each.placeholder}> {short_version(each.version)}"
        + ("" if each.placeholder == without_bias_of else f" bias {each.bias:g}")
        for each in record.concepts
    )
    settings = (
        f"{record.steps} steps, guidance {record.guidance:g}, {record.scheduler}, "
        f"{record.base_model.removeprefix('baseModels/')}"
    )
    if record.key_lock and concepts:
        settings = f"{record.key_lock} lock, {settings}"
    lines = [concepts, settings]
    if record.negative_prompt:
        lines.insert(0, f"not: {record.negative_prompt}")
    return "\n".join(filter(None, lines))


def as_answer(image: RenderedImage, path: Path) -> Mapping[str, object]:
    """A picture in an answer in JSON: where it lies, and exactly what was rendered."""
    return {"path": path, "format": image.format, "record": image.record}


def show_in_terminal(sheet: Path, rows: Sequence[Sequence[RenderedImage]]) -> bool:
    """Show pictures where the standard output is a terminal that can; whether they were.

    Args:
        sheet: is shown where the terminal shows files.
        rows: of its pictures, shown without words where it has only blocks of colour.
    """
    console = answers()
    way = terminal_pictures.way_of(os.environ, is_terminal=console.is_terminal)
    if way == "blocks":
        small = montage([[opened(image) for image in row] for row in rows], console.width)
        kept = io.BytesIO()
        small.save(kept, "PNG")
        high = -(-small.height // 2)
        return terminal_pictures.show(kept.getvalue(), sys.stdout, columns=small.width, rows=high)
    columns, lines = min(console.width, 120), max(8, console.height - 6)
    return terminal_pictures.show(sheet.read_bytes(), sys.stdout, columns=columns, rows=lines)


def montage(rows: Sequence[Sequence[Image.Image]], width: int) -> Image.Image:
    """Pictures side by side, none larger than it is, `width` pixels at most."""
    most = max(len(row) for row in rows)
    room = max(1, (width + _BETWEEN) // most - _BETWEEN)
    tiles = [[_within(picture, min(room, _WIDEST)) for picture in row] for row in rows]
    heights = [max(tile.height for tile in row) + _BETWEEN for row in tiles]
    widest = max(sum(tile.width + _BETWEEN for tile in row) for row in tiles)
    page = Image.new("RGB", (max(1, widest - _BETWEEN), sum(heights) - _BETWEEN))
    top = 0
    for row, height in zip(tiles, heights, strict=True):
        left = 0
        for tile in row:
            page.paste(tile, (left, top))
            left += tile.width + _BETWEEN
        top += height
    return page


def _within(picture: Image.Image, width: int) -> Image.Image:
    if picture.width <= width:
        return picture
    height = max(1, round(picture.height * width / picture.width))
    return picture.resize((width, height), Image.Resampling.LANCZOS)
