"""The command `perfuse`. `perfuse --help` answers without loading torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from perfuse.cli.base import app as base_app
from perfuse.errors import PerfuseError

__all__ = ["app", "main"]

app = typer.Typer(
    name="perfuse",
    help="Teach a text-to-image model new concepts and render with them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(base_app, name="base")


@app.callback()
def perfuse() -> None:
    """Teach a text-to-image model new concepts and render with them."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what Perfuse refuses ends in one message and exit status 1."""
    try:
        app(args=None if arguments is None else list(arguments))
    except PerfuseError as error:
        typer.echo(f"perfuse: {error}", err=True)
        sys.exit(1)
