"""The search itself, in a process of its own: `python -m fuzz.search TARGET PROGRAM [FLAGS]`.

PROGRAM is what libFuzzer starts when it wants a process like this one, with other FLAGS. What is
fuzzed must be imported while its branches are watched, and nothing before it, so that this is a
program and not a function.
"""

from __future__ import annotations

import logging
import sys

import atheris
import structlog

from fuzz import TARGETS, target


def main() -> None:
    name, *command = sys.argv[1:]
    # Millions of refusals are told by nobody.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with atheris.instrument_imports(include=list(TARGETS[name])):
        fuzzed = target(name)
    # What the first inputs start, as a process that decodes, is not counted as their time.
    for data in fuzzed.seeds().values():
        fuzzed.one(data)
    atheris.Setup(command, fuzzed.one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
