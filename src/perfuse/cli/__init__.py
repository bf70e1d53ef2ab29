"""The command `perfuse`. `perfuse --help` answers without loading torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from perfuse import __version__
from perfuse.cli import (
    aliases,
    audit,
    base,
    concepts,
    consent,
    doctor,
    erasing,
    exchange,
    rendering,
    runs,
    sharing,
    status,
    sweep,
    training,
    up,
    versions,
)
from perfuse.cli.exits import Exit
from perfuse.cli.refusals import tell

__all__ = ["app", "main"]

app = typer.Typer(
    name="perfuse",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(up.up)
app.command()(doctor.doctor)
app.command()(training.train)
app.add_typer(runs.app, name="runs")
app.command()(rendering.render)
app.command()(sweep.sweep)
app.command()(status.status)
app.add_typer(concepts.app, name="concept")
app.add_typer(versions.app, name="version")
app.command()(aliases.promote)
app.add_typer(aliases.app, name="alias")
app.add_typer(sharing.app, name="share")
app.add_typer(consent.app, name="consent")
app.command()(erasing.erase)
app.command()(audit.audit)
app.command("export")(exchange.export_version)
app.command("import")(exchange.import_version)
app.add_typer(base.app, name="base")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"perfuse {__version__}")
        raise typer.Exit


@app.callback()
def perfuse(
    registry: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where the Registry is.")
    ] = None,
    trainer: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where the Trainer is.")
    ] = None,
    renderer: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where the Renderer is.")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="ID", help="Whose names are meant; the token's tenant.")
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(help="Who calls. Others on this machine may see it; a file keeps it better."),
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PEM file that vouches for the services.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML file with what is not given here."),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    """Teach a text-to-image model new concepts and render with them.

    What is not given here is looked for in PERFUSE_REGISTRY, PERFUSE_TRAINER, PERFUSE_RENDERER,
    PERFUSE_TENANT, PERFUSE_TOKEN and PERFUSE_CA, then in ~/.perfuse/config.toml, then in what
    `perfuse up` left.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; see `perfuse.cli.exits` for the status that it ends with."""
    said = list(sys.argv[1:] if arguments is None else arguments)
    status = run(said)
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # As of `perfuse concept list | head -1`; nobody reads on.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Run the command line, and return the status to end with."""
    try:
        # Without the library's own ending: it has other words and other statuses than ours.
        status = app(args=list(arguments), prog_name="perfuse", standalone_mode=False)
    except typer.Abort:
        return Exit.INTERRUPTED
    except Exception as error:
        if os.environ.get("PERFUSE_TRACEBACK"):
            raise
        return tell(error, as_json="--json" in arguments)
    return status if isinstance(status, int) else Exit.DONE
