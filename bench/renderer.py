"""The Renderer beside stock diffusers, in one run on one machine.

    python -m bench.renderer [--quick] [--out FOLDER]

(a) what concepts cost in a step, (b) another choice of concepts beside loading a LoRA, (c) sixteen
tenants in one batch, (d) cancelling, (e) a concept that is only in the Registry, (f) open-loop load
and a flood. Each module says what exactly it measures on either side; contenders take turns.

On the toybox base, and, where no server is needed, on Stable Diffusion 1.5's configuration with
random weights. No GPU is used, so what is held to a GPU alone is left out. torch has one thread, as
servers and callers share the machine, but in (a) on Stable Diffusion all cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from bench import (
    renderer_cancel,
    renderer_cold,
    renderer_load,
    renderer_mixed,
    renderer_step,
    renderer_swap,
)
from bench.renderer_bases import stable_diffusion_15, toybox
from bench.renderer_figures import Step, surroundings
from bench.renderer_servers import registry_of, renderer_of
from bench.renderer_show import draw, table
from perfuse.attach import BaseModel, silence_loading

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Size:
    """How much to measure on a base model.

    Attributes:
        lanes, side, rounds: of (a); side in pixels.
        threads: of torch in (a); 0 for all cores.
        pictures: of (a)'s whole step; 0 leaves it out.
        swaps: rounds of (b).
        mixed_side, mixed_steps, mixed_guidance: of the pictures of (c), the side of (d) too.
        mixed, mixed_peer: rounds of (c), of ours and of the peer.
        cancels: of (d).
        versions: of (e).
        load: of (f), and whether (e) goes through the Renderer; None leaves both out.
    """

    lanes: int
    side: int
    rounds: int
    threads: int
    pictures: int
    swaps: int
    mixed_side: int
    mixed_steps: int
    mixed_guidance: float
    mixed: int
    mixed_peer: int
    cancels: int
    versions: int
    load: renderer_load.Load | None


@dataclass(frozen=True)
class Plan:
    """How much to measure.

    Attributes:
        toybox: on the toybox base.
        sd15: on Stable Diffusion 1.5's configuration; None leaves it out.
    """

    toybox: Size = field(
        default=Size(
            lanes=8,
            side=32,
            rounds=24,
            threads=1,
            pictures=8,
            swaps=10,
            mixed_side=32,
            mixed_steps=5,
            mixed_guidance=3.0,
            mixed=3,
            mixed_peer=1,
            cancels=50,
            versions=100,
            load=renderer_load.Load(),
        )
    )
    sd15: Size | None = field(
        default=Size(
            lanes=1,
            side=256,
            rounds=9,
            threads=0,
            pictures=0,
            swaps=3,
            mixed_side=64,
            mixed_steps=1,
            mixed_guidance=1.0,
            mixed=1,
            mixed_peer=1,
            cancels=3,
            versions=40,
            load=None,
        )
    )


QUICK = Plan(
    toybox=Size(
        lanes=2,
        side=32,
        rounds=4,
        threads=1,
        pictures=2,
        swaps=2,
        mixed_side=16,
        mixed_steps=2,
        mixed_guidance=3.0,
        mixed=1,
        mixed_peer=1,
        cancels=5,
        versions=10,
        load=renderer_load.Load(
            steps=(2, 3, 4), capacity_seconds=2, seconds=2, light=5, light_steps=4, cancels=5
        ),
    ),
    sd15=None,
)


def measure(plan: Plan, console: Console) -> dict[str, Any]:
    """Base model → part → what was measured."""
    silence_loading()
    found: dict[str, Any] = {}
    with Progress(
        *Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    ) as progress:
        found["toybox"] = _of(toybox(), plan.toybox, "toybox", progress)
        if plan.sd15 is not None:
            task = progress.add_task("SD1.5: a billion random weights", total=None)
            base = stable_diffusion_15()
            progress.remove_task(task)
            found["sd15"] = _of(base, plan.sd15, "SD1.5", progress)
    return found


def _of(base: BaseModel, size: Size, name: str, progress: Progress) -> dict[str, Any]:
    @contextmanager
    def telling(title: str, turns: int) -> Iterator[Step]:
        task = progress.add_task(f"{name}: {title}", total=turns)
        began = time.perf_counter()
        yield lambda: progress.advance(task)
        found.setdefault("seconds", {})[title] = round(time.perf_counter() - began, 1)

    found: dict[str, Any] = {}
    turns = (size.rounds + 1) * (1 + len(renderer_step.COUNTS))
    torch.set_num_threads(size.threads or os.cpu_count() or 1)
    with telling("(a) steps", turns) as advance:
        found["step"] = renderer_step.measure_denoiser(
            base, size.lanes, size.side, size.rounds, advance
        )
    torch.set_num_threads(1)
    if size.pictures:
        with telling("(a) whole steps", turns) as advance:
            found["whole_step"] = renderer_step.measure_whole_step(
                base, size.pictures, size.side, size.rounds, advance
            )
    with telling("(b) other concepts", size.swaps + 1) as advance:
        found["swap"] = renderer_swap.measure(base, size.swaps, advance)
    with telling("(c) sixteen tenants", 4 * size.mixed + size.mixed_peer) as advance:
        found["mixed"] = renderer_mixed.measure(
            base,
            size.mixed_side,
            size.mixed_steps,
            size.mixed_guidance,
            size.mixed,
            size.mixed_peer,
            advance,
        )
    with telling("(d) cancelling", size.cancels) as advance:
        found["cancel"] = renderer_cancel.measure(base, size.mixed_side, size.cancels, advance)
    with tempfile.TemporaryDirectory(prefix="perfuse-bench-") as home:
        found |= _with_servers(base, size, Path(home), telling)
    return found


def _with_servers(base: BaseModel, size: Size, home: Path, telling: Any) -> dict[str, Any]:
    """(e) and (f)."""
    versions = {renderer_cold.TENANT: size.versions}
    if size.load is not None:
        others = (*renderer_load.TENANTS, renderer_load.LIGHT, renderer_load.FLOOD)
        versions |= dict.fromkeys(others, 1)
    found: dict[str, Any] = {}
    with registry_of(base, home, versions) as services:
        with telling("(e) cold adapters, the pool", size.versions) as advance:
            found["cold_pool"] = asyncio.run(
                renderer_cold.measure_pool(services, home, size.versions, advance)
            )
        if size.load is None:
            return found
        with renderer_of(services, home, threads=1) as served:
            with telling("(e) cold adapters, the Renderer", size.versions) as advance:
                found["cold"] = asyncio.run(
                    renderer_cold.measure_renderer(served, size.versions, advance)
                )
            with telling("(f) load", size.load.turns) as advance:
                found["load"] = asyncio.run(renderer_load.measure(served, size.load, advance))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print figures beside their targets, and keep them with a plot."""
    parser = argparse.ArgumentParser(prog="python -m bench.renderer", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--quick", action="store_true", help="a minute, on the toybox alone; kept nowhere"
    )
    parser.add_argument("--out", type=Path, help="folder of figures and plot: bench/results")
    chosen = parser.parse_args(arguments)
    plan = QUICK if chosen.quick else Plan()
    record = {**surroundings(), "plan": asdict(plan)}
    record |= measure(plan, Console(stderr=True))
    Console().print(table(record))
    out = chosen.out or (None if chosen.quick else RESULTS)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "renderer.json").write_text(json.dumps(record, indent=2) + "\n")
        draw(record).savefig(out / "renderer.png", dpi=120)


if __name__ == "__main__":
    main()
