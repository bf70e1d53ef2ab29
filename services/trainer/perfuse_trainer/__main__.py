"""`perfuse-trainer`: serve, migrate, sweep, work; and learn, without any server."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Annotated, ParamSpec, TypeVar

import typer
from rich.console import Console

from perfuse.errors import PerfuseError
from perfuse.serving.process_one import die_of_sigterm
from perfuse_trainer.learn_command import learn

P = ParamSpec("P")
R = TypeVar("R")

app = typer.Typer(
    name="perfuse-trainer",
    help="The Trainer. Settings come from the environment, PERFUSE_TRAINER_*.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_console = Console(soft_wrap=True)


def _in_sentences(command: Callable[P, R]) -> Callable[P, R]:
    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        # The imports of transformers remark on picture processors that nothing here uses.
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        try:
            return command(*args, **kwargs)
        except PerfuseError as error:
            sentence = str(error)
        except OSError as error:
            sentence = f"{error.filename or 'the system'}: {error.strerror or error}"
        Console(stderr=True, soft_wrap=True).print(f"perfuse-trainer: {sentence}", markup=False)
        raise typer.Exit(1)

    return run


app.command()(_in_sentences(learn))


@app.command()
@_in_sentences
def serve(
    migrate_first: Annotated[
        bool, typer.Option("--migrate", help="Bring the database up to date before serving.")
    ] = False,
) -> None:
    """Serve, and keep workers, until SIGTERM or SIGINT; unfinished runs go on at the next start."""
    from perfuse_trainer.service_settings import TrainerSettings

    settings = TrainerSettings.load()
    if migrate_first:
        _migrate("head")
    from perfuse_trainer.serving import serve as run

    asyncio.run(run(settings))


@app.command()
@_in_sentences
def migrate(
    revision: Annotated[str, typer.Argument(help="Revision, `head` or `base`.")] = "head",
) -> None:
    """Bring the database to a revision of its tables, by default the newest."""
    _migrate(revision)


@app.command()
@_in_sentences
def sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only.")] = False,
) -> None:
    """Remove images that expired and files that nothing refers to."""
    from datetime import timedelta

    from perfuse_trainer.service_settings import TrainerSettings
    from perfuse_trainer.sweeping import Sweeper
    from perfuse_trainer.trainer import Trainer

    settings = TrainerSettings.load()
    trainer = Trainer.from_settings(settings)
    try:
        sweeper = Sweeper(
            trainer.database, trainer.vault, grace=timedelta(hours=settings.orphan_hours)
        )
        _console.print(str(sweeper.sweep(dry_run=dry_run)))
        if not dry_run:
            trainer.audit.forget()
    finally:
        trainer.close()


@app.command(hidden=True)
@_in_sentences
def work(
    base_model: Annotated[str, typer.Argument(help="Id of the base model.")],
    worker_id: Annotated[str, typer.Option(help="Under which to claim.")],
) -> None:
    """Train runs of one base model until SIGTERM, or until standard input ends."""
    from perfuse.serving import logs
    from perfuse_trainer.service_settings import TrainerSettings
    from perfuse_trainer.working.working import work as train

    settings = TrainerSettings.load()
    logs.configure(settings.log_level, settings.log_format)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def watch() -> None:
        # Whoever started us holds the other end, and lets go of it even when killed. Not through
        # `sys.stdin`, whose lock the interpreter would miss at its end.
        while os.read(0, 1024):
            pass
        stop.set()

    threading.Thread(target=watch, name="perfuse-parent", daemon=True).start()
    train(base_model, worker_id, stop)


def _migrate(revision: str) -> None:
    from perfuse.storage.database import Database
    from perfuse_trainer.schema import SCHEMA
    from perfuse_trainer.service_settings import TrainerSettings

    database = Database(TrainerSettings.load().database_url.get_secret_value())
    try:
        before = SCHEMA.current_revision(database)
        SCHEMA.migrate(database, revision)
        after = SCHEMA.current_revision(database)
    finally:
        database.close()
    _console.print(f"database: revision {before or 'none'} -> {after or 'none'}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    die_of_sigterm()
    app(args=None if arguments is None else list(arguments))


if __name__ == "__main__":
    main()
