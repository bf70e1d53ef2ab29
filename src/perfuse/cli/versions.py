"""`perfuse version`: the immutable adapters of a concept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perfuse import client as api
from perfuse.cli.options import Json, complete_concept, connect, filter_like
from perfuse.cli.output import document, facts, say, table
from perfuse.cli.sparkline import sparkline
from perfuse.errors import NotFound
from perfuse.names import VersionName

_CURVE_WIDTH = 40

app = typer.Typer(
    help="Versions: a concept's adapters, numbered, immutable, each with a digest.",
    no_args_is_help=True,
)

Version = Annotated[
    str,
    typer.Argument(
        metavar="VERSION",
        help="tom (its latest), tom@prod (an alias), tom@7 (a number).",
        autocompletion=complete_concept,
    ),
]

Filter = Annotated[str, filter_like('key_lock = "LOCAL" AND number > 3')]


def short_version(name: str) -> str:
    """`tom@7` for `tenants/acme/concepts/tom/versions/7`; nothing for nothing."""
    if not name:
        return ""
    parsed = VersionName.parse(name)
    return f"{parsed.concept}@{parsed.version}"


@app.command("list")
def list_versions(
    context: typer.Context,
    concept: Annotated[
        str, typer.Argument(metavar="ID", help="The concept.", autocompletion=complete_concept)
    ],
    filter: Filter = "",
    as_json: Json = False,
) -> None:
    """A concept's versions, the newest first."""
    with connect(context) as client:
        found = list(client.versions.list(concept, filter=filter))
    if as_json:
        document(found)
        return
    table(
        ("version", "digest", "bytes", "key lock", "base model", "bias", "description", "created"),
        (
            (
                short_version(each.name),
                each.digest[:19],
                each.size_bytes,
                each.key_lock,
                each.base_model.removeprefix("baseModels/"),
                each.bias,
                each.description,
                each.create_time,
            )
            for each in found
        ),
        nothing=f"{concept} has no such versions.",
    )


@app.command()
def show(context: typer.Context, version: Version, as_json: Json = False) -> None:
    """A version: its digest, base model, gate, training and previews."""
    with connect(context) as client:
        found = client.versions.get(version)
    if as_json:
        document(found)
        return
    facts(
        [
            ("version", found.name),
            ("digest", found.digest),
            ("bytes", found.size_bytes),
            ("description", found.description),
            ("labels", found.labels),
            ("base model", found.base_model),
            ("fingerprint", found.base_model_fingerprint),
            ("super-category", found.super_category),
            ("placeholder", found.placeholder),
            ("key lock", found.key_lock),
            ("bias", found.bias),
            ("temperature", found.temperature),
            ("training run", found.training_run),
            *((f"training {key}", value) for key, value in sorted(found.training.items())),
            ("validation loss", _curve([each.validation_loss for each in found.curve])),
            ("similarity", _curve([each.similarity for each in found.curve])),
            ("previews", _drawn(found)),
            ("created", found.create_time),
        ]
    )


@app.command()
def previews(
    context: typer.Context,
    version: Version,
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Where the pictures go.")
    ] = Path("previews"),
    as_json: Json = False,
) -> None:
    """Save the pictures that a training drew of the concept, from its first steps to its last."""
    with connect(context) as client:
        found = client.versions.get(version)
        if not found.previews:
            raise NotFound(
                f"{short_version(found.name)} has no previews. Train with --previews for some"
            )
        # By number, so that all are of one version whatever is published meanwhile.
        saved = [
            (each, client.versions.preview(found.name, each.digest).save(out / name))
            for each, name in zip(found.previews, _file_names(found), strict=True)
        ]
    if as_json:
        document([{"path": path, "preview": preview} for preview, path in saved])
        return
    for _, path in saved:
        say(str(path))


@app.command()
def delete(context: typer.Context, version: Version, as_json: Json = False) -> None:
    """Remove a version, named by its number as tom@7, for good."""
    with connect(context) as client:
        client.versions.delete(version)
    if as_json:
        document({"deleted": version})
    else:
        say(f"{version} is deleted")


def _curve(values: list[float | None]) -> str:
    """A curve in a line, with its first value and its last."""
    known = [each for each in values if each is not None]
    if not known:
        return ""
    return f"{known[0]:.4g} {sparkline(known, _CURVE_WIDTH)} {known[-1]:.4g}"


def _drawn(version: api.Version) -> str:
    """How many previews there are, and of which steps."""
    if not version.previews:
        return ""
    steps = sorted({each.step for each in version.previews})
    return f"{len(version.previews)}, after {', '.join(map(str, steps))} steps"


def _file_names(version: api.Version) -> list[str]:
    """`tom-7-step-00400-2.jpg`: the second picture drawn after 400 steps."""
    name = short_version(version.name).replace("@", "-")
    drawn: dict[int, int] = {}
    names = []
    for each in version.previews:
        drawn[each.step] = drawn.get(each.step, 0) + 1
        names.append(f"{name}-step-{each.step:05d}-{drawn[each.step]}{each.suffix}")
    return names
