"""The search itself, in a process of its own: `python -m fuzz.search TARGET PROGRAM [FLAGS]`.

PROGRAM is what libFuzzer starts when it wants a process like this one, with other FLAGS. What is
fuzzed must be imported while its branches are watched, and nothing before it, so that this is a
program and not a function.
"""

from __future__ import annotations

import sys

import atheris

from fuzz import TARGETS, target


def main() -> None:
    name, *command = sys.argv[1:]
    with atheris.instrument_imports(include=list(TARGETS[name])):
        one = target(name).one
    atheris.Setup(command, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
