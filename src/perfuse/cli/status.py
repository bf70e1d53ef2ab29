"""`perfuse status`: what the Renderer has ready, what the Trainer is at, and what quotas allow."""

from __future__ import annotations

import typer

from perfuse.cli.options import Json, connect
from perfuse.cli.output import document, facts, say, table
from perfuse.cli.runs import row_of

_UNDER_WAY = 'state = "QUEUED" OR state = "RUNNING" OR state = "CANCELLING"'


def status(context: typer.Context, as_json: Json = False) -> None:
    """What can be rendered on, how busy the Renderer is, training runs under way, and quotas."""
    with connect(context) as client:
        found = client.renderer.status()
        runs = list(client.training_runs.list(filter=_UNDER_WAY))
        quotas = [*client.usage.storage(), *client.usage.training(), *found.quotas]
    if as_json:
        document({"renderer": found, "training_runs": runs, "quotas": quotas})
        return
    bases = ", ".join(
        f"{each.name.removeprefix('baseModels/')} ({each.picture_size} pixels)"
        for each in found.base_models
    )
    facts(
        [
            ("base models", bases),
            ("schedulers", ", ".join(found.schedulers)),
            ("pictures", f"{found.running_count} running, {found.waiting_count} waiting"),
            (
                "concepts ready",
                f"{found.resident_adapter_count}, {found.resident_adapter_bytes / 1e6:.1f} MB",
            ),
        ]
    )
    say("")
    table(
        ("run", "concept", "state", "step", "loss", "version", "created"),
        map(row_of, runs),
        nothing="No training run is under way.",
    )
    limited = [each for each in quotas if each.limit is not None]
    if limited:
        say("")
        table(
            ("quota", "used", "of"),
            ((each.quota, f"{each.used:.10g}", f"{each.limit:.10g}") for each in limited),
            nothing="",
        )
