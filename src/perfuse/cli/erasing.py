"""`perfuse erase`: a concept goes for good, over all services, and a receipt stays."""

from __future__ import annotations

from typing import Annotated

import typer

from perfuse.cli.options import Json, complete_concept, connect
from perfuse.cli.output import document, facts, remark, say
from perfuse.client.records import Erasure
from perfuse.errors import InvalidArgument


def erase(
    context: typer.Context,
    concept: Annotated[
        str, typer.Argument(metavar="ID", help="The concept.", autocompletion=complete_concept)
    ],
    yes: Annotated[
        bool, typer.Option("--yes", help="Without asking for the id once more.")
    ] = False,
    receipt: Annotated[
        bool, typer.Option("--receipt", help="Erase nothing; tell of what was erased before.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Erase a concept for good: versions, pictures, runs; its name is never given again."""
    with connect(context) as client:
        if not receipt:
            found = client.concepts.get(concept)
            if not yes:
                remark("Nothing brings an erased concept back, and its name is never given again.")
                typed = typer.prompt(f"Type {found.id} to erase it", default="", err=True)
                if typed != found.id:
                    raise InvalidArgument(f"{found.id} was not typed, so nothing was erased")
            client.erasures.erase(found.name, etag=found.etag)
        told = client.erasures.get(concept)
    if as_json:
        document(told)
    else:
        _tell(told)


def _tell(erasure: Erasure) -> None:
    kept = sum(each.state == "KEPT" for each in erasure.adapters)
    pending = sum(each.state == "PENDING" for each in erasure.adapters)
    trainer = erasure.trainer or {}
    facts(
        (
            ("erased", erasure.concept),
            ("by", erasure.eraser),
            ("at", erasure.erase_time),
            ("versions", erasure.version_count),
            ("adapters", sum(not each.preview for each in erasure.adapters)),
            ("previews", sum(each.preview for each in erasure.adapters)),
            ("kept for other concepts", kept or ""),
            ("yet to be removed", pending or ""),
            ("training runs", trainer.get("run_count", "")),
            ("image sets", trainer.get("image_set_count", "")),
            ("complete", erasure.complete_time),
            ("receipt", erasure.receipt_mac),
        )
    )
    if erasure.complete_time is None:
        say(
            "The Trainer has yet to say that it is done: "
            f"perfuse erase {erasure.name.rpartition('/')[2]} --receipt"
        )
    for each in erasure.unconfirmed:
        remark(f"Not confirmed: {each}.")
