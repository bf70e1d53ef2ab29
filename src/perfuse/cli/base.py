"""`perfuse base`: what is done once for each base model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from perfuse.cli.base_description import attach_library, describe
from perfuse.cli.options import Json, Labels, connect, filter_like, read_pairs
from perfuse.cli.output import document, facts, remarks, say, table

app = typer.Typer(
    help="Prepare, inspect and register base models: frozen diffusers checkpoints.",
    no_args_is_help=True,
)

Directory = Annotated[Path, typer.Argument(help="The base model, in diffusers layout.")]
Device = Annotated[str, typer.Option(help="Where the text encoders run: cpu, cuda, ...")]

Filter = Annotated[str, filter_like('architecture = "sd-768"')]


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
        bool, typer.Option("--restart", help="Begin again, and replace what was prepared before.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compute a base model's covariance from captions; run again to go on after a stop."""
    attach = attach_library()
    columns = (TextColumn("captions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=remarks()) as bar:
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
    if as_json:
        document(
            {
                "captions": asset.captions,
                "encodings": covariance.count,
                "rank": covariance.rank(),
                "width": covariance.width,
                "ridge": asset.ridge,
                "digest": asset.digest,
            }
        )
        return
    say(
        f"{asset.captions} captions, {covariance.count} encodings, rank {covariance.rank()} of "
        f"{covariance.width}, ridge {asset.ridge:g}: {asset.digest}"
    )


@app.command()
def show(directory: Directory, as_json: Json = False) -> None:
    """Say what a base model is: fingerprint, architecture, layers, covariance."""
    base = attach_library().BaseModel.load(directory)
    made = base.covariance
    layers = {layer.name: layer.width for layer in base.layers}
    encoders = {encoder.name: encoder.width for encoder in base.encoders}
    if as_json:
        document(
            {
                "fingerprint": base.fingerprint,
                "architecture": base.architecture,
                "prediction": base.prediction_type,
                "conditioning_width": base.conditioning_width,
                "encoders": encoders,
                "layers": layers,
                "covariance": made
                and {
                    "digest": made.digest,
                    "captions": made.captions,
                    "encodings": made.covariance.count,
                    "positions": made.positions,
                    "ridge": made.ridge,
                },
            }
        )
        return
    covariance = "none; run perfuse base prepare"
    if made is not None:
        covariance = (
            f"{made.captions} captions, {made.covariance.count} encodings ({made.positions}), "
            f"ridge {made.ridge:g}"
        )
    facts(
        [
            ("fingerprint", base.fingerprint),
            ("architecture", base.architecture),
            ("prediction", base.prediction_type),
            ("encoders", ", ".join(f"{name} ({width})" for name, width in encoders.items())),
            ("covariance", covariance),
            ("layers", f"{len(layers)}, {sum(layers.values())} outputs per projection"),
            *(("", f"{name} ({width})") for name, width in layers.items()),
        ]
    )


@app.command()
def register(
    context: typer.Context,
    base_model: Annotated[str, typer.Argument(metavar="ID", help="Its id to be, as sd15.")],
    directory: Directory,
    display_name: Annotated[str, typer.Option(help="Its name for people.")] = "",
    label: Labels = None,
    as_json: Json = False,
) -> None:
    """Make a base model known to the Registry, once, for all tenants. Only operators may."""
    labels = read_pairs("--label", label)
    described = describe(base_model, directory, display_name=display_name, labels=labels)
    with connect(context) as client:
        made = client.base_models.create(described)
    if as_json:
        document(made)
        return
    say(f"{made.name}: {made.architecture}, {made.fingerprint}")


@app.command("list")
def list_known(context: typer.Context, filter: Filter = "", as_json: Json = False) -> None:
    """The base models that the Registry knows."""
    with connect(context) as client:
        found = list(client.base_models.list(filter=filter))
    if as_json:
        document(found)
        return
    table(
        ("base model", "architecture", "fingerprint", "covariance", "registered"),
        (
            (
                each.name.removeprefix("baseModels/"),
                each.architecture,
                each.fingerprint[:19],
                each.covariance_digest[:19] or "unknown",
                each.create_time,
            )
            for each in found
        ),
        nothing="The Registry knows no base model yet: perfuse base register ID DIRECTORY",
    )
