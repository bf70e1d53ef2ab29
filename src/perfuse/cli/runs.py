"""`perfuse runs`: training runs, while they go on and after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perfuse.cli.following import follow
from perfuse.cli.options import Json, complete_run, connect, filter_like
from perfuse.cli.output import document, facts, say, table
from perfuse.cli.versions import short_version
from perfuse.client import TrainingRun

app = typer.Typer(help="Training runs: list, show, watch, cancel, delete.", no_args_is_help=True)

Run = Annotated[str, typer.Argument(metavar="RUN", help="Its id.", autocompletion=complete_run)]

Filter = Annotated[str, filter_like('state = "RUNNING"')]


@app.command("list")
def list_runs(context: typer.Context, filter: Filter = "", as_json: Json = False) -> None:
    """The tenant's training runs, the newest first."""
    with connect(context) as client:
        found = list(client.training_runs.list(filter=filter))
    if as_json:
        document(found)
        return
    table(
        ("run", "concept", "state", "step", "loss", "version", "created"),
        map(row_of, found),
        nothing="There are no such runs: perfuse train CONCEPT PICTURES --super-category NOUN",
    )


@app.command()
def show(context: typer.Context, run: Run, as_json: Json = False) -> None:
    """A run: its settings, how far it is, its validations, and why it failed."""
    with connect(context) as client:
        found = client.training_runs.get(run)
    if as_json:
        document(found)
        return
    settings = found.settings
    best = min(found.validations, key=lambda each: each.loss, default=None)
    facts(
        [
            ("run", found.name),
            ("concept", found.concept),
            ("state", found.state.lower()),
            ("step", f"{found.step} of {settings.steps}" if settings.steps else found.step),
            ("loss", found.loss),
            ("best validation", best and f"{best.loss:.4f} at step {best.step}"),
            ("version", short_version(found.version)),
            ("digest", found.digest),
            ("failed because", found.error and found.error.message),
            ("reason", found.error and found.error.reason),
            ("attempts", found.attempt),
            ("description", found.description),
            ("labels", found.labels),
            ("super-category", found.super_category),
            ("base model", found.base_model),
            ("image set", found.image_set),
            ("key lock", found.key_lock),
            ("batch", settings.batch),
            ("seed", settings.seed),
            ("masks", settings.mask_source),
            ("flip", settings.flip),
            ("patience", settings.patience),
            ("created", found.create_time),
            ("started", found.start_time),
            ("ended", found.end_time),
        ]
    )


@app.command()
def watch(
    context: typer.Context,
    run: Run,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Ctrl-C cancels the run, instead of leaving it alone.")
    ] = False,
    save_previews: Annotated[
        Path | None, typer.Option(metavar="DIRECTORY", help="Keep previews as files.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Follow a run from its beginning to its end, as `perfuse train` does."""
    with connect(context) as client:
        found = client.training_runs.get(run)
        follow(client, found, cancel=cancel, as_json=as_json, previews=save_previews)


@app.command()
def cancel(context: typer.Context, run: Run, as_json: Json = False) -> None:
    """End a run within one step; no version comes of it."""
    with connect(context) as client:
        found = client.training_runs.cancel(run)
    if as_json:
        document(found)
    else:
        say(f"{found.id}: {found.state.lower()}")


@app.command()
def delete(context: typer.Context, run: Run, as_json: Json = False) -> None:
    """Delete a run that has ended, with its events and previews; its version stays."""
    with connect(context) as client:
        client.training_runs.delete(run)
    if as_json:
        document({"deleted": run})
    else:
        say(f"{run} is deleted")


def row_of(run: TrainingRun) -> tuple[object, ...]:
    """A run in a table."""
    steps = run.settings.steps
    return (
        run.id,
        run.concept.rpartition("/")[2],
        run.state.lower(),
        f"{run.step}/{steps}" if steps else run.step,
        run.loss,
        short_version(run.version),
        run.create_time,
    )


@app.command()
def check(
    context: typer.Context,
    run: Run,
    pictures: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", exists=True, dir_okay=False, help="As uploaded."),
    ],
    as_json: Json = False,
) -> None:
    """Prove whether a run learned from pictures; only their digests are sent."""
    with connect(context) as client:
        told = {str(path): client.training_runs.learned_from(run, path) for path in pictures}
    if as_json:
        document(told)
        return
    for path, used in told.items():
        say(f"{path}: {'in' if used else 'not in'} the set that {run} learned from")
