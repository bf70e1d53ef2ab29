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


def main(arguments: Sequence[str] | None = None) -> None:
    """Everything finished is kept at once: stopped at any moment and called again it goes on."""
    names = [question.name for question in QUESTIONS]
    parser = argparse.ArgumentParser(prog="python -m bench.fidelity.trials", description=__doc__)
    parser.add_argument("--questions", nargs="*", choices=names, default=names)
    parser.add_argument("--readings", action="store_true", help="what no picture is needed for")
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
            record = Trial(lab).ask(question)
            write(
                chosen.out / "bench" / "results" / "fidelity_trials.json",
                lab,
                record,
                question.name,
            )
            console.print(table(record), markup=False)


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


def table(record: dict[str, Any]) -> str:
    """In Markdown: each way at each bias, and its differences from the first way."""
    shown = FRONT[:4]
    lines = [record["asks"], "", f"| way | bias | {' | '.join(shown)} |", f"|---|---|{'---|' * 4}"]
    for name, found in record["ways"].items():
        for place, bias in enumerate(record["biases"]):
            cells = " | ".join(_number(found[one][place]) for one in shown)
            lines.append(f"| {name} | {bias:g} | {cells} |")
    lines += ["", f"| against the first | {' | '.join(FRONT)} |", f"|---|{'---|' * len(FRONT)}"]
    for name, found in record["against"].items():
        cells = " | ".join(_span(found[one]) for one in FRONT)
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
