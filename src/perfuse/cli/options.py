"""Options that many commands share, the client that they lead to, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from perfuse.client import Client, Connection
from perfuse.errors import PerfuseError

_CONNECTION = ("registry", "trainer", "renderer", "tenant", "token", "ca")
_COMPLETION_SECONDS = 1.0

Json = Annotated[
    bool, typer.Option("--json", help="Answer in JSON, and with nothing else, for programs.")
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="KEY=VALUE", help="A label; may be given several times."),
]


def filter_like(example: str) -> Any:
    """The option of commands that list."""
    return typer.Option("--filter", metavar="EXPRESSION", help=f"Only what fits, as '{example}'.")


def connect(context: typer.Context) -> Client:
    """The client that the root's options, the environment or the file lead to."""
    return Client(_connection(context))


def connection_of(context: typer.Context) -> Connection:
    """Where the services are, as the root's options, the environment or the file say."""
    return _connection(context)


def read_pairs(option: str, said: Iterable[str] | None) -> Mapping[str, str]:
    """`KEY=VALUE`, several times, as a mapping."""
    found: dict[str, str] = {}
    for each in said or ():
        key, equals, value = each.partition("=")
        if not (key and equals):
            raise _bad(option, each, "KEY=VALUE, as team=cats")
        if key in found:
            raise _bad(option, each, f"each key once; {key} stands twice")
        found[key] = value
    return found


def read_numbers(option: str, said: Iterable[str] | None) -> Mapping[str, float]:
    """`PLACEHOLDER=NUMBER`, several times; the placeholder may stand in its brackets."""
    found: dict[str, float] = {}
    for placeholder, value in read_pairs(option, said).items():
        try:
            found[placeholder.strip("<>")] = float(value)
        except ValueError:
            raise _bad(option, f"{placeholder}={value}", "a number, as tom=0.5") from None
    return found


def read_size(said: str | None) -> tuple[int | None, int | None]:
    """`WxH`, or one number for both, as pixels; None where nothing was said."""
    if said is None:
        return None, None
    match = re.fullmatch(r"(\d+)(?:[xX×](\d+))?", said.strip())
    if match is None:
        raise _bad("--size", said, "WIDTHxHEIGHT in pixels, as 512x768")
    width, height = match.groups()
    return int(width), int(height or width)


def complete_concept(context: typer.Context, incomplete: str) -> list[str]:
    """Ids of concepts, for the shell; none where the Registry does not answer at once."""
    try:
        with Client(_connection(context), timeout=_COMPLETION_SECONDS) as client:
            return [each.id for each in client.concepts.list() if each.id.startswith(incomplete)]
    except PerfuseError:
        return []


def complete_run(context: typer.Context, incomplete: str) -> list[str]:
    """Ids of training runs, for the shell."""
    try:
        with Client(_connection(context), timeout=_COMPLETION_SECONDS) as client:
            found = client.training_runs.list()
            return [each.id for each in found if each.id.startswith(incomplete)]
    except PerfuseError:
        return []


def _connection(context: typer.Context) -> Connection:
    given = context.find_root().params
    config: Path | None = given.get("config")
    return Connection.find(config, **{name: given.get(name) for name in _CONNECTION})


def _bad(option: str, value: str, rule: str) -> typer.BadParameter:
    return typer.BadParameter(f"{option} has {value!r}; it takes {rule}")
