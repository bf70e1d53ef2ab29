"""Exit statuses: total over the exception tree, and as the table in docs/cli.md has them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import perfuse.adapter.errors  # noqa: F401  (its classes are part of the tree)
from perfuse.cli import app, exits, run
from perfuse.cli.exits import BY_STATUS, Exit, Failure, exit_of
from perfuse.cli.refusals import tell
from perfuse.errors import (
    InvalidArgument,
    PerfuseError,
    PermissionDenied,
    ResourceExhausted,
    TrainingDiverged,
    Unavailable,
)


def tree(kind: type[PerfuseError] = PerfuseError) -> Iterator[type[PerfuseError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


@pytest.mark.parametrize("kind", list(tree()), ids=lambda kind: kind.__name__)
def test_every_exception_has_a_status_that_is_no_success(kind: type[PerfuseError]) -> None:
    assert kind.status in BY_STATUS, "a new status must be given an exit on purpose"
    assert exit_of(kind("no")) in set(Exit) - {Exit.DONE, Exit.USAGE, Exit.INTERRUPTED}


def test_a_run_that_diverged_failed_and_was_not_refused() -> None:
    assert exit_of(TrainingDiverged("no")) is Exit.FAILED
    assert exit_of(PermissionDenied("no")) is Exit.NOT_ALLOWED
    assert exit_of(Unavailable("no")) is Exit.UNAVAILABLE


def test_a_status_of_a_later_release_is_a_refusal() -> None:
    error = PerfuseError("no")
    error.status = "UNIMPLEMENTED"
    assert exit_of(error) is Exit.REFUSED


def test_a_refusal_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    error = InvalidArgument.in_field("steps", "0 is too few")
    error.resource = "tenants/acme/trainingRuns/r"
    assert tell(error, as_json=True) is Exit.REFUSED
    seen = capsys.readouterr()
    assert seen.out == ""
    assert json.loads(seen.err) == {
        "reason": "INVALID_ARGUMENT",
        "message": "steps: 0 is too few",
        "violations": [{"field": "steps", "description": "0 is too few"}],
        "resource": "tenants/acme/trainingRuns/r",
        "retry_after": None,
    }


def test_a_refusal_is_one_line_that_says_when_to_come_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = ResourceExhausted("the queue\nis full\x1b[2J")
    error.retry_after = 2.5
    tell(error, as_json=False)
    assert (
        capsys.readouterr().err
        == "perfuse: the queue is full\N{REPLACEMENT CHARACTER}[2J (again in 2.5 s)\n"
    )


def test_what_failed_without_a_refusal(capsys: pytest.CaptureFixture[str]) -> None:
    failed = Failure("it failed", reason="TRAINING_DIVERGED", resource="r")
    assert tell(failed, as_json=True) is Exit.FAILED
    assert json.loads(capsys.readouterr().err)["reason"] == "TRAINING_DIVERGED"


def test_a_fault_of_ours_is_a_sentence_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert tell(ZeroDivisionError("division by zero"), as_json=False) is Exit.REFUSED
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "ZeroDivisionError" in told
    assert tell(PermissionError(13, "Permission denied", "out/a.png"), as_json=False)
    assert capsys.readouterr().err == "perfuse: out/a.png: Permission denied\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing-of-the-kind"], "No such command"),
        (["base", "show"], "Missing argument"),
        (["base", "show", ".", "--frob"], "No such option"),
    ],
)
def test_a_misunderstood_command_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == Exit.USAGE
    told = capsys.readouterr().err
    assert said in told
    assert "--help" in told
    assert told.count("\n") == 1
    assert run([*arguments, "--json"]) == Exit.USAGE
    assert json.loads(capsys.readouterr().err)["reason"] == "USAGE"


def test_help_is_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == Exit.DONE
    assert run([]) == Exit.USAGE
    assert capsys.readouterr().err == ""


def test_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("perfuse.cli.base.attach_library", interrupt)
    assert run(["base", "show", "."]) == Exit.INTERRUPTED
    assert "Traceback" not in capsys.readouterr().err


def test_the_documents_have_the_same_table_as_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    tables = [
        re.findall(r"^\| (\d+) \| (.+) \|$", text, re.MULTILINE)
        for text in (page, exits.__doc__ or "")
    ]
    assert tables[0] == tables[1]
    assert [int(status) for status, _ in tables[0]] == list(Exit)


def commands(group: Any, *above: str) -> Iterator[tuple[str, Any]]:
    """Every command below a group, by the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *above, name)
        else:
            yield " ".join((*above, name)), command


@pytest.mark.parametrize(
    ("words", "command"), list(commands(typer.main.get_command(app))), ids=lambda value: str(value)
)
def test_every_command_has_json_and_says_what_each_option_does(words: str, command: Any) -> None:
    options = {name: each for each in command.params for name in each.opts}
    assert "--json" in options
    for name, option in options.items():
        assert option.help, f"perfuse {words} {name}"
    assert command.help.splitlines()[0].endswith("."), "a sentence"
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    assert f"perfuse {words}" in page


def test_nobody_reads_on() -> None:
    done = subprocess.run(
        f"{sys.executable} -c 'from perfuse.cli import main; main()' --help | true",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
