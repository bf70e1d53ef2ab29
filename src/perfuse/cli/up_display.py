"""What a person sees of `perfuse up`: services as they come, and what to do then."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from perfuse.cli.output import answers, facts, remark, remarks, say
from perfuse.client import Connection

__all__ = ["Starting", "tell_ready"]

_NEXT = (
    "perfuse train tom pictures/ --super-category cat",
    'perfuse render "a photo of <tom> in the snow" -n 4 -o out',
    'perfuse sweep "a photo of <tom> on the beach" -o out',
)


class Starting:
    """The services while they start: live in a terminal, a line for each elsewhere.

    Args:
        titles: service → its name for people.
        silent: say nothing at all.
    """

    def __init__(self, titles: dict[str, str], *, silent: bool) -> None:
        self._titles, self._silent = titles, silent
        self._took: dict[str, float] = {}
        self._began = time.monotonic()
        self._spinner = Spinner("dots")

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While the services start."""
        console = remarks()
        if self._silent or not console.is_terminal:
            yield
            return
        with Live(get_renderable=self._picture, console=console, transient=True):
            yield

    def ready(self, service: str, seconds: float) -> None:
        """A service is."""
        self._took[service] = seconds
        if not (self._silent or remarks().is_terminal):
            remark(f"{self._titles[service]} ready in {seconds:.1f} s")

    def _picture(self) -> RenderableType:
        table = Table.grid(padding=(0, 1, 0, 0))
        for service, title in self._titles.items():
            seconds = self._took.get(service)
            if seconds is None:
                waited = f"starting, {time.monotonic() - self._began:.0f} s"
                table.add_row(self._spinner, title, Text(waited, style="dim"))
            else:
                table.add_row(Text("✓", style="green"), title, f"ready in {seconds:.1f} s")
        return table


def tell_ready(
    connection: Connection, home: Path, bases: list[str], seconds: float, *, is_default_home: bool
) -> None:
    """Addresses, the folder, and the next three commands."""
    rows = [
        ("Registry", connection.registry),
        ("Trainer", connection.trainer),
        ("Renderer", connection.renderer),
        ("tenant", connection.tenant),
        ("base models", ", ".join(bases)),
        ("folder", str(home)),
    ]
    commands = list(_NEXT)
    if not is_default_home:
        commands.insert(0, f"export PERFUSE_HOME={shlex.quote(str(home))}")
    title = f"Perfuse is ready, in {seconds:.1f} s"
    told = [
        Text(),
        Text("Next, in another terminal:"),
        *(Text(f"  {each}", style="bold", overflow="fold") for each in commands),
    ]
    console = answers()
    if not console.is_terminal:
        say(title)
        facts(rows)
        for line in told:
            say(line.plain)
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    for name, value in rows:
        table.add_row(name, Text(value, overflow="fold"))
    console.print(
        Panel(
            Group(table, *told),
            title=Text(title),
            subtitle=Text("Ctrl-C ends it", style="dim"),
            expand=False,
        )
    )
