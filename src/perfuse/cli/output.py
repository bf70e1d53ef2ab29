"""What commands print: answers to the standard output, remarks to the standard error.

With `--json` the standard output has one JSON document, or a line of JSON for each event, and
nothing else. Text that came from a service is printed without control characters, so that nobody's
description can speak to a terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_UNBOUNDED = 10_000


def answers() -> Console:
    """The standard output. Elsewhere than in a terminal nothing is cut or wrapped."""
    return _console(sys.stdout)


def remarks() -> Console:
    """The standard error: progress, and what is no answer."""
    return _console(sys.stderr)


def say(text: str) -> None:
    """A line of the answer."""
    answers().print(Text(clean(text)), soft_wrap=True)


def remark(text: str) -> None:
    """A line beside the answer."""
    console = remarks()
    console.print(Text(clean(text)), soft_wrap=not console.is_terminal)


def document(value: object) -> None:
    """The whole answer as JSON."""
    sys.stdout.write(json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


def line(value: object) -> None:
    """One event as a line of JSON, at once."""
    sys.stdout.write(json.dumps(plain(value), ensure_ascii=False) + "\n")
    sys.stdout.flush()


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, nothing: str) -> None:
    """The answer as a table; `nothing` is remarked where there is no row."""
    made = Table(*headings, box=None, header_style="dim", padding=(0, 2, 0, 0))
    console = answers()
    for column in made.columns:
        column.overflow = "fold"
        column.no_wrap = not console.is_terminal
    for row in rows:
        made.add_row(*(Text(shown(value)) for value in row))
    if made.row_count:
        _print(console, made)
    else:
        remark(nothing)


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """The answer as names and values, without those that are empty."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        if text := shown(value):
            made.add_row(name, Text(text))
    _print(answers(), made)


def shown(value: object) -> str:
    """A value for people: local times to the minute, labels as k=v, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone().strftime("%Y-%m-%d %H:%M")
    if isinstance(value, Mapping):
        return " ".join(
            f"{clean(str(key))}={clean(str(each))}" for key, each in sorted(value.items())
        )
    if isinstance(value, float):
        return f"{value:.4g}"
    return clean(str(value))


def clean(text: str) -> str:
    """Text without control characters but for line ends and tabs."""
    return "".join(
        each
        if each in "\n\t" or not (ord(each) < 32 or 127 <= ord(each) < 160)
        else "\N{REPLACEMENT CHARACTER}"
        for each in text
    )


def plain(value: object) -> Any:
    """A value as JSON has it: dataclasses as objects, times in ISO 8601, bytes as their number."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    return value


def _print(console: Console, made: Table) -> None:
    """A table, without the spaces that fill its last column."""
    with console.capture() as taken:
        console.print(made)
    lines = taken.get().split("\n")
    console.file.write("\n".join(each.rstrip(" ") for each in lines))


def _console(file: Any) -> Console:
    found = Console(file=file, highlight=False, markup=False, emoji=False)
    if not found.is_terminal:
        found.width = _UNBOUNDED
    return found
