"""The contact sheets of a render and of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from perfuse.cli.picture_files import about, in_rows, opened
from perfuse.cli.sheet import Row, Sheet
from perfuse.client import RenderedImage

_LEAST_WIDTH = 620


def render_sheet(prompt: str, images: Sequence[RenderedImage]) -> Sheet:
    """The pictures of a render with what made them and their seeds."""
    sheet = Sheet(prompt, about(images[0].record), width=_LEAST_WIDTH)
    rows = [
        Row("", [opened(each) for each in row], [f"seed {each.record.seed}" for each in row])
        for row in in_rows(images)
    ]
    sheet.section("", *rows)
    return sheet


def sweep_sheet(
    prompt: str, placeholder: str, columns: Mapping[float, Sequence[RenderedImage]]
) -> Sheet:
    """A row for each seed, a column for each bias."""
    first = next(iter(columns.values()))
    sheet = Sheet(
        prompt,
        f"bias of <{placeholder}>: likeness on the left, editability on the right\n"
        + about(first[0].record, without_bias_of=placeholder),
    )
    notes = [f"bias {bias:.2f}" for bias in columns]
    rows = [
        Row(
            f"seed\n{image.record.seed}",
            [opened(images[index]) for images in columns.values()],
            notes,
        )
        for index, image in enumerate(first)
    ]
    sheet.section("", *rows)
    return sheet
