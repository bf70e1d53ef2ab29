"""`python -m bench.fidelity.trials`: settle what the method leaves open, by measurement."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.fidelity.__main__ import HOME
from bench.fidelity.claims.blends import MEASURES
from bench.fidelity.form import BROAD, QUICK
from bench.fidelity.lab import Lab, quiet_base
from bench.fidelity.results import revision
from bench.fidelity.trials.questions import QUESTIONS
from bench.fidelity.trials.trial import Trial
from bench.renderer_figures import surroundings
from perfuse.adapter.file import write_atomically
from perfuse.attach import silence_loading
from perfuse_toybox.base import DIRECTORY

FRONT = (
    "likeness",
    "text",
    "own/kind",
    "alike",
    "text at equal likeness",
    "likeness at equal text",
    "companions alike at equal likeness",
)


ALONE = (FRONT[:4], FRONT)
BLENDED = (MEASURES[:4], MEASURES[:4])
"""Measures of a table's points, and of its differences."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Everything finished is kept at once: stopped at any moment and called again it goes on."""
    names = [question.name for question in QUESTIONS]
    parser = argparse.ArgumentParser(prog="python -m bench.fidelity.trials", description=__doc__)
    parser.add_argument("--questions", nargs="*", choices=names, default=names)
    parser.add_argument("--readings", action="store_true", help="what no picture is needed for")
    parser.add_argument("--blends", action="store_true", help="the ways in blends, not alone")
    parser.add_argument("--broad", action="store_true", help="all eight concepts, not three")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch")
    parser.add_argument("--work", type=Path, default=HOME / ".fidelity", help="finished work")
    parser.add_argument("--out", type=Path, default=HOME, help="in whose bench/ to write")
    chosen = parser.parse_args(arguments)
    silence_loading()
    form, console = BROAD if chosen.broad else QUICK, Console(width=120)
    lab = Lab(form, quiet_base(DIRECTORY, chosen.threads), chosen.work, console)
    where = chosen.out / "bench" / "results" / "fidelity_trials.json"
    if chosen.readings:
        found = Trial(lab).readings()
        write(where, lab, found, "readings")
        console.print_json(data=found)
    for question in QUESTIONS:
        if question.name in chosen.questions:
            if chosen.blends:
                record, shown = Trial(lab).blend(question), BLENDED
                write(where, lab, record, f"{question.name}, blends")
            else:
                record, shown = Trial(lab).ask(question), ALONE
                write(where, lab, record, question.name)
            console.print(table(record, *shown), markup=False)


def write(path: Path, lab: Lab, record: dict[str, Any], name: str) -> None:
    """Add one question's record to the results' file."""
    everything = json.loads(path.read_text()) if path.exists() else {}
    about = {
        "form": asdict(lab.form),
        "base": lab.base.fingerprint,
        "measured": {**surroundings(), "revision": revision()},
    }
    everything.setdefault(lab.form.name, {})[name] = record | about
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(everything, indent=1) + "\n").encode())


def table(
    record: dict[str, Any], shown: Sequence[str] = ALONE[0], compared: Sequence[str] = ALONE[1]
) -> str:
    """In Markdown: each way at each bias, and its differences from the first way."""
    lines = [record["asks"], "", f"| way | bias | {' | '.join(shown)} |"]
    lines += [f"|---|---|{'---|' * len(shown)}"]
    for name, found in record["ways"].items():
        for place, bias in enumerate(record["biases"]):
            cells = " | ".join(_number(found[one][place]) for one in shown)
            lines.append(f"| {name} | {bias:g} | {cells} |")
    lines += [
        "",
        f"| against the first | {' | '.join(compared)} |",
        f"|---|{'---|' * len(compared)}",
    ]
    for name, found in record["against"].items():
        cells = " | ".join(_span(found[one]) for one in compared)
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"


def _number(one: dict[str, Any]) -> str:
    return "–" if one["value"] is None else f"{one['value']:.3f}"


def _span(one: dict[str, Any]) -> str:
    if one["value"] is None:
        return "–"
    return f"{one['value']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})"


if __name__ == "__main__":
    main()
