"""`perfuse sweep`: one concept from likeness to editability, as a sheet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from perfuse.cli import render_options as given
from perfuse.cli.options import Json, complete_concept, connect, read_numbers, read_size
from perfuse.cli.output import document, say
from perfuse.cli.render_display import RenderDisplay
from perfuse.cli.render_options import concept_settings, drawn_seeds, name_of, settled
from perfuse.client import RenderedImage, RenderSettings

_MOST = 25


def sweep(
    context: typer.Context,
    prompt: given.Prompt,
    concept: Annotated[
        str,
        typer.Option(
            metavar="CONCEPT",
            help="Whose bias changes; needed where the prompt names several.",
            autocompletion=complete_concept,
        ),
    ] = "",
    low: Annotated[float, typer.Option("--from", help="The first bias: likeness.")] = 0.1,
    high: Annotated[float, typer.Option("--to", help="The last bias: editability.")] = 0.7,
    count: Annotated[int, typer.Option("--count", help="Biases, evenly apart.")] = 7,
    rows: Annotated[
        int | None, typer.Option("-n", "--rows", help="Seeds, a row for each; 2 if not said.")
    ] = None,
    out: given.Out = Path("out"),
    name: given.Name = "",
    seed: given.Seeds = None,
    negative: given.Negative = "",
    steps: given.Steps = None,
    guidance: given.Guidance = None,
    scheduler: given.Scheduler = "",
    size: given.Size = None,
    lock: given.Lock = None,
    temperature: given.Temperature = None,
    base_model: given.BaseModelId = "",
    format: given.Format = "PNG",
    chunk: given.Chunk = False,
    as_json: Json = False,
) -> None:
    """Render a prompt at several biases of one concept, the same seed along a row.

    The bias is where a concept sets in: lower is closer to its looks, higher lets the prompt
    change more of it. The sheet shows which one a prompt wants.
    """
    # Only here: commands without pictures need not load what decodes them.
    from perfuse.cli.picture_files import as_answer, keep, show_in_terminal
    from perfuse.cli.picture_sheets import sweep_sheet

    name, placeholder = name_of(prompt, name), concept.strip("<>") or only_concept(prompt)
    seeds, wanted = settled(seed, rows)
    seeds = seeds or drawn_seeds(wanted or 2)
    width, height = read_size(size)
    temperatures = read_numbers("--temperature", temperature)
    columns: dict[float, tuple[RenderedImage, ...]] = {}
    paths: dict[tuple[float, int], Path] = {}
    with connect(context) as client:
        for bias in biases(low, high, count):
            settings = RenderSettings(
                prompt=prompt,
                negative_prompt=negative,
                concepts=concept_settings({placeholder: bias}, temperatures),
                key_lock=lock,
                seeds=seeds,
                width=width,
                height=height,
                steps=steps,
                guidance=guidance,
                scheduler=scheduler,
                format=format,
                base_model=base_model,
                chunk_long_prompts=chunk,
            )
            found: list[RenderedImage] = []
            with RenderDisplay(quiet=as_json, about=f"bias {bias:.2f} picture") as display:
                for event in client.renderer.stream(settings):
                    display.hear(event)
                    if isinstance(event, RenderedImage):
                        path = keep(event, out, f"{name}-bias-{bias:.2f}")
                        paths[bias, event.image_index] = path
                        found.append(event)
            columns[bias] = tuple(sorted(found, key=lambda image: image.image_index))
    sheet = sweep_sheet(prompt, placeholder, columns).save(out / "sheet.png")
    if as_json:
        answer = [
            {"bias": bias, **as_answer(image, paths[bias, image.image_index])}
            for bias, images in columns.items()
            for image in images
        ]
        document({"images": answer, "sheet": sheet})
        return
    for path in paths.values():
        say(str(path))
    say(str(sheet))
    show_in_terminal(sheet, list(zip(*columns.values(), strict=True)))


def only_concept(prompt: str) -> str:
    """The one placeholder of a prompt.

    Raises:
        typer.BadParameter: there is none, or another one beside it.
    """
    found: list[str] = sorted(set(re.findall(r"(?<!\\)<([^<>]+)>", prompt)))
    if len(found) != 1:
        said = f"names {', '.join(found)}" if found else "names no concept, as <tom>"
        raise typer.BadParameter(f"the prompt {said}; say with --concept whose bias changes")
    return found[0]


def biases(low: float, high: float, count: int) -> tuple[float, ...]:
    """`count` biases evenly apart, both ends among them.

    Raises:
        typer.BadParameter: there is nothing to go through.
    """
    if not 2 <= count <= _MOST:
        raise typer.BadParameter(f"--count is {count}; it takes 2 to {_MOST}")
    if low >= high:
        raise typer.BadParameter(f"--from is {low:g} and --to {high:g}; the bias goes upwards")
    return tuple(round(low + (high - low) * at / (count - 1), 6) for at in range(count))
