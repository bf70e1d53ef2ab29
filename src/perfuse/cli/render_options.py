"""What `perfuse render` and `perfuse sweep` can both be told about pictures."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from perfuse.client import ConceptSettings
from perfuse.client.rendering import PictureFormat, RenderLock

_HOW = "How it is rendered"
_LONGEST_NAME = 48

Prompt = Annotated[
    str,
    typer.Argument(
        metavar="PROMPT",
        help='Names concepts in place: "a photo of <tom> wearing <shades@prod> in the snow".',
    ),
]
Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIRECTORY", help="Where the pictures go.")
]
Name = Annotated[
    str, typer.Option(help="Of the files, before the seed; made from the prompt if not said.")
]
Negative = Annotated[
    str, typer.Option(metavar="PROMPT", help="What to keep away from.", rich_help_panel=_HOW)
]
Seeds = Annotated[
    list[int] | None,
    typer.Option("--seed", help="One for each picture; may be given several times."),
]
Steps = Annotated[
    int | None, typer.Option(help="Of denoising; the Renderer's if not said.", rich_help_panel=_HOW)
]
Guidance = Annotated[
    float | None,
    typer.Option(
        help="How closely to keep to the prompt; 1 for no guidance.", rich_help_panel=_HOW
    ),
]
Scheduler = Annotated[
    str,
    typer.Option(metavar="NAME", help="As perfuse status lists them.", rich_help_panel=_HOW),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="WxH", help="Pixels; the base model's own if not said.", rich_help_panel=_HOW
    ),
]
Lock = Annotated[
    RenderLock | None,
    typer.Option(
        case_sensitive=False,
        help="GLOBAL composes more freely, LOCAL resembles more; as trained if not said.",
        rich_help_panel=_HOW,
    ),
]
Temperature = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONCEPT=NUMBER",
        help="How softly a concept sets in, as tom=0.15; may be given several times.",
        rich_help_panel=_HOW,
    ),
]
BaseModelId = Annotated[
    str,
    typer.Option(
        metavar="ID", help="Not needed where the Renderer has only one.", rich_help_panel=_HOW
    ),
]
Format = Annotated[
    PictureFormat,
    typer.Option(case_sensitive=False, help="Of the files.", rich_help_panel=_HOW),
]
Chunk = Annotated[
    bool,
    typer.Option(
        "--chunk",
        help="Read a prompt that is too long in chunks, instead of refusing it.",
        rich_help_panel=_HOW,
    ),
]


def concept_settings(
    biases: Mapping[str, float], temperatures: Mapping[str, float]
) -> Mapping[str, ConceptSettings]:
    """What is asked of each concept, by placeholder."""
    return {
        placeholder: ConceptSettings(
            bias=biases.get(placeholder), temperature=temperatures.get(placeholder)
        )
        for placeholder in {**biases, **temperatures}
    }


def name_of(prompt: str, name: str = "") -> str:
    """What files of a prompt are called: its words, a few dozen letters of them.

    Raises:
        typer.BadParameter: `name` holds more than a file's name.
    """
    if name:
        if name != Path(name).name or name in (".", ".."):
            raise typer.BadParameter(
                f"--name has {name!r}; it is a file's name, and --out says the folder"
            )
        return name
    made = "-".join(re.findall(r"[^\W_]+", prompt.lower()))
    if len(made) > _LONGEST_NAME:
        whole_words = made[: _LONGEST_NAME + 1].rpartition("-")[0]
        made = whole_words or made[:_LONGEST_NAME]
    return made or "picture"


def drawn_seeds(count: int) -> tuple[int, ...]:
    """Seeds nobody chose, for pictures that must share them."""
    lot = random.SystemRandom()
    return tuple(lot.randrange(2**31) for _ in range(count))


def settled(seeds: Sequence[int] | None, count: int | None) -> tuple[tuple[int, ...], int | None]:
    """Seeds and count as a render takes them: either, not both.

    Raises:
        typer.BadParameter: they contradict one another.
    """
    if not seeds:
        return (), count
    if count is not None and count != len(seeds):
        raise typer.BadParameter(
            f"-n is {count} and there are {len(seeds)} seeds; give one of the two"
        )
    return tuple(seeds), None
