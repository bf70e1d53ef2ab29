"""A render while it goes on: a bar for each picture, on the standard error of a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from perfuse.cli.output import remarks
from perfuse.client import Progress as Step
from perfuse.client import Queued, RenderedImage, RenderEvent


class RenderDisplay:
    """Shows events as they are heard; a context to be shown in.

    Args:
        quiet: show nothing.
        about: before the number of each picture.
    """

    def __init__(self, *, quiet: bool = False, about: str = "picture") -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        console = remarks()
        self._bars = Progress(
            *columns, console=console, transient=True, disable=quiet or not console.is_terminal
        )
        self._about = about
        self._waiting: TaskID | None = None
        self._tasks: dict[int, TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def hear(self, event: RenderEvent) -> None:
        """Take an event in, and show what it changed."""
        if isinstance(event, Queued):
            self._wait(event)
            return
        if self._waiting is not None:
            self._bars.remove_task(self._waiting)
            self._waiting = None
        if isinstance(event, Step):
            task = self._task(event.image_index)
            self._bars.update(task, completed=event.step, total=event.steps)
        elif isinstance(event, RenderedImage):
            steps = event.record.steps
            self._bars.update(self._task(event.image_index), completed=steps, total=steps)

    def _wait(self, event: Queued) -> None:
        about = f"waiting for {event.position} pictures"
        if event.expected_wait_seconds:
            about += f", {event.expected_wait_seconds:.0f} s"
        if self._waiting is None:
            self._waiting = self._bars.add_task(about, total=None)
        else:
            self._bars.update(self._waiting, description=about)

    def _task(self, index: int) -> TaskID:
        if index not in self._tasks:
            self._tasks[index] = self._bars.add_task(f"{self._about} {index + 1}", total=None)
        return self._tasks[index]
