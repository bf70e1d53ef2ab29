"""A training run while it goes on: a live picture in a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from perfuse.cli import terminal_pictures
from perfuse.cli.output import clean, remarks
from perfuse.cli.sparkline import sparkline
from perfuse.cli.training_story import TrainingStory
from perfuse.client import PreviewPicture, StateChange, TrainingEvent, TrainingProgress, Validation

_CURVE, _WORDS = 40, 52
_PREVIEW_COLUMNS, _PREVIEW_ROWS = 32, 16
_LINE_SECONDS = 5.0


class TrainingDisplay:
    """Shows a story as it is heard, on the standard error; a context to be shown in.

    Args:
        story: of the run.
        console: in place of the standard error.
        quiet: show nothing, as where the events themselves are the answer.
    """

    def __init__(
        self, story: TrainingStory, console: Console | None = None, *, quiet: bool = False
    ) -> None:
        self.story = story
        self._console = console or remarks()
        self._way = terminal_pictures.way_of(os.environ, is_terminal=self._console.is_terminal)
        self._live: Live | None = None
        self._quiet = quiet
        self._told = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._quiet:
            self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is None:
            return
        self._live.stop()
        self._console.print(self._drawn())

    def hear(self, event: TrainingEvent) -> None:
        """Take an event in, and show what it changed."""
        self.story.hear(event)
        if self._quiet:
            return
        if self._live is None:
            self._tell(event)
        elif isinstance(event, PreviewPicture) and self._way in ("kitty", "iterm2"):
            self._live.stop()
            self._place(event)
            self._start()

    def _start(self) -> None:
        # Anew each time: one that was stopped remembers lines that are no longer its own.
        self._live = Live(
            get_renderable=self._drawn,
            console=self._console,
            refresh_per_second=8,
            transient=True,
        )
        try:
            self._live.start()
        except BaseException:  # An interruption between the cursor's vanishing and our exit.
            self._live.stop()
            raise

    def _drawn(self) -> RenderableType:
        return drawn(self.story, self._way, self._console.width)

    def _place(self, event: PreviewPicture) -> None:
        """Put a picture above what is live; the protocols know no way to redraw around one."""
        self._console.print(_caption(self.story.concept, event))
        terminal_pictures.show(
            event.picture, self._console.file, columns=_PREVIEW_COLUMNS, rows=_PREVIEW_ROWS
        )

    def _tell(self, event: TrainingEvent) -> None:
        """A line, where lines stay: each change of state, each better validation, some steps."""
        story, now = self.story, time.monotonic()
        match event:
            case StateChange():
                line = event.state.lower()
            case Validation(best=True):
                line = f"step {event.step}: best validation {event.loss:.4f}"
            case TrainingProgress() if (
                now - self._told >= _LINE_SECONDS or event.step == event.steps
            ):
                line = (
                    f"step {event.step} of {event.steps}: loss {event.loss:.4f}, "
                    f"{event.steps_per_second:.2f} steps/s, {clock(story.remaining)} left"
                )
                self._told = now
            case _:
                return
        self._console.print(Text(f"{clean(story.concept)}  {line}"))


def drawn(
    story: TrainingStory, way: terminal_pictures.Way = "none", width: int = 100
) -> RenderableType:
    """A story as a few lines: state, bar, curves, the best validation, the newest preview."""
    # Words come first: what they leave of a narrow terminal is the bar's and the curves'.
    room = max(8, min(_CURVE, width - _WORDS))
    parts: list[RenderableType] = [_head(story, room)]
    curves = Table.grid(padding=(0, 2, 0, 0))
    if story.losses:
        curves.add_row(*_curve("loss", story.losses, room))
    if story.similarities:
        curves.add_row(*_curve("similarity", story.similarities, room))
    if story.best is not None:
        curves.add_row(
            Text("best validation", style="dim"),
            Text(f"{story.best.loss:.4f} at step {story.best.step}"),
        )
    if curves.row_count:
        parts.append(curves)
    if story.preview is not None and way == "blocks":
        parts.append(
            terminal_pictures.blocks(story.preview.picture, _PREVIEW_COLUMNS, _PREVIEW_ROWS)
        )
        parts.append(_caption(story.concept, story.preview))
    return Group(*parts)


def clock(seconds: float) -> str:
    """A duration: 0:07, 12:40, 1:02:03."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


_STYLES = {"SUCCEEDED": "green", "FAILED": "red", "CANCELLED": "yellow", "CANCELLING": "yellow"}


def _head(story: TrainingStory, room: int) -> RenderableType:
    row = Table.grid(padding=(0, 2, 0, 0))
    words = [
        Text(clean(story.concept), style="bold"),
        Text(story.state.lower(), style=_STYLES.get(story.state, "cyan")),
    ]
    if not story.steps:
        row.add_row(*words)
        return row
    ended = story.state in ("SUCCEEDED", "FAILED", "CANCELLED")
    pace = f"{story.rate:.1f} steps/s, {clock(story.remaining)} left" if story.rate else ""
    row.add_row(
        *words,
        ProgressBar(total=story.steps, completed=story.step, width=room),
        Text(f"{story.step}/{story.steps}"),
        Text("" if ended else pace, style="dim"),
    )
    return row


def _caption(concept: str, preview: PreviewPicture) -> Text:
    # The Trainer's placeholder is the empty one; people know the concept's own.
    prompt = preview.prompt.replace("<>", f"<{concept}>")
    return Text(clean(f"step {preview.step}: {prompt}"), style="dim")


def _curve(name: str, values: list[float], room: int) -> tuple[Text, Text]:
    line = Text(sparkline(values, room))
    line.append(f"  {values[-1]:.4f}", style="dim")
    return Text(name, style="dim"), line
