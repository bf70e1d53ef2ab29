"""How far a fleet goes: simulated, from step times that were measured or are assumed.

    python -m bench.capacity [--quick] [--out FOLDER] [--docs FOLDER]

First the simulation beside one Renderer as it was measured; then fleets of 10 to 10 000 devices, a
sweep over step times, a day with an autoscaler, and a catalogue of ten million concepts. Writes
capacity.json, and the plots and tables of docs/capacity.md. Ten minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from bench.capacity import document, experiments, plots, validation
from bench.capacity.experiments import QUICK, Assumptions, Form
from bench.capacity.measured import RESULTS, MeasuredRegistry, MeasuredRenderer, read

DOCS = Path(__file__).parents[2] / "docs"


def measure(form: Form, given: Assumptions, repetitions: int, console: Console) -> dict[str, Any]:
    """Everything."""
    found: dict[str, Any] = {"assumptions": asdict(given), "form": asdict(form)}
    renderer = MeasuredRenderer.of(read("renderer"))
    with Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=console) as bar:
        turns = (len(renderer.load["shares"]) + 1) * repetitions
        task = bar.add_task("beside reality", total=turns)
        found["validation"] = validation.validate(renderer, lambda: bar.advance(task), repetitions)
        for experiment, case, trial in experiments.trials(form, given):
            task = bar.add_task(f"{experiment}: {case}", total=trial.seconds)
            result = trial.run(lambda moment, task=task: bar.update(task, completed=moment))
            kept = experiments.kept(experiment, result, given)
            found.setdefault(experiment, {})[case] = kept
            bar.update(task, completed=trial.seconds)
        task = bar.add_task("ten million concepts", total=None)
        registry = MeasuredRegistry.of(read("registry"))
        found["catalogue"] = experiments.catalogue(form, given, registry)
        bar.update(task, total=1, completed=1)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, keep the figures, draw and write."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="half a minute; kept nowhere")
    parser.add_argument("--out", type=Path, default=RESULTS, help="of capacity.json")
    parser.add_argument("--docs", type=Path, default=DOCS, help="of capacity.md and its plots")
    parser.add_argument("--draw", action="store_true", help="write only, from figures kept before")
    chosen = parser.parse_args(arguments)
    console, kept = Console(stderr=True), chosen.out / "capacity.json"
    if chosen.quick:
        Console().print_json(data=measure(QUICK, Assumptions(), 3, console))
        return
    if not chosen.draw:
        found = measure(Form(), Assumptions(), validation.REPETITIONS, console)
        kept.write_text(json.dumps(found, indent=1) + "\n")
    record = json.loads(kept.read_text())
    plots.draw(record, chosen.docs / "capacity")
    document.write(record, chosen.docs / "capacity.md")


if __name__ == "__main__":
    main()
