"""What a check of `perfuse doctor` found, and checks made together within a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["Check", "Finding", "note", "ok", "problem", "together"]

Mark = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        check: what was looked at, in a word or two.
        mark: `problem` where something does not work; `note` where something is merely so.
        text: what is so, in words that go on from the check's name.
        remedy: what to do; empty where there is nothing to do.
    """

    check: str
    mark: Mark
    text: str
    remedy: str = ""


Check = Callable[[], Iterator[Finding]]


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, "ok", text)


def note(check: str, text: str, remedy: str = "") -> Finding:
    """Good to know."""
    return Finding(check, "note", text, remedy)


def problem(check: str, text: str, remedy: str) -> Finding:
    """Something does not work."""
    return Finding(check, "problem", text, remedy)


def together(checks: Mapping[str, Check], seconds: float) -> list[Finding]:
    """What checks found, made at the same time, in their order.

    One that has not ended in time, or fails, is a finding itself; it is left to its daemon thread.

    Args:
        checks: name → check.
        seconds: for all of them.
    """
    found: dict[str, list[Finding]] = {name: [] for name in checks}

    def make(name: str, check: Check) -> None:
        try:
            for each in check():
                found[name].append(each)
        except Exception as error:
            told = f"the check itself failed, {type(error).__name__}: {error}"
            found[name].append(problem(name, told, "report it, please"))

    threads = {
        name: threading.Thread(target=make, args=(name, check), daemon=True)
        for name, check in checks.items()
    }
    until = time.monotonic() + seconds
    for thread in threads.values():
        thread.start()
    for name, thread in threads.items():
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive():
            told = f"no answer within {seconds:g} seconds"
            found[name].append(problem(name, told, "see whether the machine is overloaded"))
    return [each for group in found.values() for each in list(group)]
