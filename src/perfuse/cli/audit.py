"""`perfuse audit`: who did what."""

from __future__ import annotations

from enum import StrEnum
from itertools import islice
from typing import Annotated

import typer

from perfuse.cli.options import Json, connect, filter_like
from perfuse.cli.output import document, table


class Service(StrEnum):
    """Whose record."""

    REGISTRY = "registry"
    TRAINER = "trainer"


def audit(
    context: typer.Context,
    service: Annotated[Service, typer.Option(help="Whose record.")] = Service.REGISTRY,
    filter: Annotated[str, filter_like('rpc = DeleteConcept AND subject = "paula"')] = "",
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest.")] = 50,
    all_tenants: Annotated[
        bool, typer.Option("--all-tenants", help="Every tenant's; for operators.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Who changed what, or was refused to, the newest first; for admins."""
    with connect(context) as client:
        events = client.audit.list(
            service="trainer" if service is Service.TRAINER else "registry",
            filter=filter,
            all_tenants=all_tenants,
            page_size=min(limit, 1000),
        )
        found = list(islice(events, limit))
    if as_json:
        document(found)
        return
    table(
        ("time", "tenant", "who", "did", "to", "outcome"),
        (
            (each.event_time, each.tenant, each.subject, each.rpc, each.resource, each.code)
            for each in found
        ),
        nothing="Nothing is recorded that fits.",
    )
