"""`python -m bench.fidelity`: measure the claims, one after another, and write what was found."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.fidelity import results
from bench.fidelity.claims import CLAIMS
from bench.fidelity.document import write
from bench.fidelity.form import FULL, QUICK, Form
from bench.fidelity.lab import Lab, quiet_base
from perfuse.attach import silence_loading
from perfuse_toybox.base import DIRECTORY

HOME = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Everything finished is kept at once: stopped at any moment and called again it goes on."""
    parser = argparse.ArgumentParser(prog="python -m bench.fidelity", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="3 concepts, within 10 minutes")
    parser.add_argument("--claims", type=int, nargs="+", help="numbers; all by default")
    parser.add_argument("--base", type=Path, default=DIRECTORY, help="the base model")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch")
    parser.add_argument("--work", type=Path, default=HOME / ".fidelity", help="finished work")
    parser.add_argument("--out", type=Path, default=HOME, help="in whose bench/ and docs/ to write")
    parser.add_argument("--write", action="store_true", help="only write the document anew")
    chosen = parser.parse_args(arguments)
    console = Console()
    where = chosen.out / "bench" / "results" / "fidelity.json"
    if chosen.write:
        write(results.read(where), chosen.out / "docs", [claim.NAME for claim in CLAIMS])
        return
    silence_loading()
    form: Form = QUICK if chosen.quick else FULL
    lab = Lab(form, quiet_base(chosen.base, chosen.threads), chosen.work, console)
    measure(lab, where, chosen.out / "docs", chosen.claims, chosen.threads)
    console.print(_table(results.read(where)))


def measure(lab: Lab, where: Path, docs: Path, numbers: Sequence[int] | None, threads: int) -> None:
    """Measure claims in their order; after each one, results, plots and document are written."""
    for claim in CLAIMS:
        if numbers and claim.NUMBER not in numbers:
            continue
        lab.note(f"claim {claim.NUMBER}: {claim.TITLE}")
        record = claim.measure(lab)
        sheet = claim.sheet(lab)
        if sheet is not None:
            sheet.save(docs / "fidelity" / f"{claim.NAME}-{lab.form.name}-sheet.png")
        everything = results.add(where, lab.form, lab.base, claim.NAME, record, threads=threads)
        write(everything, docs, [claim.NAME])


def _table(everything: dict[str, object]) -> Table:
    table = Table("claim", "form", "what", "verdict", "value", "95 %")
    for claim in CLAIMS:
        found = results.told(everything, claim.NAME)
        if found is None:
            table.add_row(f"({claim.NUMBER})", "", claim.TITLE, "not measured yet")
            continue
        for what, one in found[1]["verdicts"].items():
            value = "" if one["value"] is None else f"{one['value']:+.3f}"
            span = "" if one["value"] is None else f"{one['low']:+.3f} to {one['high']:+.3f}"
            table.add_row(f"({claim.NUMBER})", found[0], what, one["verdict"], value, span)
    return table


if __name__ == "__main__":
    main()
