"""Pictures in terminals: which way each one takes, and what is written."""

from __future__ import annotations

import base64
import io
import re

import pytest
from PIL import Image

from perfuse.cli import terminal_pictures as pictures

TRUE = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}


def png(size: tuple[int, int] = (2, 2)) -> bytes:
    made = Image.new("RGB", size, (0, 0, 255))
    made.putpixel((0, 0), (255, 0, 0))
    made.putpixel((0, size[1] - 1), (0, 255, 0))
    kept = io.BytesIO()
    made.save(kept, "PNG")
    return kept.getvalue()


@pytest.mark.parametrize(
    ("environment", "way"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        (TRUE, "blocks"),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1", "COLORTERM": "24bit"}, "blocks"),
        ({**TRUE, "TMUX": "/tmp/t", "TERM_PROGRAM": "iTerm.app"}, "blocks"),
        ({**TRUE, "NO_COLOR": "1"}, "none"),
        ({"TERM": "xterm-256color"}, "none"),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, "none"),
        ({}, "none"),
        ({**TRUE, "PERFUSE_PICTURES": "none"}, "none"),
        ({"TERM": "xterm", "PERFUSE_PICTURES": "kitty"}, "kitty"),
        ({**TRUE, "PERFUSE_PICTURES": "crayons"}, "blocks"),
    ],
)
def test_the_way_of_a_terminal(environment: dict[str, str], way: str) -> None:
    assert pictures.way_of(environment, is_terminal=True) == way
    assert pictures.way_of(environment, is_terminal=False) == "none"


def test_half_blocks_are_the_pixels() -> None:
    text = pictures.ansi_blocks(png(), 2, 1)
    assert text == ("\x1b[38;2;255;0;0;48;2;0;255;0m▀\x1b[38;2;0;0;255;48;2;0;0;255m▀\x1b[0m\n")
    styled = pictures.blocks(png(), 2, 1)
    assert styled.plain == "▀▀"
    assert [str(span.style) for span in styled.spans] == [
        "rgb(255,0,0) on rgb(0,255,0)",
        "rgb(0,0,255) on rgb(0,0,255)",
    ]


@pytest.mark.parametrize(
    ("size", "cells"), [((100, 100), (40, 20)), ((200, 100), (80, 20)), ((100, 400), (10, 20))]
)
def test_a_picture_keeps_its_shape(size: tuple[int, int], cells: tuple[int, int]) -> None:
    assert pictures.fitting(png(size), 80, 20) == cells


def test_kitty_gets_the_file_in_pieces() -> None:
    data = bytes(range(256)) * 40
    told = pictures.kitty(data, 10, 5)
    commands = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", told)
    assert base64.b64decode("".join(piece for _, piece in commands)) == data
    assert all(len(piece) <= 4096 for _, piece in commands)
    controls = [control for control, _ in commands]
    assert controls[0] == "f=100,a=T,q=2,c=10,r=5,m=1"
    assert controls[1:] == ["m=1"] * (len(controls) - 2) + ["m=0"]
    assert "".join(f"\x1b_G{a};{b}\x1b\\" for a, b in commands) == told


def test_iterm2_gets_the_file_in_one_command() -> None:
    told = pictures.iterm2(b"file", 10, 5)
    assert told == (
        "\x1b]1337;File=inline=1;size=4;width=10;height=5;preserveAspectRatio=1:ZmlsZQ==\x07"
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_jpeg_is_sent_as_a_png(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFUSE_PICTURES", "iterm2")
    kept = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 9, 9)).save(kept, "JPEG")
    terminal = Terminal()
    assert pictures.show(kept.getvalue(), terminal, columns=10, rows=10)
    sent = base64.b64decode(terminal.getvalue().partition(":")[2].rstrip("\x07\n"))
    assert sent.startswith(b"\x89PNG")


def test_nothing_is_written_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERFUSE_PICTURES", "kitty")
    pipe = io.StringIO()
    assert not pictures.show(png(), pipe)
    assert pipe.getvalue() == ""
