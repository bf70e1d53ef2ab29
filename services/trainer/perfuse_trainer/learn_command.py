"""`perfuse-trainer learn`: one concept on this machine, without any server."""

from __future__ import annotations

import os
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from perfuse.errors import InvalidArgument

_Choice = TypeVar("_Choice", bound=StrEnum)


def learn(
    pictures: Annotated[Path, typer.Argument(help="Folder of 1 to 64 PNG, JPEG or WebP files.")],
    base: Annotated[Path, typer.Option(help="The base model, in diffusers layout, prepared.")],
    super_category: Annotated[str, typer.Option(help="What the concept is a kind of: cat.")],
    out: Annotated[Path, typer.Option(help="Where the adapter goes: tom.safetensors.")],
    key_lock: Annotated[str, typer.Option(help="LOCAL or TRAINED_K.")] = "LOCAL",
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 400,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = 0,
    mask: Annotated[str, typer.Option(help="NONE, UPLOADED, CLIPSEG, CROSS_ATTENTION.")] = "NONE",
    clipseg: Annotated[Path | None, typer.Option(help="Local CLIPSeg directory.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Kept here; call again to go on.")] = None,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 50,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """Learn one concept from a folder of pictures."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from perfuse_trainer.pictures.images import read_folder

    # Pictures first: a bad folder should not wait for a base model to load.
    read = read_folder(pictures)

    from perfuse.attach import BaseModel, silence_loading
    from perfuse.method import KeyLock
    from perfuse_trainer.learning.mask_source import MaskSource
    from perfuse_trainer.learning.settings import TrainingSettings
    from perfuse_trainer.learning.training import train

    settings = TrainingSettings(
        super_category=super_category,
        placeholder=_placeholder(out),
        key_lock=_member(KeyLock, key_lock, "key lock"),
        steps=steps,
        seed=seed,
    )
    columns = (
        TextColumn("learning {task.fields[loss]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    silence_loading()
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("learning", total=steps, loss="")
        adapter = train(
            BaseModel.load(base, device=device),
            read,
            settings,
            mask_source=_member(MaskSource, mask, "mask source"),
            clipseg=clipseg,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            on_progress=lambda done: bar.update(
                task, completed=done.step, loss=f"loss {done.loss:.3f}"
            ),
        )
    digest = adapter.write(out)
    typer.echo(
        f"{out}: {out.stat().st_size} bytes, {digest}, "
        f"{len(read)} pictures, {time.monotonic() - started:.0f} s"
    )


def _placeholder(out: Path) -> str:
    word = out.name.split(".")[0]
    if not word or any(letter in word for letter in "<>| \t"):
        raise InvalidArgument(
            f"the file's name {out.name!r} gives no placeholder; name it after one word, such as "
            "tom.safetensors"
        )
    return word


def _member(kind: type[_Choice], value: str, what: str) -> _Choice:
    members = kind.__members__
    if value not in members:
        raise InvalidArgument(f"{what} {value!r} is unknown; it is one of {', '.join(members)}")
    return members[value]
