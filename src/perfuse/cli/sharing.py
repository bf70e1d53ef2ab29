"""`perfuse share`: concepts that other tenants may use."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from perfuse.cli.options import Json, complete_concept, connect
from perfuse.cli.output import document, say, table

app = typer.Typer(
    help="Sharing: let other tenants render with a concept, or read it, until it is revoked.",
    no_args_is_help=True,
)

Concept = Annotated[
    str, typer.Argument(metavar="ID", help="The concept.", autocompletion=complete_concept)
]
Grantee = Annotated[str, typer.Argument(metavar="TENANT", help="The other tenant's id.")]


class Access(StrEnum):
    """What the other tenant may do."""

    RENDER = "render"
    READ = "read"


@app.command()
def grant(
    context: typer.Context,
    concept: Concept,
    grantee: Grantee,
    access: Annotated[
        Access,
        typer.Option(
            help="Render with it alone, or read it too: its versions, and their files for good."
        ),
    ] = Access.RENDER,
    as_json: Json = False,
) -> None:
    """Let another tenant use a concept: `perfuse share grant tom globex`."""
    with connect(context) as client:
        made = client.grants.create(concept, grantee, "READ" if access is Access.READ else "RENDER")
    if as_json:
        document(made)
        return
    say(f"{grantee} may {access} {concept}, and names it <{made.placeholder}> in prompts")


@app.command("list")
def list_grants(
    context: typer.Context,
    concept: Annotated[
        str,
        typer.Argument(
            metavar="[ID]",
            help="A concept of yours; without it, what others share with you.",
            autocompletion=complete_concept,
            show_default=False,
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Who may use a concept, or what others share with you."""
    with connect(context) as client:
        found = list(client.grants.list(concept) if concept else client.grants.received())
    if as_json:
        document(found)
    elif concept:
        table(
            ("tenant", "may", "since"),
            ((each.grantee, each.access.lower(), each.create_time) for each in found),
            nothing=f"Nobody else may use {concept}: perfuse share grant {concept} TENANT",
        )
    else:
        table(
            ("placeholder", "kind of", "you may", "since"),
            (
                (
                    f"<{each.placeholder}>",
                    each.super_category,
                    each.access.lower(),
                    each.create_time,
                )
                for each in found
            ),
            nothing="Nobody shares a concept with you.",
        )


@app.command()
def revoke(
    context: typer.Context, concept: Concept, grantee: Grantee, as_json: Json = False
) -> None:
    """Take a grant back; Renderers follow within seconds."""
    with connect(context) as client:
        client.grants.delete(concept, grantee)
    if as_json:
        document({"revoked": concept, "grantee": grantee})
    else:
        say(f"{grantee} may no longer use {concept}")
