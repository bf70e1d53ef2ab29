"""A run followed to its end, and what an interruption of that means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from perfuse.cli.exits import Exit, Failure
from perfuse.cli.output import line, plain, remark, say
from perfuse.cli.training_display import TrainingDisplay
from perfuse.cli.training_story import TrainingStory
from perfuse.cli.versions import short_version
from perfuse.client import (
    Client,
    PreviewPicture,
    RunError,
    Similarity,
    StateChange,
    TrainingEvent,
    TrainingProgress,
    TrainingRun,
    Validation,
)

EVENTS: dict[type[TrainingEvent], str] = {
    StateChange: "state",
    TrainingProgress: "progress",
    Validation: "validation",
    Similarity: "similarity",
    PreviewPicture: "preview",
}
"""What a line of JSON calls each event."""


def follow(
    client: Client,
    run: TrainingRun,
    *,
    cancel: bool = False,
    as_json: bool = False,
    previews: Path | None = None,
) -> None:
    """Follow a run to its end; answer with the version that came of it.

    Args:
        cancel: whether an interruption cancels the run instead of leaving it alone.
        as_json: answer with a line for each event, the last one with the run.
        previews: folder for the pictures of the unfinished concept.

    Raises:
        Failure: the run failed, or was cancelled.
        typer.Exit: with 130: it was interrupted.
    """
    display = TrainingDisplay(TrainingStory.of(run), quiet=as_json)
    try:
        with display:
            for event in client.training_runs.watch(run.name):
                display.hear(event)
                kept = _keep(event, previews)
                if as_json:
                    line(as_line(event, kept))
    except KeyboardInterrupt:
        _interrupted(client, run, cancel=cancel)
        raise typer.Exit(Exit.INTERRUPTED) from None
    ended = client.training_runs.get(run.name)
    if as_json:
        line({"event": "end", "run": ended})
    _answer(ended, as_json=as_json)


def as_line(event: TrainingEvent, kept: Path | None = None) -> dict[str, Any]:
    """An event as a line of JSON has it; a picture is left out, but for where it was kept."""
    told: dict[str, Any] = {"event": EVENTS[type(event)], **plain(event)}
    if isinstance(event, PreviewPicture):
        del told["picture"]
        told["path"] = kept and str(kept)
    return told


def _keep(event: TrainingEvent, folder: Path | None) -> Path | None:
    if folder is None or not isinstance(event, PreviewPicture):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{event.step:05}-{event.sequence}.png"
    path.write_bytes(event.picture)
    return path


def _interrupted(client: Client, run: TrainingRun, *, cancel: bool) -> None:
    if not cancel:
        remark(
            f"The run goes on. See it again: perfuse runs watch {run.id}\n"
            f"End it:           perfuse runs cancel {run.id}"
        )
        return
    client.training_runs.cancel(run.name)
    remark(f"{run.id} is being cancelled ...")
    state = client.training_runs.wait(run.name).state
    remark(f"{run.id}: {state.lower()}")


def _answer(run: TrainingRun, *, as_json: bool) -> None:
    concept = run.concept.rpartition("/")[2]
    if run.state == "FAILED":
        error = run.error or RunError(reason="INTERNAL", message="the Trainer does not say why")
        raise Failure(
            f"the run {run.id} failed: {error.message}",
            reason=error.reason,
            resource=run.name,
        )
    if run.state != "SUCCEEDED":
        raise Failure(
            f"the run {run.id} was {run.state.lower()}; no version came of it",
            reason=run.state,
            resource=run.name,
        )
    if not as_json:
        say(short_version(run.version))
        remark(f'Render it: perfuse render "a photo of <{concept}> in the snow"')
