"""`perfuse base`: what is done once for each base model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from perfuse.errors import FailedPrecondition

if TYPE_CHECKING:
    from types import ModuleType

app = typer.Typer(help="Prepare and inspect base models.", no_args_is_help=True)

Directory = Annotated[Path, typer.Argument(help="The base model, in diffusers layout.")]
Device = Annotated[str, typer.Option(help="Where the text encoders run: cpu, cuda, ...")]


@app.command()
def prepare(
    directory: Directory,
    captions: Annotated[Path, typer.Option(help="Text file, one caption a line.")],
    positions: Annotated[
        str, typer.Option(help="Encodings that count: 'words' (through end of text) or 'all'.")
    ] = "words",
    ridge: Annotated[float, typer.Option(help="Ridge, times the mean eigenvalue.")] = 1e-4,
    batch: Annotated[int, typer.Option(help="Captions encoded at once.")] = 64,
    device: Device = "cpu",
    restart: Annotated[
        bool, typer.Option(help="Begin again, and replace what was prepared before.")
    ] = False,
) -> None:
    """Compute a base model's covariance from captions; run again to go on after a stop."""
    attach = _attach()
    columns = (TextColumn("captions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("captions", total=None)
        asset = attach.prepare(
            directory,
            captions,
            positions=positions,
            ridge=ridge,
            batch=batch,
            device=device,
            restart=restart,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    covariance = asset.covariance
    typer.echo(
        f"{asset.captions} captions, {covariance.count} encodings, rank {covariance.rank()} of "
        f"{covariance.width}, ridge {asset.ridge:g}: {asset.digest}"
    )


@app.command()
def show(directory: Directory) -> None:
    """Say what a base model is: fingerprint, architecture, layers, covariance."""
    base = _attach().BaseModel.load(directory)
    encoders = ", ".join(f"{encoder.name} ({encoder.width})" for encoder in base.encoders)
    total = sum(layer.width for layer in base.layers)
    covariance = "none; run perfuse base prepare"
    if base.covariance is not None:
        made = base.covariance
        covariance = (
            f"{made.captions} captions, {made.covariance.count} encodings ({made.positions}), "
            f"ridge {made.ridge:g}"
        )
    lines = [
        ("fingerprint", base.fingerprint),
        ("architecture", base.architecture),
        ("prediction", base.prediction_type),
        ("encoders", encoders),
        ("covariance", covariance),
        ("layers", f"{len(base.layers)}, {total} outputs per projection"),
        *(("", f"{layer.name} ({layer.width})") for layer in base.layers),
    ]
    for label, value in lines:
        typer.echo(f"{label:<14}{value}")


def _attach() -> ModuleType:
    """`perfuse.attach`, loaded when a command needs it: it brings torch and diffusers."""
    # Their start-up remarks are about picture processors that no command of ours uses.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        from perfuse import attach
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            f"this command needs {error.name}: pip install 'perfuse[engine]'"
        ) from error
    attach.silence_loading()
    return attach
