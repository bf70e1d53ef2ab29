"""`perfuse render`: pictures of a prompt that names concepts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perfuse.cli import render_options as given
from perfuse.cli.options import Json, connect, read_numbers, read_size
from perfuse.cli.output import document, say
from perfuse.cli.render_display import RenderDisplay
from perfuse.cli.render_options import concept_settings, name_of, settled
from perfuse.client import RenderedImage, RenderSettings


def render(
    context: typer.Context,
    prompt: given.Prompt,
    count: Annotated[
        int | None, typer.Option("-n", "--count", help="Pictures; 1 if not said.")
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
    bias: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONCEPT=NUMBER",
            help="Lower for likeness, higher for editability, 0.1 to 0.9, as tom=0.5; may be "
            "given several times.",
            rich_help_panel="How it is rendered",
        ),
    ] = None,
    temperature: given.Temperature = None,
    base_model: given.BaseModelId = "",
    format: given.Format = "PNG",
    chunk: given.Chunk = False,
    as_json: Json = False,
) -> None:
    """Render a prompt that names concepts, into files and a contact sheet."""
    # Only here: commands without pictures need not load what decodes them.
    from perfuse.cli.picture_files import as_answer, in_rows, keep, show_in_terminal
    from perfuse.cli.picture_sheets import render_sheet

    name = name_of(prompt, name)
    seeds, wanted = settled(seed, count)
    width, height = read_size(size)
    settings = RenderSettings(
        prompt=prompt,
        negative_prompt=negative,
        concepts=concept_settings(
            read_numbers("--bias", bias), read_numbers("--temperature", temperature)
        ),
        key_lock=lock,
        seeds=seeds,
        count=wanted,
        width=width,
        height=height,
        steps=steps,
        guidance=guidance,
        scheduler=scheduler,
        format=format,
        base_model=base_model,
        chunk_long_prompts=chunk,
    )
    images: list[RenderedImage] = []
    paths: dict[int, Path] = {}
    with connect(context) as client, RenderDisplay(quiet=as_json) as display:
        for event in client.renderer.stream(settings):
            display.hear(event)
            if isinstance(event, RenderedImage):
                # What is done is kept, whatever becomes of the others.
                paths[event.image_index] = keep(event, out, name)
                images.append(event)
    images.sort(key=lambda image: image.image_index)
    sheet = render_sheet(prompt, images).save(out / "sheet.png")
    if as_json:
        answer = [as_answer(image, paths[image.image_index]) for image in images]
        document({"images": answer, "sheet": sheet})
        return
    for image in images:
        say(str(paths[image.image_index]))
    say(str(sheet))
    show_in_terminal(sheet, in_rows(images))
