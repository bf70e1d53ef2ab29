"""`perfuse consent`: people's consent to the use of their likeness."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from perfuse.cli.options import Json, complete_concept, connect
from perfuse.cli.output import document, say, table
from perfuse.client.records import ConsentScope

app = typer.Typer(
    help="Consent: a likeness is trained and rendered while the person consents, and not else.",
    no_args_is_help=True,
)

Concept = Annotated[
    str, typer.Argument(metavar="ID", help="The likeness.", autocompletion=complete_concept)
]
_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M"]


class Use(StrEnum):
    """What is consented to."""

    TRAIN = "train"
    RENDER = "render"
    BOTH = "both"


_SCOPES: dict[Use, tuple[ConsentScope, ...]] = {
    Use.TRAIN: ("TRAIN",),
    Use.RENDER: ("RENDER",),
    Use.BOTH: ("TRAIN", "RENDER"),
}


@app.command()
def give(
    context: typer.Context,
    concept: Concept,
    giver: Annotated[
        str, typer.Option(metavar="TEXT", help="Who consents, or where that is written.")
    ],
    until: Annotated[
        datetime, typer.Option(formats=_FORMATS, help="Until when it counts, in UTC.")
    ],
    to: Annotated[Use, typer.Option(help="To what.")] = Use.BOTH,
    since: Annotated[
        datetime | None,
        typer.Option("--from", formats=_FORMATS, help="From when on, in UTC; at once by default."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Record a consent: `perfuse consent give eri --giver "form 17" --until 2027-01-31`."""
    with connect(context) as client:
        made = client.consents.create(
            concept,
            giver=giver,
            expire_time=until.replace(tzinfo=UTC),
            scopes=_SCOPES[to],
            start_time=None if since is None else since.replace(tzinfo=UTC),
        )
    if as_json:
        document(made)
        return
    say(f"{concept} may be used until {until:%Y-%m-%d %H:%M} UTC: consent {made.id}")


@app.command("list")
def list_consents(context: typer.Context, concept: Concept, as_json: Json = False) -> None:
    """Every consent that was ever recorded, the newest first."""
    with connect(context) as client:
        found = list(client.consents.list(concept))
    if as_json:
        document(found)
        return
    table(
        ("consent", "to", "state", "until", "giver"),
        (
            (
                each.id,
                ", ".join(scope.lower() for scope in each.scopes),
                each.state.lower(),
                each.expire_time,
                each.giver,
            )
            for each in found
        ),
        nothing=f"Nobody has consented: perfuse consent give {concept} --giver TEXT --until DATE",
    )


@app.command()
def revoke(
    context: typer.Context,
    concept: Concept,
    consent: Annotated[str, typer.Argument(metavar="CONSENT", help="Its id.")],
    as_json: Json = False,
) -> None:
    """Take a consent back for good; what trains with it ends, what renders is refused."""
    with connect(context) as client:
        revoked = client.consents.revoke(concept, consent)
    if as_json:
        document(revoked)
    else:
        say(f"consent {revoked.id} no longer counts")
