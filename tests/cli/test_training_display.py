"""A run as it is told: the story, the live lines, and plain lines where nothing can be redrawn."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from rich.console import Console
from rich.text import Text

from perfuse.cli.following import EVENTS, as_line
from perfuse.cli.training_display import TrainingDisplay, clock, drawn
from perfuse.cli.training_story import TrainingStory
from perfuse.client import (
    PreviewPicture,
    RunError,
    Similarity,
    StateChange,
    TrainingEvent,
    TrainingProgress,
    Validation,
)


def picture() -> bytes:
    kept = io.BytesIO()
    Image.new("RGB", (4, 4), (10, 20, 30)).save(kept, "PNG")
    return kept.getvalue()


def progress(step: int, loss: float) -> TrainingProgress:
    return TrainingProgress(
        sequence=step,
        time=None,
        step=step,
        steps=10,
        loss=loss,
        steps_per_second=2.0,
        remaining_seconds=(10 - step) / 2,
    )


TOLD: tuple[TrainingEvent, ...] = (
    StateChange(sequence=1, time=None, state="QUEUED"),
    StateChange(sequence=2, time=None, state="RUNNING", attempt=1),
    Validation(step=0, loss=0.9, best=True, sequence=3),
    progress(1, 0.8),
    progress(5, 0.4),
    Validation(step=5, loss=0.5, best=True, sequence=6),
    Similarity(sequence=7, time=None, step=5, cosine=0.6),
    PreviewPicture(sequence=8, time=None, step=5, prompt="a photo of <>", picture=picture()),
    progress(10, 0.6),
    Validation(step=10, loss=0.7, best=False, sequence=10),
    StateChange(
        sequence=11, time=None, state="SUCCEEDED", version="tenants/acme/concepts/tom/versions/1"
    ),
)


def story() -> TrainingStory:
    told = TrainingStory(concept="tom", run="r1", steps=10)
    for event in TOLD:
        told.hear(event)
    return told


def test_the_story() -> None:
    told = story()
    assert told.state == "SUCCEEDED"
    assert told.version.endswith("versions/1")
    assert (told.step, told.steps) == (10, 10)
    assert told.losses == [0.8, 0.4, 0.6]
    assert told.similarities == [0.6]
    assert told.best is not None
    assert told.best.step == 5, "a later validation that is worse is not the best"
    assert told.preview is not None


def test_what_is_drawn() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system="truecolor")
    with console.capture() as taken:
        console.print(drawn(story(), "blocks"))
    seen = taken.get()
    for words in (
        "tom",
        "succeeded",
        "10/10",
        "█",
        "0.6000",
        "0.5000 at step 5",
        "▀",
        "step 5: a photo of <tom>",
    ):
        assert words in seen
    assert "38;2;10;20;30" in seen, "the preview's own colour"
    assert "left" not in seen, "an ended run takes no more time"
    with console.capture() as taken:
        console.print(drawn(story(), "none"))
    assert "▀" not in taken.get()


@pytest.mark.parametrize("width", [40, 62, 100, 200])
def test_words_are_whole_in_narrow_terminals(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    told = TrainingStory(concept="tom", run="r1")
    for event in TOLD[:4]:
        told.hear(event)
    with console.capture() as taken:
        console.print(drawn(told, "none", width))
    assert "running" in taken.get()
    if width > 60:
        assert "1/10  2.0 steps/s, 0:04 left" in Text.from_ansi(taken.get()).plain


def test_a_live_terminal_ends_with_the_last_picture_of_the_run() -> None:
    file = io.StringIO()
    console = Console(file=file, width=120, force_terminal=True, color_system="truecolor")
    with TrainingDisplay(TrainingStory(concept="tom", run="r1"), console) as display:
        for event in TOLD:
            display.hear(event)
    last = file.getvalue().rpartition("running")[2]
    assert "succeeded" in last
    assert "\x1b[?25h" in file.getvalue(), "the cursor is back"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_picture_above_what_is_live_is_not_drawn_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFUSE_PICTURES", "kitty")
    file = Terminal()
    console = Console(file=file, width=120, force_terminal=True, color_system="truecolor")
    with TrainingDisplay(TrainingStory(concept="tom", run="r1"), console) as display:
        for event in TOLD:
            display.hear(event)
    before, _, after = file.getvalue().partition("step 5: a photo of <tom>")
    assert "\x1b[1A" in before, "what is live is drawn over itself"
    picture, _, _ = after.partition("\x1b[1mtom")
    assert "\x1b_Gf=100" in picture
    assert "\x1b[1A" not in picture, "the cursor goes up no line between picture and next frame"


def test_plain_lines_where_nothing_can_be_redrawn() -> None:
    file = io.StringIO()
    console = Console(file=file, width=200)
    with TrainingDisplay(TrainingStory(concept="tom", run="r1"), console) as display:
        for event in TOLD:
            display.hear(event)
    assert file.getvalue().splitlines() == [
        "tom  queued",
        "tom  running",
        "tom  step 0: best validation 0.9000",
        "tom  step 1 of 10: loss 0.8000, 2.00 steps/s, 0:04 left",
        "tom  step 5: best validation 0.5000",
        "tom  step 10 of 10: loss 0.6000, 2.00 steps/s, 0:00 left",
        "tom  succeeded",
    ]


def test_a_quiet_display_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    told = TrainingStory(concept="tom", run="r1")
    with TrainingDisplay(told, quiet=True) as display:
        for event in TOLD:
            display.hear(event)
    assert capsys.readouterr() == ("", "")
    assert told.state == "SUCCEEDED"


def test_lines_of_json_name_each_event_and_hold_no_picture() -> None:
    lines = [as_line(event) for event in TOLD]
    assert [line["event"] for line in lines] == [EVENTS[type(event)] for event in TOLD]
    assert lines[3] == {
        "event": "progress",
        "sequence": 1,
        "time": None,
        "step": 1,
        "steps": 10,
        "loss": 0.8,
        "steps_per_second": 2.0,
        "remaining_seconds": 4.5,
    }
    assert "picture" not in lines[7]
    assert lines[7]["path"] is None
    failed = StateChange(
        sequence=1, time=None, state="FAILED", error=RunError(reason="R", message="m")
    )
    assert as_line(failed)["error"] == {"reason": "R", "message": "m"}


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0:00"), (7.4, "0:07"), (760, "12:40"), (3723, "1:02:03")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown
