"""`perfuse export` and `perfuse import`: adapters as files, out of a Registry and into one."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from perfuse.adapter.header import read_header
from perfuse.cli.options import Json, Labels, complete_concept, connect, read_pairs
from perfuse.cli.output import document, remark, say
from perfuse.cli.versions import Version, short_version
from perfuse.errors import AlreadyExists
from perfuse.names import VersionName

SUFFIX = ".safetensors"


def export_version(
    context: typer.Context,
    version: Version,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Where to; tom-7.safetensors if not said."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a version's adapter into a file, its digest compared."""
    with connect(context) as client:
        found = client.versions.download(version)
    name = VersionName.parse(found.version.name)
    path = out or Path(f"{name.concept}-{name.version}{SUFFIX}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(found.adapter or b"")
    if as_json:
        document({"path": path, "version": found.version})
        return
    say(str(path))
    remark(f"{short_version(found.version.name)}, {found.version.digest}")


def import_version(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An adapter.")],
    concept: Annotated[
        str,
        typer.Option(
            metavar="ID", help="Whose next version it becomes.", autocompletion=complete_concept
        ),
    ],
    create: Annotated[
        bool,
        typer.Option("--create", help="Make the concept if it is new, of the file's noun."),
    ] = False,
    description: Annotated[str, typer.Option(help="Of the version.")] = "",
    label: Labels = None,
    as_json: Json = False,
) -> None:
    """Store an adapter's file as a concept's next version; it is judged before anything is sent."""
    labels = read_pairs("--label", label)
    about = read_header(file).metadata
    with connect(context) as client:
        if create:
            with suppress(AlreadyExists):
                client.concepts.create(concept, super_category=about.super_category)
        made = client.versions.publish(concept, file, description=description, labels=labels)
    if as_json:
        document(made)
        return
    say(short_version(made.name))
    remark(f"a {made.super_category} on {made.base_model}, {made.digest}")
