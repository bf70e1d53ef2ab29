"""The Trainer beside textual inversion and `perfusion-pytorch`, in one run on one machine.

    python -m bench.trainer [--quick] [--out FOLDER]

(a) one training step beside the peers', (b) runs an hour packed beside one after another, (c) on a
GPU a whole run on Stable Diffusion 1.5's configuration. Each module says what exactly it measures.
`perfusion-pytorch` and (c) are left out, and said to be, where package or GPU is missing. On a CPU
torch has one thread and its CPU time is read, so that what else the machine does disturbs little.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from bench import trainer_gpu, trainer_packs, trainer_steps
from bench.renderer_bases import stable_diffusion_15, toybox
from bench.renderer_figures import surroundings
from bench.trainer_peers import perfusion_package
from bench.trainer_show import draw, tables
from perfuse.attach import silence_loading

RESULTS = Path(__file__).parent / "results"
TOYBOX_SIDE, SD15_SIDE = 32, 128


@dataclass(frozen=True)
class Plan:
    """How much to measure.

    Attributes:
        rounds: Of (a) on the toybox base at batch 16.
        sd15_rounds: Of (a) on Stable Diffusion 1.5's configuration at batch 4; 0 leaves it out.
        packs: K of (b).
        pack_rounds: Batch of each run → rounds of (b).
        gpu: Whether (c) is measured where there is a GPU.
    """

    rounds: int = 15
    sd15_rounds: int = 2
    packs: tuple[int, ...] = (1, 2, 4, 8)
    pack_rounds: tuple[tuple[int, int], ...] = ((16, 5), (2, 12))
    gpu: bool = True


QUICK = Plan(rounds=2, sd15_rounds=0, packs=(1, 2), pack_rounds=((2, 2),), gpu=False)


def measure(plan: Plan, console: Console) -> dict[str, Any]:
    """Part → what was measured."""
    silence_loading()
    torch.set_num_threads(1)
    package = perfusion_package() is not None
    found: dict[str, Any] = {"package": package, "step": {}, "packs": [], "gpu": None}
    contenders = 5 if package else 4
    with Progress(
        *Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    ) as progress:

        def task(title: str, turns: int) -> Any:
            identity = progress.add_task(title, total=turns)
            return lambda: progress.advance(identity)

        found["step"]["toybox"] = trainer_steps.measure(
            toybox(),
            TOYBOX_SIDE,
            16,
            plan.rounds,
            task("(a) steps, toybox", contenders * (plan.rounds + 1)),
        )
        for batch, rounds in plan.pack_rounds:
            found["packs"].append(
                trainer_packs.measure(
                    toybox(),
                    TOYBOX_SIDE,
                    batch,
                    plan.packs,
                    rounds,
                    task(f"(b) packs, batch {batch}", len(plan.packs) * (rounds + 1)),
                )
            )
        if plan.sd15_rounds:
            advance = task("(a) steps, SD1.5", contenders * (plan.sd15_rounds + 1))
            found["step"]["sd15"] = trainer_steps.measure(
                stable_diffusion_15(), SD15_SIDE, 4, plan.sd15_rounds, advance
            )
        if plan.gpu and trainer_gpu.available():
            found["gpu"] = trainer_gpu.measure(stable_diffusion_15(), task("(c) GPU", 5))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and keep figures and a plot."""
    parser = argparse.ArgumentParser(prog="python -m bench.trainer", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--quick", action="store_true", help="half a minute, on the toybox alone; kept nowhere"
    )
    parser.add_argument("--out", type=Path, help="folder of figures and plot: bench/results")
    chosen = parser.parse_args(arguments)
    plan = QUICK if chosen.quick else Plan()
    measured = measure(plan, Console(stderr=True))
    machine = {} if measured["gpu"] is None else {"machine": measured["gpu"]["device"]}
    record = {**surroundings(), **machine, "plan": asdict(plan), **measured}
    for table in tables(record):
        Console().print(table)
    out = chosen.out or (None if chosen.quick else RESULTS)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "trainer.json").write_text(json.dumps(record, indent=2) + "\n")
        draw(record).savefig(out / "trainer.png", dpi=120)


if __name__ == "__main__":
    main()
