"""Rendered pictures as files, and the sheet that shows them together."""

from __future__ import annotations

import io
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


def show_in_terminal(path: Path) -> bool:
    """Show a picture where the standard output is a terminal that can; whether it was."""
    console = answers()
    rows = max(8, console.height - 6)
    return terminal_pictures.show(
        path.read_bytes(), sys.stdout, columns=min(console.width, 120), rows=rows
    )
