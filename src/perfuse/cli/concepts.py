"""`perfuse concept`: the things that are taught."""

from __future__ import annotations

from typing import Annotated

import typer

from perfuse.cli.options import Json, Labels, complete_concept, connect, filter_like, read_pairs
from perfuse.cli.output import document, facts, remark, say, table
from perfuse.cli.versions import short_version
from perfuse.client import Concept, Version
from perfuse.errors import ConceptNotEmpty

app = typer.Typer(
    help="Concepts: the things that are taught, as this cat or that chair.", no_args_is_help=True
)

ConceptId = Annotated[
    str, typer.Argument(metavar="ID", help="The concept.", autocompletion=complete_concept)
]

Filter = Annotated[str, filter_like('super_category = "cat" AND labels.team = "a"')]


@app.command()
def create(
    context: typer.Context,
    concept: Annotated[
        str, typer.Argument(metavar="ID", help="Its id to be: the word in brackets in prompts.")
    ],
    super_category: Annotated[
        str, typer.Option(metavar="NOUN", help="The everyday noun that it is a kind of, as cat.")
    ],
    display_name: Annotated[str, typer.Option(help="Its name for people.")] = "",
    description: Annotated[str, typer.Option(help="What it is.")] = "",
    label: Labels = None,
    likeness: Annotated[
        bool,
        typer.Option("--likeness", help="Of a living person, who must consent: perfuse consent."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a concept without versions; `perfuse train` makes a new one by itself."""
    labels = read_pairs("--label", label)
    with connect(context) as client:
        made = client.concepts.create(
            concept,
            super_category=super_category,
            display_name=display_name,
            description=description,
            labels=labels,
            likeness=likeness,
        )
    if as_json:
        document(made)
    else:
        say(f"{made.id}: a {made.super_category}, {made.name}")


@app.command("list")
def list_concepts(
    context: typer.Context,
    filter: Filter = "",
    deleted: Annotated[bool, typer.Option("--deleted", help="Deleted ones too.")] = False,
    as_json: Json = False,
) -> None:
    """The tenant's concepts."""
    with connect(context) as client:
        found = list(client.concepts.list(filter=filter, show_deleted=deleted))
    if as_json:
        document(found)
        return
    last = ("deleted",) if deleted else ()
    table(
        ("concept", "super-category", "latest", "name", "labels", "created", *last),
        (
            (
                each.id,
                each.super_category,
                short_version(each.latest_version) or "none",
                each.display_name,
                each.labels,
                each.create_time,
                *((each.delete_time,) if deleted else ()),
            )
            for each in found
        ),
        nothing="There are no such concepts.",
    )


@app.command()
def show(context: typer.Context, concept: ConceptId, as_json: Json = False) -> None:
    """A concept with its versions and aliases."""
    with connect(context) as client:
        found = client.concepts.get(concept)
        gone = found.delete_time is not None
        versions = [] if gone else list(client.versions.list(found.name))
        aliases = [] if gone else list(client.aliases.list(found.name))
    if as_json:
        document({"concept": found, "versions": versions, "aliases": aliases})
        return
    _tell(found)
    pointing: dict[str, list[str]] = {}
    for alias in aliases:
        pointing.setdefault(alias.version, []).append(alias.name.rpartition("/")[2])
    if gone:
        remark("Its versions come back with: perfuse concept undelete " + found.id)
        return
    say("")
    table(
        ("version", "aliases", "key lock", "base model", "bias", "description", "created"),
        ((*_row(version, pointing.get(version.name, [])),) for version in versions),
        nothing=f"It has no versions yet: perfuse train {found.id} PICTURES "
        f"--super-category {found.super_category}",
    )


@app.command()
def delete(
    context: typer.Context,
    concept: ConceptId,
    force: Annotated[
        bool, typer.Option("--force", help="Also where it has versions: they go with it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Delete a concept; for a time it can be undeleted."""
    with connect(context) as client:
        try:
            gone = client.concepts.delete(concept, force=force)
        except ConceptNotEmpty as error:
            refusal = ConceptNotEmpty(f"{concept} has versions; with --force they go with it")
            refusal.resource = error.resource
            raise refusal from error
    if as_json:
        document(gone)
        return
    say(f"{gone.id} is deleted")
    if gone.purge_time is not None:
        until = gone.purge_time.astimezone().strftime("%Y-%m-%d %H:%M")
        remark(f"Until {until} it comes back with: perfuse concept undelete {gone.id}")


@app.command()
def undelete(context: typer.Context, concept: ConceptId, as_json: Json = False) -> None:
    """Take a deletion back, with versions and aliases as they were."""
    with connect(context) as client:
        back = client.concepts.undelete(concept)
    if as_json:
        document(back)
    else:
        say(f"{back.id} is back")


def _tell(concept: Concept) -> None:
    facts(
        [
            ("concept", concept.name),
            ("super-category", concept.super_category),
            ("name", concept.display_name),
            ("description", concept.description),
            ("labels", concept.labels),
            ("created", concept.create_time),
            ("deleted", concept.delete_time),
            ("gone for good", concept.purge_time),
        ]
    )


def _row(version: Version, aliases: list[str]) -> tuple[object, ...]:
    latest_first = ", ".join(sorted(aliases))
    return (
        short_version(version.name),
        latest_first,
        version.key_lock,
        version.base_model.removeprefix("baseModels/"),
        version.bias,
        version.description,
        version.create_time,
    )
