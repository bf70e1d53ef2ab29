"""`perfuse promote` and `perfuse alias`: names such as prod that point at a version and move."""

from __future__ import annotations

from typing import Annotated

import typer

from perfuse.cli.options import Json, complete_concept, connect
from perfuse.cli.output import document, say, table
from perfuse.cli.versions import Version, short_version
from perfuse.errors import Aborted, AlreadyExists, EtagMismatch, NotFound
from perfuse.names import VersionName

app = typer.Typer(
    help="Aliases: names that point at a version and move, as prod.", no_args_is_help=True
)

Concept = Annotated[
    str, typer.Argument(metavar="ID", help="The concept.", autocompletion=complete_concept)
]
Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="The alias, as prod.")]


def promote(
    context: typer.Context,
    version: Version,
    alias: Alias,
    as_json: Json = False,
) -> None:
    """Have an alias point at a version: `perfuse promote tom@7 prod`."""
    concept = version.partition("@")[0].partition("/versions/")[0]
    with connect(context) as client:
        target = client.versions.get(version).name
        try:
            found = client.aliases.get(concept, alias)
        except NotFound:
            found = None
        before = "" if found is None else found.version
        try:
            if found is None:
                moved = client.aliases.create(concept, alias, target)
            else:
                moved = found if before == target else client.aliases.move(found, target)
        except (Aborted, AlreadyExists) as error:
            lost = EtagMismatch(
                f"someone else moved {concept}@{alias} at the same moment, and it was left where "
                f"they put it. See perfuse alias history {concept} {alias}, and promote again if "
                "you still want to"
            )
            lost.resource = error.resource
            raise lost from error
    if as_json:
        document({"alias": moved, "from_version": before, "to_version": moved.version})
        return
    here = f"{VersionName.parse(target).concept}@{alias}"
    if before == moved.version:
        say(f"{here} points at {short_version(moved.version)} already")
    elif before:
        say(f"{here} moved from {short_version(before)} to {short_version(moved.version)}")
    else:
        say(f"{here} is new and points at {short_version(moved.version)}")


@app.command("list")
def list_aliases(context: typer.Context, concept: Concept, as_json: Json = False) -> None:
    """A concept's aliases and where they point."""
    with connect(context) as client:
        found = list(client.aliases.list(concept))
    if as_json:
        document(found)
        return
    table(
        ("alias", "version", "moved"),
        (
            (each.name.rpartition("/")[2], short_version(each.version), each.update_time)
            for each in found
        ),
        nothing=f"{concept} has no aliases yet: perfuse promote {concept}@1 prod",
    )


@app.command()
def history(context: typer.Context, concept: Concept, alias: Alias, as_json: Json = False) -> None:
    """Everything that ever happened to an alias, the newest first; also to a deleted one."""
    with connect(context) as client:
        found = list(client.aliases.moves(concept, alias))
    if as_json:
        document(found)
        return
    table(
        ("when", "from", "to", "by"),
        (
            (
                each.move_time,
                short_version(each.from_version) or "made",
                short_version(each.to_version) or "deleted",
                each.mover,
            )
            for each in found
        ),
        nothing=f"Nothing happened to {concept}@{alias} yet.",
    )


@app.command()
def delete(context: typer.Context, concept: Concept, alias: Alias, as_json: Json = False) -> None:
    """Remove an alias; its history stays."""
    with connect(context) as client:
        client.aliases.delete(concept, alias)
    if as_json:
        document({"deleted": f"{concept}@{alias}"})
    else:
        say(f"{concept}@{alias} is deleted")
